"""Which recv took which send: one ordered queue of sends against one of recvs.

Messages between two ranks arrive in order, so the recv's index minus the send's is constant: the
*offset*. The files start at different steps, so it is not zero. An offset holds over a run of pairs
when each pair agrees in element count and dtype and no recv ends before its send starts; of those
that hold, the one with the smallest lag is taken, as the next one is a whole turn later. Where an
event is missing in the middle, the offset changes: the rest is paired on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.model import P2POp

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Repeating shapes make offsets one period apart look alike; longest period looked for.
OFFSETS_AHEAD = 96
OFFSETS_BEHIND = 16
# Two offsets whose median lags differ by less cannot be told apart.
TIE_NS = 1000
# A piece beside the first run must be at least so long to be believed.
SHORTEST_PIECE = 4


@dataclass(slots=True)
class Pairing:
    """Pairs of indices (send, recv), the offset of most of them, and why there are none."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    offset: int | None = None
    reason: str = ""


class Run(NamedTuple):
    """Sends first..last (exclusive) paired at one offset; lag_ns is the median."""

    offset: int
    first: int
    last: int
    lag_ns: float


class Queues(NamedTuple):
    """Sends and recvs as columns; a shape of -1 agrees with any."""

    s_start: Ints
    s_shape: Ints
    r_start: Ints
    r_end: Ints
    r_shape: Ints

    def part(self, sends: slice, recvs: slice) -> Queues:
        return Queues(
            self.s_start[sends],
            self.s_shape[sends],
            self.r_start[recvs],
            self.r_end[recvs],
            self.r_shape[recvs],
        )

    def overlap(self, offset: int) -> tuple[slice, slice]:
        """Indices of the sends and recvs that face each other at the offset."""
        first = max(0, -offset)
        last = max(first, min(len(self.s_start), len(self.r_end) - offset))
        return slice(first, last), slice(first + offset, last + offset)

    def same_shape(self, offset: int) -> Bools:
        sends, recvs = self.overlap(offset)
        ours, theirs = self.s_shape[sends], self.r_shape[recvs]
        return np.asarray((ours == theirs) | (ours < 0) | (theirs < 0))

    def delay(self, offset: int) -> Ints:
        """End of the recv minus start of the send, ns: causality demands that it is positive."""
        sends, recvs = self.overlap(offset)
        return self.r_end[recvs] - self.s_start[sends]


def pair(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int = 0) -> Pairing:
    """Pair sends with recvs, each in the order of its rank; times on one clock.

    A recv may end up to `slack_ns` before its send starts: what the clocks are not good for.
    """
    if not sends or not recvs:
        return Pairing(reason="no recvs" if sends else "no sends")
    queues = _queues(sends, recvs, slack_ns)
    run, reason = _best_run(queues)
    if run is None:
        return Pairing(reason=reason)
    runs = [run]
    _pieces(queues, run, 0, 0, runs)
    longest = max(runs, key=lambda piece: piece.last - piece.first)
    pairs = sorted((i, i + piece.offset) for piece in runs for i in range(piece.first, piece.last))
    return Pairing(pairs, longest.offset)


def _queues(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int) -> Queues:
    codes: dict[tuple[int | None, str | None], int] = {(None, None): -1}

    def shapes(ops: Sequence[P2POp]) -> Ints:
        return np.array(
            [codes.setdefault((op.elements, op.dtype), len(codes)) for op in ops], dtype=np.int64
        )

    return Queues(
        np.array([op.start_ns for op in sends], dtype=np.int64) - slack_ns,
        shapes(sends),
        np.array([op.start_ns for op in recvs], dtype=np.int64),
        np.maximum.accumulate(np.array([op.end_ns for op in recvs], dtype=np.int64)),
        shapes(recvs),
    )


def _best_run(queues: Queues) -> tuple[Run | None, str]:
    """The longest runs that hold, of those the one with the smallest lag."""
    runs = [run for offset in _offsets(queues) if (run := _longest(queues, offset))]
    if not runs:
        return None, "no offset at which element counts, dtypes and causality agree"
    longest = max(run.last - run.first for run in runs)
    held = sorted(
        (run for run in runs if 2 * (run.last - run.first) >= longest), key=lambda run: run.lag_ns
    )
    best = held[0]
    if len(held) > 1 and held[1].lag_ns - best.lag_ns < TIE_NS:
        return None, f"a tie: offsets {best.offset} and {held[1].offset} fit equally well"
    return _without_doubt(queues, best), ""


def _offsets(queues: Queues) -> range:
    """Offsets worth a look: around those at which each send just meets a recv that can be its."""
    reach = np.searchsorted(queues.r_end, queues.s_start) - np.arange(len(queues.s_start))
    low = int(np.percentile(reach, 5)) - OFFSETS_BEHIND
    high = int(reach.max()) + OFFSETS_AHEAD
    return range(max(low, 1 - len(queues.s_start)), min(high, len(queues.r_end) - 1) + 1)


def _longest(queues: Queues, offset: int) -> Run | None:
    """The longest run of pairs that hold at the offset."""
    delay = queues.delay(offset)
    holds = np.concatenate(([False], queues.same_shape(offset) & (delay >= 0), [False]))
    edges = np.flatnonzero(holds[1:] != holds[:-1])
    if not len(edges):
        return None
    starts, ends = edges[::2], edges[1::2]
    at = int(np.argmax(ends - starts))
    first = queues.overlap(offset)[0].start
    begin, end = int(starts[at]), int(ends[at])
    return Run(offset, first + begin, first + end, float(np.median(delay[begin:end])))


def _without_doubt(queues: Queues, run: Run) -> Run:
    """The run without a head or tail that an earlier recv of the same shape would fit better.

    A pair is sure where the recv before (of that shape) ended before the send began. A missing
    event leaves only unsure pairs up to the end of the run, later than nearly all sure ones.
    """
    index = np.arange(run.first, run.last)
    delay = queues.r_end[index + run.offset] - queues.s_start[index]
    earlier = _earlier_delay(queues, index, index + run.offset)
    sure = np.flatnonzero(earlier < 0)
    if not len(sure):
        return run
    usual, late = np.percentile(delay[sure], (50, 95)).tolist()
    first, last = 0, len(index)
    for piece in (slice(0, int(sure[0])), slice(int(sure[-1]) + 1, len(index))):
        if piece.stop <= piece.start:
            continue
        ours, other = float(np.median(delay[piece])), float(np.median(earlier[piece]))
        if ours > late and abs(other - usual) < (ours - usual) / 2:
            first, last = (piece.stop, last) if piece.start == 0 else (first, piece.start)
    return Run(run.offset, run.first + first, run.first + last, usual)


def _earlier_delay(queues: Queues, sends: Ints, recvs: Ints) -> npt.NDArray[np.float64]:
    """Delay (ns) if each send went with the recv of its shape before its own; -inf: none."""
    before: dict[int, int] = {}
    previous = np.full(len(queues.r_end), -1, dtype=np.int64)
    for at, shape in enumerate(queues.r_shape.tolist()):
        previous[at] = before.get(shape, -1)
        before[shape] = at
    other = previous[recvs]
    return np.where(other >= 0, queues.r_end[other] - queues.s_start[sends], -np.inf)


def _pieces(queues: Queues, run: Run, s_base: int, r_base: int, runs: list[Run]) -> None:
    """Pair what lies before and after the run in the same way, where enough of it is sure."""
    for sends, recvs in (
        (slice(0, run.first), slice(0, run.first + run.offset)),
        (slice(run.last, len(queues.s_start)), slice(run.last + run.offset, len(queues.r_end))),
    ):
        rest = queues.part(sends, recvs)
        if min(len(rest.s_start), len(rest.r_end)) < SHORTEST_PIECE:
            continue
        found, _ = _best_run(rest)
        if found is None or not _believable(rest, found, run.lag_ns):
            continue
        s_at, r_at = s_base + sends.start, r_base + recvs.start
        shift = r_at - s_at
        runs.append(Run(found.offset + shift, found.first + s_at, found.last + s_at, found.lag_ns))
        _pieces(rest, found, s_at, r_at, runs)


def _believable(queues: Queues, run: Run, usual_ns: float) -> bool:
    """Whether a piece is long enough, as late as the rest, and mostly without another reading."""
    index = np.arange(run.first, run.last)
    if len(index) < SHORTEST_PIECE:
        return False
    earlier = _earlier_delay(queues, index, index + run.offset)
    sure = float(np.mean(earlier < 0))
    turn = float(np.median(np.diff(queues.r_end))) if len(queues.r_end) > 1 else 0.0
    return sure >= 0.5 and abs(run.lag_ns - usual_ns) <= max(turn, usual_ns) / 2
