"""What a rank notes of its own calls: the truth that traces and tables are held against.

Host times are CLOCK_MONOTONIC ns. GPU times come from CUDA events, placed on the host's clock by
two anchors around the run; on a CPU they are the host's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, TypeAlias

CLOCK = time.monotonic_ns
ANCHOR_TRIES = 20  # the shortest counts: another rank's time slice can come between
# a point of a stream, or of the host's time (ns) where there is no device
Event: TypeAlias = Any  # torch.cuda.Event: who only reads a journal needs no torch
Moment: TypeAlias = Event | int | None


@dataclass(slots=True)
class Call:
    """One message's send or receive on one rank; times in ns, 0 where there is no such moment.

    `uploaded_ns`: the metadata is on the device; `met_ns`: the peer has taken part, so it has
    posted its side; `began_ns` to `posted_ns`: the tensor is handed to the backend; `finished_ns`:
    a send that was not waited for is known to be over.
    """

    op: str  # send or recv
    what: str  # tokens, hidden, requests
    peer: int
    turn: int  # the turn the message belongs to: its number
    entered_ns: int
    uploaded_ns: int = 0
    met_ns: int = 0
    began_ns: int = 0
    posted_ns: int = 0
    left_ns: int = 0
    finished_ns: int = 0
    gpu_begin_ns: int = 0
    gpu_end_ns: int = 0
    # what goes over the wire in order, by process group (cpu, device); the last one is timed
    transfers: list[str] = field(default_factory=list)
    events: tuple[Moment, Moment] | None = None


@dataclass(slots=True)
class Batch:
    """One turn's decode step: its launch on the host, its run on the device; ns."""

    turn: int
    entered_ns: int
    left_ns: int = 0
    gpu_begin_ns: int = 0
    gpu_end_ns: int = 0
    events: tuple[Moment, Moment] | None = None


@dataclass(slots=True)
class Journal:
    """A rank's calls and batches of one run, and when its host had each turn's token ids."""

    rank: int
    cuda: bool
    calls: list[Call] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    arrivals: dict[int, int] = field(default_factory=dict)
    anchors: list[tuple[Event, int]] = field(default_factory=list)

    def anchor(self) -> None:
        """Tie the device's clock to the host's; called on an idle device, before and after."""
        if not self.cuda:
            return
        import torch  # noqa: PLC0415

        tries = []
        for _ in range(ANCHOR_TRIES):
            event = torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            before = CLOCK()
            event.record()
            event.synchronize()
            after = CLOCK()
            tries.append((after - before, (event, (before + after) // 2)))
        self.anchors.append(min(tries, key=lambda each: each[0])[1])

    def moment(self) -> Moment:
        """This point of the current stream, to be placed on the clock by `settle`."""
        if not self.cuda:
            return CLOCK()
        import torch  # noqa: PLC0415

        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def settle(self) -> None:
        """Turn moments into times; the device must be idle."""
        rows: list[Call | Batch] = [*self.calls, *self.batches]
        for row in rows:
            if row.events:
                row.gpu_begin_ns, row.gpu_end_ns = (self._time(each) for each in row.events)
                row.events = None
        self.anchors.clear()

    def _time(self, moment: Moment) -> int:
        if isinstance(moment, int):
            return moment
        (first, begin_ns), (last, end_ns) = self.anchors
        span_ms = first.elapsed_time(last)
        rate = (end_ns - begin_ns) / (span_ms * 1e6) if span_ms else 1.0
        return begin_ns + round(float(first.elapsed_time(moment)) * 1e6 * rate)
