"""The order of a turn under sync_send: that of 0.5.2."""

from __future__ import annotations

from typing import Any

import pytest
from pp_ring import Scheduler, ring, turns

from repro_pp_graphs.server.shims import sync_send

__all__ = ["ring"]  # a fixture


def recorded(scheduler: Scheduler, prepare: Any) -> None:
    """Note in the scheduler's log what it sends and receives, under what `prepare` puts there."""
    group, log = scheduler.pp_group, scheduler.log
    send, receive = group.send_tensor_dict, group.recv_tensor_dict
    requests = scheduler._pp_send_pyobj_to_next_stage

    def note_send(tensor_dict: dict, *args: Any, **more: Any) -> Any:
        log.append("send hidden" if "hidden" in tensor_dict else "send tokens")
        return send(tensor_dict, *args, **more)

    def note_receive(*args: Any, **more: Any) -> Any:
        found = receive(*args, **more)
        log.append("recv hidden" if "hidden" in found else "recv tokens")
        return found

    def note_requests(data: Any, async_send: bool = False) -> Any:
        log.append("send requests")
        return requests(data, async_send=async_send)

    group.send_tensor_dict, group.recv_tensor_dict = note_send, note_receive  # type: ignore[method-assign]
    scheduler._pp_send_pyobj_to_next_stage = note_requests  # type: ignore[method-assign]
    prepare(scheduler)


@pytest.mark.parametrize("size", [2, 4])
def test_a_turn_of_sync_send_has_the_order_of_0_5_2(ring, size):
    seen: dict[int, Scheduler] = {}

    def prepare(scheduler: Scheduler) -> None:
        seen[scheduler.rank] = scheduler
        recorded(scheduler, sync_send.send_synchronously)

    ring(size, turns(size, 0, "#" * 5 * size), prepare)
    # as event_loop_pp of 0.5.2 has it: results are processed before anything is sent on
    middle = ["recv tokens", "process", "send tokens", "send requests", "send hidden"]
    wanted = {0: ["launch", *middle], size - 1: ["recv hidden", "launch", "send tokens"]}
    for rank, scheduler in seen.items():
        turn = wanted.get(rank, ["recv hidden", "launch", *middle])
        if rank == size - 1:
            turn = [*turn, "recv tokens", "process"]
        log = scheduler.log
        starts = [n for n, what in enumerate(log) if what == turn[0]]
        steady = starts[size + 1]  # all micro-batches are under way
        assert log[steady : steady + 3 * len(turn)] == turn * 3, rank
