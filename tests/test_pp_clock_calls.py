"""The calls of a turn: each has a row, by the loop's own thread, in newer releases and in 0.5.2."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from pp_clock_fakes import SPANS, Batch, Event, Group, Profile, fake_torch, go, kinds, made

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CODES, KINDS
from repro_pp_graphs.server.shims import pp_clock

__all__ = ["made"]  # a fixture


def test_every_call_of_a_turn_has_a_row_and_the_turn_tells_its_batch(made):
    scheduler, found = go(made, Batch(False, 2), Batch(True, 3), Batch(True, 3))
    assert scheduler.ran == [2, 3, 3] and scheduler.event.waited == 3
    assert kinds(found) == {
        **dict.fromkeys(("turn", "recv_hidden", "launch", "send_tokens", "wait_results"), 3),
        **{"process": 3, "wait_sent_tokens": 2},  # nothing had been sent before the first
    }
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert [(row.turn, row.flags, row.batch_size) for row in turns] == [
        (0, rows.PREFILL, 2),
        (1, rows.DECODE | rows.GRAPH, 3),
        (2, rows.DECODE | rows.GRAPH, 3),
    ]
    for row in found.rows:
        turn = next(each for each in turns if each.turn == row.turn)
        assert turn.begin_ns <= row.begin_ns <= row.end_ns <= turn.end_ns
    assert found.header["loop_size"] == 2 and "failed" not in found.header


def test_an_exchange_is_timed_in_place_of_the_sends_and_receives_in_it(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    group, send = scheduler.pp_group, scheduler.pp_group.send_tensor_dict
    type(group).exchange_tensor_dicts = lambda self, tensor_dicts: send(tensor_dicts[0])
    try:
        commit = "_pp_commit_send_output_work_and_preprocess_output_tensors"
        exchange = lambda *_: (group.exchange_tensor_dicts([{"next_token_ids": 1}]), Event())  # noqa: E731
        setattr(scheduler, commit, exchange)
        _, found = go(made, Batch(True, 1), Batch(True, 1), scheduler=scheduler)
    finally:
        del type(group).exchange_tensor_dicts
    kinds = Counter(KINDS[row.kind] for row in found.rows)
    assert kinds["exchange"] == 2 and not kinds.keys() & {"send_tokens", "recv_hidden"}
    assert found.header["found"]["exchange"] == "GroupCoordinator.exchange_tensor_dicts"
    assert "send_tensors" not in found.header["found"]
    assert not {"exchange", "send_tensors", "recv_tensors"} & found.header["lacks"].keys()


def test_other_threads_are_neither_timed_nor_counted(made):
    kind, torch, path = made
    scheduler = kind(torch)
    _, before = go(made, Batch(True, 1), scheduler=scheduler)

    def elsewhere() -> None:
        scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
        torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert rows.read(path).rows == before.rows
    Profile.on = True
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    assert SPANS == ["pp_clock:send 1->0 pp #2"]


class OldScheduler:
    """A rank of 0.5.2, as far as the clock sees it: its loop sends and receives by itself, and the
    hidden states come in inside run_batch."""

    def __init__(self, torch: Any, module: Any, rank: int) -> None:
        self.pp_group = Group(torch, rank)
        self.world_group = SimpleNamespace(device_group=object(), cpu_group=object())
        self.server_args = SimpleNamespace()
        self.module = module
        self.batches: list[Batch] = []
        runner = SimpleNamespace(forward=lambda forward_batch: None)
        self.tp_worker = SimpleNamespace(worker=SimpleNamespace(model_runner=runner))

    def recv_requests(self) -> list[Any]:
        if self.pp_group.rank_in_group:
            self.module.point_to_point_pyobj([], 1, None, 0, 1)
        return []

    def run_batch(self, batch: Batch) -> Any:
        if self.pp_group.rank_in_group:
            self.pp_group.incoming.append({"hidden_states": 1})
            self.pp_group.recv_tensor_dict()
        self.tp_worker.worker.model_runner.forward(batch)
        return SimpleNamespace(can_run_cuda_graph=True)

    def process_batch_result(self, batch: Batch, result: Any, launch_done: Any = None) -> None:
        pass

    def event_loop_pp(self) -> None:
        for batch in self.batches:
            self.recv_requests()
            result = self.run_batch(batch)
            if self.pp_group.rank_in_group:
                self.pp_group.send_tensor_dict({"next_token_ids": 1})
            self.pp_group.incoming.append({"next_token_ids": 1})
            self.pp_group.recv_tensor_dict()
            self.process_batch_result(batch, result)
            if not self.pp_group.rank_in_group:
                self.pp_group.send_tensor_dict({"next_token_ids": 1})
                self.module.point_to_point_pyobj([], 0, None, 0, 1)
                self.pp_group.send_tensor_dict({"hidden_states": 1})
        self.recv_requests()
        self.recv_requests()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_calls_of_0_5_2_are_timed_too(tmp_path, monkeypatch, rank):
    torch = fake_torch(rank)
    module = SimpleNamespace(point_to_point_pyobj=lambda data, rank, group, src, dst: [])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "sglang", SimpleNamespace(__version__="0.5.2"))
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler", module)
    monkeypatch.setenv(pp_clock.PREFIX_ENV, str(tmp_path / "x"))
    monkeypatch.setenv(pp_clock.ROWS_ENV, "4096")
    kind = type("Scheduler", (OldScheduler,), {})
    pp_clock.patch(SimpleNamespace(Scheduler=kind))
    scheduler = kind(torch, module, rank)
    scheduler.batches = [Batch(True, 8)] * 4
    scheduler.event_loop_pp()
    found = rows.read(rows.path_of(str(tmp_path / "x"), rank, 0))
    both = ("turn", "launch", "send_tokens", "recv_tokens", "process")
    own = ("recv_hidden", "recv_requests") if rank else ("send_hidden", "send_requests")
    seen = kinds(found)
    assert set(seen) == {*both, *own}
    # the last rank asks for requests once more, in a turn that has not ended
    assert all(count == 4 for name, count in seen.items() if name != "recv_requests")
    lacks = found.header["lacks"]
    assert set(lacks) == {"wait_sent", "wait_results", "own_batch"}
    assert not any(why.startswith("not in this release") for why in lacks.values())
    assert found.header["found"]["own_batch"] == "ModelRunner.forward"
    launches = [row for row in found.rows if row.kind == CODES["launch"]]
    inside = [row for row in found.rows if row.kind == CODES["recv_hidden"]]
    for launch, receive in zip(launches, inside, strict=False):
        assert launch.begin_ns <= receive.begin_ns and receive.end_ns <= launch.end_ns
