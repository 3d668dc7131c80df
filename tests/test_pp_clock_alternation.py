"""A clock that is on and off by turns: while it is off, sglang's own functions are back."""

from __future__ import annotations

from typing import Any

from pp_clock_fakes import Batch, go, made

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CODES
from repro_pp_graphs.server.shims import pp_clock

__all__ = ["made"]  # a fixture


def test_windows_alternate(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    _, found = go(made, *[Batch(True, 1)] * 8)
    turns = {
        row.turn: bool(row.flags & rows.OFF) for row in found.rows if row.kind == CODES["turn"]
    }
    assert turns == {turn: turn // 2 in (1, 2) for turn in range(8)}
    assert {row.turn for row in found.rows if row.kind == CODES["launch"]} == {0, 1, 6, 7}


def test_while_the_clock_is_off_sglangs_and_torchs_own_functions_are_back(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    kind, torch, _ = made
    scheduler = kind(torch)
    own = {
        "process": scheduler.process_batch_result,
        "commit": scheduler._pp_commit_comm_work,
        "send": scheduler.pp_group.send_tensor_dict,
        "isend": torch.distributed.isend,
    }
    seen: list[set[str]] = []

    def forward(forward_batch: Any) -> None:
        now = {
            "process": scheduler.process_batch_result,
            "commit": scheduler._pp_commit_comm_work,
            "send": scheduler.pp_group.send_tensor_dict,
            "isend": torch.distributed.isend,
        }
        seen.append({name for name, function in now.items() if function == own[name]})

    scheduler.tp_worker.model_runner.forward = forward
    _, found = go(made, *[Batch(True, 3)] * 8, scheduler=scheduler)
    everything = set(own)
    assert seen == [set(), set(), *[everything] * 4, set(), set()]
    # the turns without it still say what they were
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert all(row.flags & rows.DECODE and row.flags & rows.GRAPH for row in turns)
    assert [row.batch_size for row in turns] == [3] * 8


def test_what_another_shim_put_over_the_clock_stays_there(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    kind, torch, _ = made
    scheduler = kind(torch)
    sent: list[Any] = []

    class Over(Batch):
        """A batch whose launch has another shim take hold of the sends."""

    def send(message: Any) -> list[str]:
        sent.append(message)
        return []

    def forward(forward_batch: Any) -> None:
        if isinstance(forward_batch, Over):
            scheduler.pp_group.send_tensor_dict = send

    scheduler.tp_worker.model_runner.forward = forward
    go(made, Over(True, 1), *[Batch(True, 1)] * 7, scheduler=scheduler)
    assert len(sent) == 8
