"""Who sends what when: every message meets its receive, without deadlock, in every send path."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_pp_graphs.probe import batched
from repro_pp_graphs.probe.cells import SENDS, Cell, parse_send
from repro_pp_graphs.probe.loops import Loop
from repro_pp_graphs.probe.messages import Blocking
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.schedule import Schedule

LIMIT_S = 120.0  # a ring that hangs ends here
SIZES = st.builds(Schedule, st.integers(2, 9), st.integers(1, 14), st.integers(1, 9))


def turns_of(schedule: Schedule, rank: int | None = None) -> list[int]:
    """Turns whose token ids are received, or sent by `rank`, in program order."""
    numbers = (
        schedule.received(turn) if rank is None else schedule.sent(turn, rank)
        for turn in range(schedule.turns)
    )
    return [number for number in numbers if schedule.runs(number)]


@given(SIZES)
def test_every_batchs_token_ids_are_received_once_in_order_by_every_rank(schedule):
    every = [turn for turn in range(schedule.turns) if schedule.runs(turn)]
    assert len(every) == schedule.steps * schedule.micro_batches
    assert turns_of(schedule) == every
    for rank in range(schedule.ranks):
        assert turns_of(schedule, rank) == every


@given(SIZES)
def test_a_rank_passes_on_what_it_received_the_turn_before(schedule):
    for turn in range(schedule.turns):
        for rank in range(schedule.ranks - 1):
            assert schedule.sent(turn, rank) == schedule.received(turn - 1)


@given(SIZES)
def test_token_ids_are_there_before_their_micro_batch_runs_again(schedule):
    for turn in range(schedule.turns):
        if schedule.runs(schedule.received(turn)):
            last_sends = schedule.received(turn) + schedule.depth
            assert schedule.received(turn) <= last_sends <= turn
            assert turn < schedule.received(turn) + schedule.slots


# the ranks' real loops, a thread each, over a network that keeps nothing: a send ends when it is
# received, and what is then in its buffer is what arrives


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


def expected(schedule: Schedule) -> dict[int, list[int]]:
    found = {}
    for micro_batch in range(schedule.micro_batches):
        value = micro_batch * 7
        for step in range(schedule.steps):
            for rank in range(schedule.ranks):
                value = step_of(value, rank)
            found[step * schedule.slots + micro_batch] = [value]
    return found


@pytest.fixture(autouse=True)
def batch_over_threads(monkeypatch):
    """torch.distributed's batch over the threads' groups: everything posted, then the works."""
    made = SimpleNamespace(
        isend="send",
        irecv="recv",
        P2POp=lambda op, tensor, peer, group: (getattr(group, op), tensor, peer),
        batch_isend_irecv=lambda ops: [post([tensor], peer) for post, tensor, peer in ops],
    )
    monkeypatch.setattr(batched, "dist", made)


@pytest.mark.parametrize("send", ["blocking", "async", "batched_p2p"])
@given(st.builds(Schedule, st.integers(2, 5), st.integers(1, 7), st.integers(1, 3)))
@settings(max_examples=60, deadline=None)
def test_every_order_of_operations_ends_and_computes_the_same_with_nothing_buffered(send, schedule):
    assert run_ring(schedule, send) == [expected(schedule)] * schedule.ranks


@pytest.mark.parametrize("send", SENDS)
def test_every_send_path_of_sglangs_usual_shape_ends_and_computes_the_same(send):
    schedule = Schedule(ranks=4, micro_batches=4, steps=4)
    assert run_ring(schedule, send) == [expected(schedule)] * 4


def test_a_message_that_carries_another_turns_number_is_refused(monkeypatch):
    def send(self: Any, what: str, tensor: torch.Tensor, turn: int, ready: Any = None) -> None:
        wrong = what == "tokens" and self.ring.last and turn == 4
        original(self, what, tensor, 5 if wrong else turn, ready)

    original = Blocking.send
    monkeypatch.setattr(Blocking, "send", send)
    with pytest.raises(RuntimeError, match=r"took the tokens of turn 5 for those of 4"):
        run_ring(Schedule(2, 2, 4), "blocking")
