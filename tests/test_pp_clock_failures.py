"""A clock that fails stops, says so in its header, and leaves sglang as it was."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from pp_clock_fakes import SPANS, Batch, Profile, go, kinds, made

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CODES
from repro_pp_graphs.server.shims import pp_clock
from repro_pp_graphs.server.shims.pp_clock import message_numbers, owners

__all__ = ["made"]  # a fixture


def test_a_clock_that_has_stopped_keeps_nothing_of_what_goes_on(made, monkeypatch):
    kind, torch, _ = made
    messages: list[Any] = []
    begun = message_numbers.Messages.__init__

    def remember(self: Any, *args: Any) -> None:
        begun(self, *args)
        messages.append(self)

    monkeypatch.setattr(message_numbers.Messages, "__init__", remember)
    scheduler = kind(torch)
    monkeypatch.setattr(rows.RowFile, "write", lambda *_: 1 / 0)
    _, found = go(made, *[Batch(True, 1)] * 2, scheduler=scheduler)
    assert "failed" in found.header
    for _ in range(3 * message_numbers.MOST_UNCOUNTED):
        torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    assert len(messages[0]._uncounted) <= message_numbers.MOST_UNCOUNTED
    Profile.on = True
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    sent = 3 * message_numbers.MOST_UNCOUNTED + 2 + 1  # those of the two turns too
    assert SPANS[-1] == f"pp_clock:send 1->0 pp #{sent}"


def test_a_row_that_cannot_be_written_has_none_before_it_written_twice(made, monkeypatch):
    own, broken = rows.RowFile.write, []

    def write(self: Any, *row: int) -> None:
        if row[3] == CODES["launch"]:
            broken.append(row)
            raise ValueError("no")
        own(self, *row)

    monkeypatch.setattr(rows.RowFile, "write", write)
    _, found = go(made, *[Batch(True, 1)] * 2)
    assert broken and "failed" in found.header
    assert len({(row.kind, row.begin_ns) for row in found.rows}) == len(found.rows)


@pytest.mark.parametrize("fault", ["write", "batch", "folder"])
def test_a_fault_of_the_clock_stops_the_clock_and_not_the_server(made, monkeypatch, fault):
    if fault == "folder":
        monkeypatch.setenv(pp_clock.PREFIX_ENV, "/nowhere/x")
    if fault == "write":
        monkeypatch.setattr(rows.RowFile, "write", lambda *_: 1 / 0)
    batch = Batch(True, 1)
    if fault == "batch":
        del batch.forward_mode
        batch.forward_mode = None
    kind, torch, path = made
    scheduler = kind(torch)
    scheduler.batches = [batch] * 3
    scheduler.run_batch = lambda batch: SimpleNamespace(can_run_cuda_graph=False)
    scheduler.event_loop_pp()
    assert scheduler.event.waited == 3
    if fault != "folder":
        assert "turn 0" in rows.read(path).header["failed"]


def test_an_error_of_sglang_goes_through_unchanged(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    scheduler.pp_group.send_tensor_dict = lambda tensor_dict: (_ for _ in ()).throw(OSError("gone"))
    scheduler.batches = [Batch(True, 1)]
    with pytest.raises(OSError, match="gone"):
        scheduler.event_loop_pp()


@pytest.mark.parametrize("where", ["torch", "wrap"])
def test_what_breaks_at_the_start_is_in_the_header(made, monkeypatch, where):
    kind, torch, path = made
    if where == "torch":
        del torch.distributed.irecv  # the numbers of messages alone are lost
    else:
        monkeypatch.setattr(owners, "_owners", lambda scheduler: 1 / 0)
    scheduler = kind(torch)
    scheduler.pp_group.recv_tensor_dict = lambda: {"hidden_states": 1}
    _, found = go(made, *[Batch(True, 1)] * 2, scheduler=scheduler)
    assert scheduler.event.waited == 2
    if where == "torch":
        assert found.header["lacks"]["messages"].startswith("could not be put in place")
        assert kinds(found)["turn"] == 2
    else:
        assert found.header["failed"].startswith("not started: ZeroDivisionError")
        assert found.rows == [] and path.exists()
