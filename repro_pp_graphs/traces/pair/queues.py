"""The sends and recvs of one channel as columns, and runs of pairs at one offset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.rank_trace import P2POp

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


# How far a recv may seem to end before its send starts: GPU times of two processes are converted
# each on its own, and gloo's annotation opens only after the message has been handed over.
SLACK_NS = {"nccl": 10_000, "gloo": 50_000}


class Run(NamedTuple):
    """Sends first..last (exclusive) paired at one offset: send i with recv i + offset."""

    offset: int
    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first


class Queues(NamedTuple):
    """Sends and recvs as columns, each in its rank's order.

    A shape is a number for an element count and dtype; -1, where the trace does not say, agrees
    with any (`some_unknown`: there is one).
    """

    send_earliest_ns: Ints  # start of the send, less the slack of its backend
    send_end_ns: Ints
    send_shape: Ints
    received_ns: Ints  # the latest end of this recv and all before it
    recv_shape: Ints
    some_unknown: bool = True

    def part(self, sends: slice, recvs: slice) -> Queues:
        return Queues(
            self.send_earliest_ns[sends],
            self.send_end_ns[sends],
            self.send_shape[sends],
            self.received_ns[recvs],
            self.recv_shape[recvs],
            self.some_unknown,
        )

    def with_clock_ahead(self, by_ns: int) -> Queues:
        """The same on one clock, the receiver's being ahead of the sender's by as much."""
        return self._replace(
            send_earliest_ns=self.send_earliest_ns + by_ns, send_end_ns=self.send_end_ns + by_ns
        )

    def facing(self, offset: int) -> tuple[slice, slice]:
        """Indices of the sends and recvs that face each other at the offset."""
        first = max(0, -offset)
        last = max(first, min(len(self.send_earliest_ns), len(self.received_ns) - offset))
        return slice(first, last), slice(first + offset, last + offset)

    def agree(self, sends: Ints | slice, recvs: Ints | slice) -> Bools:
        """Whether the shapes of each send and recv are the same, or one is unknown."""
        ours, theirs = self.send_shape[sends], self.recv_shape[recvs]
        same = ours == theirs
        return np.asarray(same | (ours < 0) | (theirs < 0)) if self.some_unknown else same

    def delay(self, sends: Ints | slice, recvs: Ints | slice) -> Ints:
        """End of each recv minus start of its send (less the slack), ns: it cannot be negative."""
        return self.received_ns[recvs] - self.send_earliest_ns[sends]


def queues_of(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int) -> Queues:
    """The columns of both sides, each in its order."""
    kinds = dict.fromkeys((op.elements, op.dtype) for op in (*sends, *recvs))
    codes = {kind: code for code, kind in enumerate(kinds)} | {(None, None): -1}
    return Queues(
        _column(op.start_ns - slack_ns for op in sends),
        _column(op.end_ns for op in sends),
        _column(codes[op.elements, op.dtype] for op in sends),
        np.maximum.accumulate(_column(op.end_ns for op in recvs)),
        _column(codes[op.elements, op.dtype] for op in recvs),
        (None, None) in kinds,
    )


def _column(values: Iterable[int]) -> Ints:
    return np.array(list(values), dtype=np.int64)


def stretches(keep: Bools, run: Run) -> list[Run]:
    """The unbroken stretches of a run's pairs that are kept."""
    found = borders(keep).tolist()
    return [
        Run(run.offset, run.first + begin, run.first + end)
        for begin, end in zip(found[::2], found[1::2], strict=True)
    ]


def gaps(queues: Queues, kept: list[Run]) -> list[tuple[slice, slice]]:
    """The sends and recvs before, between and after runs that follow each other."""
    firsts = [(run.first, run.first + run.offset) for run in kept]
    lasts = [(run.last, run.last + run.offset) for run in kept]
    ends = [*firsts, (len(queues.send_earliest_ns), len(queues.received_ns))]
    return [
        (slice(start[0], end[0]), slice(start[1], end[1]))
        for start, end in zip([(0, 0), *lasts], ends, strict=True)
    ]


def borders(keep: Bools) -> Ints:
    """Where stretches of True begin and end, in turn."""
    padded = np.zeros(len(keep) + 2, dtype=np.bool_)
    padded[1:-1] = keep
    found: Ints = (padded[1:] != padded[:-1]).nonzero()[0]
    return found
