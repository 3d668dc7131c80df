"""Two queues of P2P operations as columns, and runs of pairs at one offset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.model import P2POp

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


# How far a recv may seem to end before its send starts: GPU times of two processes are converted
# each on its own, and gloo's annotation opens only after the message has been handed over.
SLACK_NS = {"nccl": 10_000, "gloo": 50_000}


class Run(NamedTuple):
    """Sends first..last (exclusive) paired at one offset."""

    offset: int
    first: int
    last: int


class Queues(NamedTuple):
    """Sends and recvs as columns; a shape of -1 (`unknown`: there is one) agrees with any."""

    s_start: Ints
    s_over: Ints
    s_shape: Ints
    r_start: Ints
    r_end: Ints
    r_shape: Ints
    unknown: bool = True

    def part(self, sends: slice, recvs: slice) -> Queues:
        return Queues(
            self.s_start[sends],
            self.s_over[sends],
            self.s_shape[sends],
            self.r_start[recvs],
            self.r_end[recvs],
            self.r_shape[recvs],
            self.unknown,
        )

    def later_sends(self, by_ns: int) -> Queues:
        """The same with the sends' times moved: the receiver's clock is ahead by as much."""
        return self._replace(s_start=self.s_start + by_ns, s_over=self.s_over + by_ns)

    def overlap(self, offset: int) -> tuple[slice, slice]:
        """Indices of the sends and recvs that face each other at the offset."""
        first = max(0, -offset)
        last = max(first, min(len(self.s_start), len(self.r_end) - offset))
        return slice(first, last), slice(first + offset, last + offset)

    def agree(self, sends: Ints | slice, recvs: Ints | slice) -> Bools:
        """Whether the shapes of each send and recv are the same, or one is unknown."""
        ours, theirs = self.s_shape[sends], self.r_shape[recvs]
        same = ours == theirs
        return np.asarray(same | (ours < 0) | (theirs < 0)) if self.unknown else same

    def delay(self, offset: int) -> Ints:
        """End of the recv minus start of the send, ns: causality demands that it is positive."""
        sends, recvs = self.overlap(offset)
        return self.r_end[recvs] - self.s_start[sends]


def queues_of(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int) -> Queues:
    """The columns of both sides, each in its order; sends may start slack_ns early."""
    columns = [_columns(ops) for ops in (sends, recvs)]
    kinds = dict.fromkeys([*columns[0][2], *columns[1][2]])
    codes = {kind: code for code, kind in enumerate(kinds)} | {(None, None): -1}
    (s_start, s_over, s_shape), (r_start, r_end, r_shape) = (
        (start, end, np.array([codes[shape] for shape in shapes], dtype=np.int64))
        for start, end, shapes in columns
    )
    r_end = np.maximum.accumulate(r_end)
    unknown = (None, None) in kinds
    return Queues(s_start - slack_ns, s_over, s_shape, r_start, r_end, r_shape, unknown)


def _columns(ops: Sequence[P2POp]) -> tuple[Ints, Ints, list[tuple[int | None, str | None]]]:
    start = np.array([op.start_ns for op in ops], dtype=np.int64)
    end = np.array([op.end_ns for op in ops], dtype=np.int64)
    return start, end, [(op.elements, op.dtype) for op in ops]


def stretches(keep: Bools, run: Run) -> list[Run]:
    """The unbroken stretches of a run's pairs that are kept."""
    bounds = edges(keep).tolist()
    return [
        Run(run.offset, run.first + begin, run.first + end)
        for begin, end in zip(bounds[::2], bounds[1::2], strict=True)
    ]


def gaps(queues: Queues, kept: list[Run]) -> list[tuple[slice, slice]]:
    """The sends and recvs before, between and after runs that follow each other."""
    firsts = [(run.first, run.first + run.offset) for run in kept]
    lasts = [(run.last, run.last + run.offset) for run in kept]
    starts, ends = [(0, 0), *lasts], [*firsts, (len(queues.s_start), len(queues.r_end))]
    return [
        (slice(start[0], end[0]), slice(start[1], end[1]))
        for start, end in zip(starts, ends, strict=True)
    ]


def edges(keep: Bools) -> Ints:
    """Where stretches of True begin and end, in turn."""
    padded = np.zeros(len(keep) + 2, dtype=np.bool_)
    padded[1:-1] = keep
    return np.flatnonzero(padded[1:] != padded[:-1])
