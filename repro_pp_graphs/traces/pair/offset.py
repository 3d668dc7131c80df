"""The offset of two queues: recv index less send index, constant as messages arrive in order.

The files start at different steps, so it is not zero. An offset holds over a run of pairs when each
pair agrees in element count and dtype and no recv ends before its send starts; of those that hold
over long runs the one with the smallest delay is taken, as the next one is a whole turn later.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.pair.queues import Queues, Run, borders
from repro_pp_graphs.traces.quantiles import median, quantile

# Repeating shapes make offsets one period apart look alike; longest period looked for.
OFFSETS_AHEAD = 96
OFFSETS_BEHIND = 4
# Offsets looked at after one that holds for all, as they might tie with it.
OFFSETS_BEYOND = 4
# Two offsets whose median delays differ by less are taken for equal.
TIE_NS = 1000
# So many pairs in a row whose varying shapes agree are no accident.
GOOD_STRETCH = 5


class Best(NamedTuple):
    """The run at the best offset; None with the reason where there is none."""

    run: Run | None
    reason: str = ""


def best_run(queues: Queues) -> Best:
    """Of the offsets that hold over the longest runs that with the smallest delay."""
    held: list[Run] = []
    most, enough = min(len(queues.send_earliest_ns), len(queues.received_ns)), None
    for offset in offsets(queues):
        if enough is not None and offset > enough + OFFSETS_BEYOND:
            break
        if found := _longest(queues, offset):
            held.append(found)
            facing, _ = queues.facing(offset)
            whole = found.length == facing.stop - facing.start
            if enough is None and whole and 2 * found.length >= most:
                enough = offset  # later offsets only have more delay
    if not held:
        return Best(
            None,
            "at no offset do element counts and dtypes agree and recvs end after their sends begin",
        )
    longest = max(run.length for run in held)
    best, *others = [run for run in held if _long_enough(queues, run, longest)]
    for other in others:
        begin, end = max(best.first, other.first), min(best.last, other.last)
        if begin < end:
            later_ns = _median_delay(queues, other.offset, begin, end)
            if later_ns - _median_delay(queues, best.offset, begin, end) < TIE_NS:
                return Best(
                    None, f"a tie: offsets {best.offset} and {other.offset} fit equally well"
                )
    return Best(best)


def offsets(queues: Queues) -> range:
    """Offsets worth a look: around those at which each send just meets a recv that can be its."""
    starts = queues.send_earliest_ns
    reach = np.searchsorted(queues.received_ns, starts) - np.arange(len(starts))
    low = int(quantile(reach, 0.05)) - OFFSETS_BEHIND
    high = int(reach.max()) + OFFSETS_AHEAD
    return range(max(low, 1 - len(starts)), min(high, len(queues.received_ns) - 1) + 1)


def spacing_ns(queues: Queues) -> float:
    """The usual time from a send to the next one, ns."""
    starts = queues.send_earliest_ns
    return median(np.diff(starts)) if len(starts) > 1 else 0.0


def run_delay_ns(queues: Queues, run: Run) -> float:
    """The median time from a send's start to its recv's end in a run, ns."""
    return _median_delay(queues, run.offset, run.first, run.last)


def _median_delay(queues: Queues, offset: int, first: int, last: int) -> float:
    sends = slice(first, last)
    return median(queues.delay(sends, slice(first + offset, last + offset)))


def _long_enough(queues: Queues, run: Run, longest: int) -> bool:
    """Half the longest run; a quarter where varying shapes agree over a good stretch."""
    if 2 * run.length >= longest or 4 * run.length < longest or run.length < GOOD_STRETCH:
        return 2 * run.length >= longest
    shapes = queues.send_shape[run.first : run.last]
    return bool((shapes != shapes[0]).any())


def _longest(queues: Queues, offset: int) -> Run | None:
    """The longest run of pairs that hold at the offset."""
    sends, recvs = queues.facing(offset)
    holds = queues.delay(sends, recvs) >= 0
    if not holds.any():
        return None
    holds &= queues.agree(sends, recvs)
    found = borders(holds)
    if not len(found):
        return None
    at = int((found[1::2] - found[::2]).argmax())
    begin, end = int(found[2 * at]), int(found[2 * at + 1])
    return Run(offset, sends.start + begin, sends.start + end)
