"""The ranks' real loops, a thread each, over a network that keeps nothing: a send ends when it is
received, and what is then in its buffer is what arrives. Imports torch: tests import it late."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import torch

from repro_pp_graphs.probe.cells import Cell, parse_send
from repro_pp_graphs.probe.loops import Loop
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.schedule import Schedule

LIMIT_S = 120.0  # a ring that hangs ends here


class Transfer:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.over = tensor, threading.Event()

    def wait(self) -> None:
        if not self.over.wait(LIMIT_S):
            raise TimeoutError("deadlock")


class Network:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: dict[Any, deque[Transfer]] = defaultdict(deque)
        self.closed = False

    def close(self) -> None:
        """A rank has failed: nobody waits any longer."""
        with self.lock:
            self.closed = True
            for each in (each for several in self.waiting.values() for each in several):
                each.over.set()

    def post(self, op: str, ends: tuple[str, int, int], tensor: torch.Tensor) -> Transfer:
        mine = Transfer(tensor)
        with self.lock:
            if self.closed:
                raise RuntimeError("connection closed by peer")
            others = self.waiting["recv" if op == "send" else "send", ends]
            if not others:
                self.waiting[op, ends].append(mine)
                return mine
            other = others.popleft()
        source, target = (mine, other) if op == "send" else (other, mine)
        assert source.tensor.shape == target.tensor.shape, "two messages that do not match"
        target.tensor.copy_(source.tensor)
        mine.over.set()
        other.over.set()
        return mine


class Group:
    """One rank's end of a process group."""

    def __init__(self, network: Network, name: str, rank: int) -> None:
        self.network, self.name, self.rank = network, name, rank

    def send(self, tensors: list[torch.Tensor], peer: int, tag: int = 0) -> Transfer:
        return self.network.post("send", (self.name, self.rank, peer), tensors[0])

    def recv(self, tensors: list[torch.Tensor], peer: int, tag: int = 0) -> Transfer:
        return self.network.post("recv", (self.name, peer, self.rank), tensors[0])


class ThreadRing(Ring):
    meeting: threading.Barrier

    def barrier(self) -> None:
        self.meeting.wait(LIMIT_S)


class Stage:
    """Numbers in place of layers: a rank's step multiplies and adds, a message is (value, turn)."""

    def __init__(self, rank: int, ranks: int, micro_batches: int, steps: int) -> None:
        self.rank, self.first, self.last = rank, rank == 0, rank == ranks - 1
        self.shape = SimpleNamespace(batch=1, micro_batches=micro_batches, steps=steps)
        self.stage = self  # the runner too
        self.hidden_in, self.hidden_out, self.tokens_in, self.tokens_out = (
            torch.zeros(2, dtype=torch.long) for _ in range(4)
        )
        self.wrong = torch.zeros(1, dtype=torch.long)

    def reset(self) -> None:
        self.wrong.zero_()

    def start_tokens(self, micro_batch: int) -> torch.Tensor:
        return torch.tensor([micro_batch * 7, -1])

    def run(self, turn: int, micro_batch: int, given: torch.Tensor | None, graphs: bool) -> None:
        came = self.tokens_in if self.first else self.hidden_in
        if given is not None:
            came.copy_(given)
        if not self.first:
            self.wrong += came[1] != turn
        out = self.tokens_out if self.last else self.hidden_out
        out.copy_(torch.tensor([step_of(int(came[0]), self.rank), turn]))


def step_of(value: int, rank: int) -> int:
    return (value * 31 + rank) % 99991


def run_ring(schedule: Schedule, send: str) -> list[dict[int, list[int]]]:
    """Token ids that each rank received, by turn. Raises what a rank raised."""
    ranks, network, meeting = schedule.ranks, Network(), threading.Barrier(schedule.ranks)
    outputs: list[dict[int, list[int]]] = [{}] * ranks
    errors: list[BaseException] = []

    def one_rank(rank: int) -> None:
        groups = [Group(network, name, rank) for name in ("device", "cpu", "requests")]
        ring = ThreadRing(rank, ranks, torch.device("cpu"), *groups, False)  # type: ignore[arg-type]
        ring.meeting = meeting
        stage = Stage(rank, ranks, schedule.micro_batches, schedule.steps)
        loop = Loop(ring, stage, Cell(False, parse_send(send), 1), host_us=0)  # type: ignore[arg-type]
        try:
            loop.run()
            outputs[rank] = loop.outputs
        except BaseException as error:
            errors.append(error)
            network.close()
            meeting.abort()

    threads = [threading.Thread(target=one_rank, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    if own:
        raise own[0]
    assert not any(network.waiting.values()), "a message was never received"
    return outputs
