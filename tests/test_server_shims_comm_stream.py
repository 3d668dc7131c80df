"""The shim comm_stream: what waits for what, on made-up streams."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from fake_streams import Cuda, Event, Stream
from pp_ring import ring, turns

from repro_pp_graphs.server.shims import comm_stream

__all__ = ["ring"]  # a fixture


class Tensor:
    is_cuda = True

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def record_stream(self, stream: Stream) -> None:
        self.cuda.log.append(f"kept for {stream.name}")


class OnCuda:
    """One rank's turn as 0.5.16 has it, on made-up streams."""

    def __init__(self, cuda: Cuda, last: bool, graph: bool) -> None:
        self.cuda, self.graph = cuda, graph
        self.pp_group = SimpleNamespace(
            device="cuda:0", rank_in_group=int(last), world_size=2, is_last_rank=last
        )
        self.forward_stream = Stream(cuda, "forward")
        self.launch_event: Any = None
        self.send_proxy_work: list[Any] = []

    def _pp_launch_batch(self, mb_id: int) -> tuple[Any, Event]:
        self.cuda.log.append("launch")
        return SimpleNamespace(can_run_cuda_graph=self.graph), Event(self.cuda, "batch")

    def _pp_send_output_to_next_stage(self, event: Event) -> list[str]:
        if self.pp_group.is_last_rank:
            self.cuda.current_stream().wait_event(event)
        return self._pp_send_dict_to_next_stage({"next_token_ids": Tensor(self.cuda)})

    def _pp_send_dict_to_next_stage(self, tensor_dict: dict, async_send: bool = True) -> list[str]:
        self.cuda.log.append(f"{self.cuda.current.name} sends {next(iter(tensor_dict))}")
        return ["work"]

    def _pp_commit_comm_work(self, work: list[str]) -> None:
        if work:
            self.cuda.log.append(f"{self.cuda.current.name} waits for what was sent")
        work.clear()

    def turn(self) -> list[str]:
        """One turn; what it did."""
        self.cuda.log.clear()
        self._pp_commit_comm_work(self.send_proxy_work)
        _, self.launch_event = self._pp_launch_batch(0)
        self._pp_send_output_to_next_stage(Event(self.cuda, "batch"))
        if not self.pp_group.is_last_rank:
            self.cuda.current_stream().wait_event(self.launch_event)
            self.send_proxy_work = self._pp_send_dict_to_next_stage({"hidden": Tensor(self.cuda)})
        return list(self.cuda.log)


def on_a_stream(monkeypatch: pytest.MonkeyPatch, last: bool, graph: bool) -> OnCuda:
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    scheduler = OnCuda(cuda, last, graph)
    comm_stream.send_on_a_stream(scheduler)
    return scheduler


def test_the_last_ranks_token_ids_wait_for_the_batch_on_the_stream_of_the_sends(monkeypatch):
    scheduler = on_a_stream(monkeypatch, last=True, graph=True)
    assert scheduler.turn() == [
        "launch",
        "comm waits for batch",
        "comm sends next_token_ids",
        "kept for comm",
    ]


@pytest.mark.parametrize("graph", [True, False])
def test_hidden_states_leave_the_schedulers_stream_alone(monkeypatch, graph):
    scheduler = on_a_stream(monkeypatch, last=False, graph=graph)
    first = scheduler.turn()
    assert first == [
        "launch",
        "comm waits for schedule",  # the token ids that it passes on were received there
        "comm sends next_token_ids",
        "kept for comm",
        "comm waits for batch",
        "comm sends hidden",
        "kept for comm",
    ]
    # a graph's next replay overwrites what was sent: it must have left by then
    fence = ["forward waits for what comm has"] if graph else []
    assert scheduler.turn() == ["comm waits for what was sent", *fence, *first]


def test_without_the_shim_the_schedulers_stream_waits_for_the_batch():
    # what the tests above can see
    scheduler = OnCuda(Cuda(), last=False, graph=True)
    assert "schedule waits for batch" in scheduler.turn()


def test_on_a_cpu_comm_stream_changes_and_says_nothing(ring, caplog):
    with caplog.at_level("INFO"):
        busy = turns(2, 0, "#" * 6)
        normal = ring(2, busy, lambda scheduler: None)
        assert ring(2, busy, comm_stream.send_on_a_stream) == normal
    assert comm_stream.ACTIVE not in caplog.text
