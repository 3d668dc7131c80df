"""Which recv took which send: one ordered queue of sends against one of recvs.

Messages between two ranks arrive in order, so the recv's index minus the send's is constant: the
*offset*. The files start at different steps, so it is not zero. An offset holds over a run of pairs
when each pair agrees in element count and dtype and no recv ends before its send starts; of those
that hold, the one with the smallest lag is taken, as the next one is a whole turn later. Where an
event is missing in the middle, the offset changes: the rest is paired on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.model import P2POp
from repro_pp_graphs.traces.pair.edge import Pairing
from repro_pp_graphs.traces.pair.queues import Bools, Queues, Run, edges, gaps, queues_of, stretches
from repro_pp_graphs.traces.pair.rivals import rival_delay
from repro_pp_graphs.traces.quantiles import median, quantile

# Repeating shapes make offsets one period apart look alike; longest period looked for.
OFFSETS_AHEAD = 96
OFFSETS_BEHIND = 4
# Offsets looked at after one that holds for all, as they might tie with it.
OFFSETS_BEYOND = 4
# Two offsets whose median lags differ by less cannot be told apart.
TIE_NS = 1000
# A rival reading this much nearer to the usual delay puts a pair in doubt: a pair that is k turns
# late has one that is k - 1 turns late.
CLEARLY_BETTER = 0.8
# Where events are missing, fewer pairs in a row are not believed.
SHORTEST_PIECE = 4
# So many pairs in a row whose varying shapes agree are no accident.
GOOD_STRETCH = 5


class Usual(NamedTuple):
    """How late a recv typically ends after its send starts, ns."""

    typical: float


def pair(sends: Sequence[P2POp], recvs: Sequence[P2POp], slack_ns: int = 0) -> Pairing:
    """Pair sends with recvs, each in the order of its rank, on one clock.

    A recv may end up to `slack_ns` before its send starts: what the recorded times are good for.
    """
    if not sends or not recvs:
        return Pairing(reason="no recvs" if sends else "no sends")
    return pair_queues(queues_of(sends, recvs, slack_ns))


def pair_queues(queues: Queues, ahead_ns: int = 0) -> Pairing:
    """Pair queues that hold an operation each; the receiver's clock is `ahead_ns` ahead."""
    runs, reason = _runs(queues.later_sends(ahead_ns) if ahead_ns else queues)
    if not runs:
        return Pairing(reason=reason)
    lengths: dict[int, int] = {}
    for run in runs:
        lengths[run.offset] = lengths.get(run.offset, 0) + run.last - run.first
    pairs = sorted((i, i + run.offset) for run in runs for i in range(run.first, run.last))
    offset = max(lengths, key=lengths.__getitem__)
    longest = max(
        (run for run in runs if run.offset == offset), key=lambda run: run.last - run.first
    )
    return Pairing(pairs, offset, run=longest, clock_ns=ahead_ns)


def interval(queues: Queues) -> float:
    """The usual time from a send to the next one, ns."""
    return median(np.diff(queues.s_start)) if len(queues.s_start) > 1 else 0.0


def _runs(queues: Queues, usual: Usual | None = None) -> tuple[list[Run], str]:
    """All runs: the best offset's, then those of what it leaves before, between and after.

    A part of the queues (`usual` given) must be as late as the whole to be believed.
    """
    best, reason = best_run(queues)
    if best is None:
        return [], reason
    index = np.arange(best.first, best.last)
    delay = queues.r_end[index + best.offset] - queues.s_start[index]
    rival = rival_delay(queues, best)
    sure = ~np.isfinite(rival)
    facing, _ = queues.overlap(best.offset)
    missing = usual is not None or len(index) < facing.stop - facing.start
    if missing:
        late_by = median(delay) - (usual.typical if usual else 0.0)
        limit = usual.typical / 2 if usual else interval(queues)
        too_few = len(index) < SHORTEST_PIECE or 2 * int(np.sum(sure)) < len(index)
        if too_few or abs(late_by) > limit:
            return [], "what fits is too short or too uncertain where events are missing"
    those = delay[sure] if np.any(sure) else delay
    typical, late = median(those), quantile(those, 0.95)
    doubtful = (delay > late) & (np.abs(rival - typical) < CLEARLY_BETTER * (delay - typical))
    if missing or np.any(doubtful):
        # beside a missing event only a pair without a rival is sure
        doubtful |= ~_between_sure(sure, stretches(~doubtful, Run(0, 0, len(index))))
    kept = stretches(~doubtful, best)
    if np.any(doubtful):
        kept = [run for run in kept if run.last - run.first >= SHORTEST_PIECE]
    if not kept:
        return [], "every pair has a better rival"
    found = list(kept)
    for part_sends, part_recvs in gaps(queues, kept):
        part = queues.part(part_sends, part_recvs)
        if min(len(part.s_start), len(part.r_end)) < SHORTEST_PIECE:
            continue
        shift = part_recvs.start - part_sends.start
        found += [
            Run(run.offset + shift, run.first + part_sends.start, run.last + part_sends.start)
            for run in _runs(part, usual or Usual(typical))[0]
        ]
    return found if usual else _prompt(queues, found), ""


def _between_sure(sure: Bools, kept: list[Run]) -> Bools:
    """Which pairs of each stretch lie from its first to its last sure one."""
    inside = np.zeros_like(sure)
    for run in kept:
        at = np.flatnonzero(sure[run.first : run.last])
        if len(at):
            inside[run.first + at[0] : run.first + at[-1] + 1] = True
    return inside


def _prompt(queues: Queues, runs: list[Run]) -> list[Run]:
    """The runs that are not a message later than the promptest of the long ones."""
    longest = max(run.last - run.first for run in runs)
    delays = [_median_delay(queues, run, run.first, run.last) for run in runs]
    usual = min(
        delay
        for delay, run in zip(delays, runs, strict=True)
        if 4 * (run.last - run.first) >= longest
    )
    limit = usual + interval(queues)
    return [run for run, delay in zip(runs, delays, strict=True) if delay <= limit]


def best_run(queues: Queues) -> tuple[Run | None, str]:
    """Of the offsets that hold over the longest runs that with the smallest lag, or why none."""
    held: list[Run] = []
    most, enough = min(len(queues.s_start), len(queues.r_end)), None
    for offset in offsets(queues):
        if enough is not None and offset > enough + OFFSETS_BEYOND:
            break
        if found := _longest(queues, offset):
            held.append(found)
            facing, _ = queues.overlap(offset)
            length = found.last - found.first
            if enough is None and length == facing.stop - facing.start and 2 * length >= most:
                enough = offset  # later offsets only have more lag
    if not held:
        return None, "no offset at which element counts, dtypes and causality agree"
    longest = max(run.last - run.first for run in held)
    near = [run for run in held if _long_enough(queues, run, longest)]
    best = near[0]
    for other in near[1:]:
        begin, end = max(best.first, other.first), min(best.last, other.last)
        if (
            begin < end
            and _median_delay(queues, other, begin, end) - _median_delay(queues, best, begin, end)
            < TIE_NS
        ):
            return None, f"a tie: offsets {best.offset} and {other.offset} fit equally well"
    return best, ""


def _median_delay(queues: Queues, run: Run, begin: int, end: int) -> float:
    sends = np.arange(begin, end)
    return median(queues.r_end[sends + run.offset] - queues.s_start[sends])


def _long_enough(queues: Queues, run: Run, longest: int) -> bool:
    """Half the longest run; a quarter where varying shapes agree over a good stretch."""
    length = run.last - run.first
    shapes = queues.s_shape[run.first : run.last]
    varied = bool(np.any(shapes != shapes[0]))
    return 2 * length >= longest or (varied and 4 * length >= longest and length >= GOOD_STRETCH)


def offsets(queues: Queues) -> range:
    """Offsets worth a look: around those at which each send just meets a recv that can be its."""
    reach = np.searchsorted(queues.r_end, queues.s_start) - np.arange(len(queues.s_start))
    low = int(quantile(reach, 0.05)) - OFFSETS_BEHIND
    high = int(reach.max()) + OFFSETS_AHEAD
    return range(max(low, 1 - len(queues.s_start)), min(high, len(queues.r_end) - 1) + 1)


def _longest(queues: Queues, offset: int) -> Run | None:
    """The longest run of pairs that hold at the offset."""
    holds = queues.delay(offset) >= 0
    if not holds.any():
        return None
    holds &= queues.agree(*queues.overlap(offset))
    bounds = edges(holds)
    if not len(bounds):
        return None
    at = int(np.argmax(bounds[1::2] - bounds[::2]))
    begin, end = int(bounds[2 * at]), int(bounds[2 * at + 1])
    first = max(0, -offset)
    return Run(offset, first + begin, first + end)
