"""Who sends what when: every message meets its receive, without deadlock, in every send path."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from examples import THOROUGH
from hypothesis import given, settings
from hypothesis import strategies as st

from repro_pp_graphs.probe.cells import SENDS
from repro_pp_graphs.probe.schedule import Schedule

SIZES = st.builds(Schedule, st.integers(2, 9), st.integers(1, 14), st.integers(1, 9))


def turns_of(schedule: Schedule, rank: int | None = None) -> list[int]:
    """Turns whose token ids are received, or sent by `rank`, in program order."""
    numbers = (
        schedule.received(turn) if rank is None else schedule.sent(turn, rank)
        for turn in range(schedule.turns)
    )
    return [number for number in numbers if schedule.runs(number)]


@pytest.mark.slow
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


# below, torch: imported by the tests themselves, which every process collects


def run_ring(schedule: Schedule, send: str) -> list[dict[int, list[int]]]:
    """Token ids that each rank received, by turn: the ranks' real loops, a thread each."""
    import thread_ring  # noqa: PLC0415

    return thread_ring.run_ring(schedule, send)


def expected(schedule: Schedule) -> dict[int, list[int]]:
    found = {}
    for micro_batch in range(schedule.micro_batches):
        value = micro_batch * 7
        for step in range(schedule.steps):
            for rank in range(schedule.ranks):
                value = (value * 31 + rank) % 99991
            found[step * schedule.slots + micro_batch] = [value]
    return found


@pytest.fixture(autouse=True)
def batch_over_threads(monkeypatch):
    """torch.distributed's batch over the threads' groups: everything posted, then the works."""
    from repro_pp_graphs.probe import batched  # noqa: PLC0415

    made = SimpleNamespace(
        isend="send",
        irecv="recv",
        P2POp=lambda op, tensor, peer, group: (getattr(group, op), tensor, peer),
        batch_isend_irecv=lambda ops: [post([tensor], peer) for post, tensor, peer in ops],
    )
    monkeypatch.setattr(batched, "dist", made)


@pytest.mark.slow
@pytest.mark.parametrize("send", ["blocking", "async", "batched_p2p"])
@given(st.builds(Schedule, st.integers(2, 5), st.integers(1, 7), st.integers(1, 3)))
@settings(max_examples=400 if THOROUGH else 40, deadline=None)
def test_every_order_of_operations_ends_and_computes_the_same_with_nothing_buffered(send, schedule):
    assert run_ring(schedule, send) == [expected(schedule)] * schedule.ranks


@pytest.mark.parametrize("send", SENDS)
def test_every_send_path_of_sglangs_usual_shape_ends_and_computes_the_same(send):
    schedule = Schedule(ranks=4, micro_batches=4, steps=4)
    assert run_ring(schedule, send) == [expected(schedule)] * 4


def test_a_message_that_carries_another_turns_number_is_refused(monkeypatch):
    from repro_pp_graphs.probe.messages import Blocking  # noqa: PLC0415

    def send(self: Any, what: str, tensor: Any, turn: int, ready: Any = None) -> None:
        wrong = what == "tokens" and self.ring.last and turn == 4
        original(self, what, tensor, 5 if wrong else turn, ready)

    original = Blocking.send
    monkeypatch.setattr(Blocking, "send", send)
    with pytest.raises(RuntimeError, match=r"took the tokens of turn 5 for those of 4"):
        run_ring(Schedule(2, 2, 4), "blocking")
