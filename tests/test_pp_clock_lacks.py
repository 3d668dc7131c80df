"""Calls that the clock cannot take hold of: named in the header, and the others are timed."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pp_clock_fakes import Batch, Scheduler, go, kinds, made

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.server.shims import pp_clock

__all__ = ["made"]  # a fixture


def test_what_the_release_lacks_is_in_the_header(made):
    kind, _, _ = made
    _, found = go(made, Batch(True, 1))
    assert found.header["lacks"] == {
        "own_batch": "no CUDA here: how long a batch runs is not known"
    }
    del Scheduler.process_batch_result
    try:
        scheduler = kind(made[1])
        scheduler.process_batch_result = lambda output, batch: None
        _, found = go(made, Batch(True, 1), scheduler=scheduler)
    finally:
        Scheduler.process_batch_result = lambda self, batch, result: None
    assert "not in this release" in found.header["lacks"]["process"]
    assert kinds(found)["launch"] == 1


@dataclass(kw_only=True, slots=True, frozen=True)
class Receiver:
    """As of 0.5.13 to 0.5.23."""

    asked: list[int]

    def recv_requests(self) -> list[Any]:
        self.asked.append(1)
        return []


class Closed(type):
    """A class that takes nothing new either."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise TypeError("closed")


class ClosedReceiver(metaclass=Closed):
    __slots__ = ("asked",)

    def recv_requests(self) -> list[Any]:
        return []


def with_receiver(made: Any, receiver: Any) -> tuple[Any, rows.Rows]:
    """Three turns of a scheduler that asks a request receiver for its requests, as from 0.5.13."""
    _, torch, path = made

    class Receiving(Scheduler):
        recv_requests = None

        def event_loop_pp(self) -> None:
            for batch in self.batches:
                self.request_receiver.recv_requests()
                result = self.run_batch(batch)
                self._pp_commit_send_output_work_and_preprocess_output_tensors(0, 1)
                self.process_batch_result(batch, result)
            self.request_receiver.recv_requests()
            self.request_receiver.recv_requests()

    pp_clock.patch(SimpleNamespace(Scheduler=Receiving))
    scheduler = Receiving(torch)
    scheduler.request_receiver = receiver
    scheduler.batches = [Batch(True, 2)] * 3
    scheduler.event_loop_pp()
    return scheduler, rows.read(path)


def test_the_request_receiver_takes_no_attributes_and_is_timed(made):
    asked: list[int] = []
    _, found = with_receiver(made, Receiver(asked=asked))
    assert found.header["found"]["turn"] == "SchedulerRequestReceiver.recv_requests"
    assert list(found.header["lacks"]) == ["own_batch"] and "failed" not in found.header
    assert kinds(found)["turn"] == 3 and len(asked) == 5


def test_a_hook_that_cannot_be_put_is_named_and_the_others_go_on(made):
    scheduler, found = with_receiver(made, ClosedReceiver())
    assert found.header["lacks"]["turn"].startswith("could not be put in place: ClosedReceiver")
    assert "turn" not in found.header["found"] and "failed" not in found.header
    assert kinds(found)["launch"] == 3 == len(scheduler.ran)
