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
# Offsets looked at after one that holds for all, as they might tie with it.
OFFSETS_BEYOND = 4
# Two offsets whose median lags differ by less cannot be told apart.
TIE_NS = 1000
# A rival reading this much nearer to the usual delay puts a pair in doubt: a pair that is k turns
# late has one that is k - 1 turns late.
CLEARLY_BETTER = 0.8
# How many operations beside a pair must fit another reading of it.
NEIGHBOURS = 4
# Where events are missing, fewer pairs in a row are not believed.
SHORTEST_PIECE = 4
# Lags of this share of pairs alike tell the true offset; looked at in so many pairs.
ALIKE_SHARE = 0.3
SAMPLE = 512
# So many pairs in a row whose varying shapes agree are no accident.
GOOD_STRETCH = 8


@dataclass(slots=True)
class Pairing:
    """Pairs of indices (send, recv), the offset of most of them, and why there are none.

    `clock_ns`: how far the receiver's clock turned out ahead of the sender's, 0 where it need not.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    offset: int | None = None
    reason: str = ""
    clock_ns: int = 0


class Run(NamedTuple):
    """Sends first..last (exclusive) paired at one offset."""

    offset: int
    first: int
    last: int


class Usual(NamedTuple):
    """How late a recv typically ends after its send starts, ns."""

    typical: float


class Queues(NamedTuple):
    """Sends and recvs as columns; a shape of -1 agrees with any."""

    s_start: Ints
    s_over: Ints
    s_shape: Ints
    r_start: Ints
    r_end: Ints
    r_shape: Ints

    def part(self, sends: slice, recvs: slice) -> Queues:
        return Queues(
            self.s_start[sends],
            self.s_over[sends],
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
    runs, reason = _runs(queues)
    nccl = sends[0].backend == "nccl"  # gloo's operations do not end with the transfer
    clock_ns = _clock_ahead(queues, runs, slack_ns) if nccl else 0
    if clock_ns:
        ahead = queues._replace(s_start=queues.s_start + clock_ns, s_over=queues.s_over + clock_ns)
        runs, reason = _runs(ahead)
    if not runs:
        return Pairing(reason=reason)
    lengths: dict[int, int] = {}
    for run in runs:
        lengths[run.offset] = lengths.get(run.offset, 0) + run.last - run.first
    pairs = sorted((i, i + run.offset) for run in runs for i in range(run.first, run.last))
    return Pairing(pairs, max(lengths, key=lengths.__getitem__), clock_ns=clock_ns)


def _clock_ahead(queues: Queues, runs: list[Run], slack_ns: int) -> int:
    """How far the receiver's clock is ahead of the sender's (ns), where the runs must be wrong.

    A send that waits for its recv, and a recv that waits for its send, end together. So at the true
    offset the lags of many pairs are the same but for a few us, whatever the clocks show; at others
    they vary with the steps. An offset with such lags, alone with them, that only the clocks make
    look acausal says that they are apart by the lag. Nothing is concluded where events are missing.
    """
    chosen = max(runs, key=lambda run: run.last - run.first, default=None)
    ours = _alike(queues, chosen.offset, slack_ns) if chosen else (0.0, 0)
    if ours is None or ours[0] >= ALIKE_SHARE:
        return 0
    near = _offsets(queues)
    if chosen:
        near = range(chosen.offset - OFFSETS_BEHIND, chosen.offset + OFFSETS_BEHIND + 1)
    found = [each for offset in near if (each := _alike(queues, offset, slack_ns))]
    (share, lag_ns), (second, _) = sorted([(0.0, 0), (0.0, 0), *found])[:-3:-1]
    certain = share >= ALIKE_SHARE and share >= 2 * max(ours[0], second)
    return lag_ns if certain and lag_ns < -slack_ns else 0


def _alike(queues: Queues, offset: int, slack_ns: int) -> tuple[float, int] | None:
    """The share of an offset's pairs whose lags lie within twice the slack, and that lag in ns.

    None where the pairs are too few or their shapes do not all agree.
    """
    sends, recvs = queues.overlap(offset)
    count = sends.stop - sends.start
    if count < GOOD_STRETCH or not queues.same_shape(offset).all():
        return None
    few = slice(None, None, max(1, count // SAMPLE))
    lags = np.sort((queues.r_end[recvs] - queues.s_over[sends])[few])
    ends = np.searchsorted(lags, lags + 2 * slack_ns, side="right")
    within = ends - np.arange(len(lags))
    at = int(np.argmax(within))
    return float(within[at]) / len(lags), int(np.median(lags[at : ends[at]]))


def _queues(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int) -> Queues:
    codes: dict[tuple[int | None, str | None], int] = {(None, None): -1}

    def shapes(ops: Sequence[P2POp]) -> Ints:
        return np.array(
            [codes.setdefault((op.elements, op.dtype), len(codes)) for op in ops], dtype=np.int64
        )

    return Queues(
        np.array([op.start_ns for op in sends], dtype=np.int64) - slack_ns,
        np.array([op.end_ns for op in sends], dtype=np.int64),
        shapes(sends),
        np.array([op.start_ns for op in recvs], dtype=np.int64),
        np.maximum.accumulate(np.array([op.end_ns for op in recvs], dtype=np.int64)),
        shapes(recvs),
    )


def _runs(queues: Queues, usual: Usual | None = None) -> tuple[list[Run], str]:
    """All runs: the best offset's, then those of what it leaves before, between and after.

    A part of the queues (`usual` given) must be as late as the whole to be believed.
    """
    best, reason = _best_run(queues)
    if best is None:
        return [], reason
    index = np.arange(best.first, best.last)
    delay = queues.r_end[index + best.offset] - queues.s_start[index]
    rival = _rival_delay(queues, best)
    sure = ~np.isfinite(rival)
    facing, _ = queues.overlap(best.offset)
    if usual is not None or len(index) < facing.stop - facing.start:
        turn = float(np.median(np.diff(queues.s_start))) if len(queues.s_start) > 1 else 0.0
        late_by = float(np.median(delay)) - (usual.typical if usual else 0.0)
        limit = usual.typical / 2 if usual else turn
        too_few = len(index) < SHORTEST_PIECE or 2 * int(np.sum(sure)) < len(index)
        if too_few or abs(late_by) > limit:
            return [], "what fits is too short or too uncertain where events are missing"
    typical, late = np.percentile(delay[sure] if np.any(sure) else delay, (50, 95)).tolist()
    doubtful = (delay > late) & (np.abs(rival - typical) < CLEARLY_BETTER * (delay - typical))
    kept = _stretches(~doubtful, best)
    if np.any(doubtful):
        kept = [run for run in kept if run.last - run.first >= SHORTEST_PIECE]
    if not kept:
        return [], "every pair has a better rival"
    found = list(kept)
    for part_sends, part_recvs in _gaps(queues, kept):
        part = queues.part(part_sends, part_recvs)
        if min(len(part.s_start), len(part.r_end)) < SHORTEST_PIECE:
            continue
        shift = part_recvs.start - part_sends.start
        found += [
            Run(run.offset + shift, run.first + part_sends.start, run.last + part_sends.start)
            for run in _runs(part, usual or Usual(typical))[0]
        ]
    return found, ""


def _stretches(keep: Bools, run: Run) -> list[Run]:
    """The unbroken stretches of a run's pairs that are kept."""
    edges = _edges(keep).tolist()
    return [
        Run(run.offset, run.first + begin, run.first + end)
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _gaps(queues: Queues, kept: list[Run]) -> list[tuple[slice, slice]]:
    """The sends and recvs before, between and after runs that follow each other."""
    firsts = [(run.first, run.first + run.offset) for run in kept]
    lasts = [(run.last, run.last + run.offset) for run in kept]
    starts, ends = [(0, 0), *lasts], [*firsts, (len(queues.s_start), len(queues.r_end))]
    return [
        (slice(start[0], end[0]), slice(start[1], end[1]))
        for start, end in zip(starts, ends, strict=True)
    ]


def _best_run(queues: Queues) -> tuple[Run | None, str]:
    """Of the offsets that hold over the longest runs, the one with the smallest lag."""
    held: list[tuple[Run, float]] = []
    most, enough = min(len(queues.s_start), len(queues.r_end)), None
    for offset in _offsets(queues):
        if enough is not None and offset > enough + OFFSETS_BEYOND:
            break
        if found := _longest(queues, offset):
            held.append(found)
            facing, _ = queues.overlap(offset)
            length = found[0].last - found[0].first
            if enough is None and length == facing.stop - facing.start and 2 * length >= most:
                enough = offset  # later offsets only have more lag
    if not held:
        return None, "no offset at which element counts, dtypes and causality agree"
    longest = max(run.last - run.first for run, _ in held)
    near = sorted(
        ((lag, run) for run, lag in held if _long_enough(queues, run, longest)),
        key=lambda row: row[0],
    )
    if len(near) > 1 and near[1][0] - near[0][0] < TIE_NS:
        offsets = near[0][1].offset, near[1][1].offset
        return None, f"a tie: offsets {offsets[0]} and {offsets[1]} fit equally well"
    return near[0][1], ""


def _long_enough(queues: Queues, run: Run, longest: int) -> bool:
    """Half the longest run; a quarter where varying shapes agree over a good stretch."""
    length = run.last - run.first
    varied = len(np.unique(queues.s_shape[run.first : run.last])) > 1
    return 2 * length >= longest or (varied and 4 * length >= longest and length >= GOOD_STRETCH)


def _offsets(queues: Queues) -> range:
    """Offsets worth a look: around those at which each send just meets a recv that can be its."""
    reach = np.searchsorted(queues.r_end, queues.s_start) - np.arange(len(queues.s_start))
    low = int(np.percentile(reach, 5)) - OFFSETS_BEHIND
    high = int(reach.max()) + OFFSETS_AHEAD
    return range(max(low, 1 - len(queues.s_start)), min(high, len(queues.r_end) - 1) + 1)


def _longest(queues: Queues, offset: int) -> tuple[Run, float] | None:
    """The longest run of pairs that hold at the offset, and its median delay in ns."""
    delay = queues.delay(offset)
    holds = delay >= 0
    if not holds.any():
        return None
    holds &= queues.same_shape(offset)
    edges = _edges(holds)
    if not len(edges):
        return None
    at = int(np.argmax(edges[1::2] - edges[::2]))
    begin, end = int(edges[2 * at]), int(edges[2 * at + 1])
    first = max(0, -offset)
    return Run(offset, first + begin, first + end), float(np.median(delay[begin:end]))


def _edges(keep: Bools) -> Ints:
    """Where stretches of True begin and end, in turn."""
    return np.flatnonzero(np.diff(keep, prepend=False, append=False))


def _rival_delay(queues: Queues, run: Run) -> npt.NDArray[np.float64]:
    """Delay (ns) of the best other reading of each pair; -inf where there is none.

    Other readings: the recv of that shape before, if it ended after the send began; the send after,
    if it began before the recv ended. The shapes up to the next pairs on one side must fit it too,
    as a missing event moves all that follow or all before. A pair without a rival is sure.
    """
    sends = np.arange(run.first, run.last)
    recvs = sends + run.offset
    before = _neighbour(queues.r_shape, -1)[recvs]
    after = _neighbour(queues.s_shape, 1)[sends]
    ours = queues.r_end[recvs] - queues.s_start[sends]
    best = np.full(len(sends), -np.inf)
    for other_sends, other_recvs, exists in (
        (sends, before, before >= 0),
        (after, recvs, after >= 0),
    ):
        delay = queues.r_end[other_recvs] - queues.s_start[other_sends]
        fits = exists & (delay >= 0) & (delay < ours)
        for at in np.flatnonzero(fits & (delay > best)).tolist():
            if _shapes_fit_beside(queues, int(other_sends[at]), int(other_recvs[at])):
                best[at] = delay[at]
    return best


def _shapes_fit_beside(queues: Queues, send: int, recv: int) -> bool:
    """Whether the shapes of the operations just before, or just after, fit a pair."""
    for step in (-1, 1):
        ours, theirs = _beside(queues.s_shape, send, step), _beside(queues.r_shape, recv, step)
        if all(a == b or a < 0 or b < 0 for a, b in zip(ours, theirs, strict=False)):
            return True
    return False


def _beside(shapes: Ints, at: int, step: int) -> list[int]:
    """The shapes of the next few operations in one direction."""
    found = (
        shapes[at + 1 : at + 1 + NEIGHBOURS] if step > 0 else shapes[max(0, at - NEIGHBOURS) : at]
    )
    return [int(shape) for shape in found[::step]]


def _neighbour(shapes: Ints, step: int) -> Ints:
    """Index of the next (step 1) or previous (-1) operation of the same shape, -1: none."""
    found = np.full(len(shapes), -1, dtype=np.int64)
    seen: dict[int, int] = {}
    order = range(len(shapes)) if step < 0 else reversed(range(len(shapes)))
    codes = shapes.tolist()
    for at in order:
        found[at] = seen.get(codes[at], -1)
        seen[codes[at]] = at
    return found
