"""What the clock costs: decode turns with it on against those off, inside one server.

It is on for N turns, off for 2 N, on for N (REPRO_PP_CLOCK_ALTERNATE=N). Such a group of four
windows gives one value, on over off. What grows evenly through it, as a turn does with the context,
cancels. What wanders, as a GPU's frequency does under power capping, does so little within a short
group: of turns that vary as those of two H100s did, windows of 8 give an interval half as wide as
windows of 25. A host that stalls for some turns' time (once in 150 turns on those) makes its group
an outlier to either side: the ratio is a trimmed mean over the groups, without the lowest and the
highest fifth, with the interval of Tukey and McLaughlin (1963; scipy's trimmed_mean_ci). Since that
would leave out too what the clock itself made rare and long, slow turns are counted on and off.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from statistics import fmean, median
from typing import NamedTuple

from repro_pp_graphs.pp_clock.clock_record import OnOff
from repro_pp_graphs.pp_clock.rows import ON_OF_FOUR

LIMIT = 0.005  # of a turn, that the clock may take
FEWEST_GROUPS = 10  # for an interval; fewer say nothing
TRIMMED = (0.2, 0.2)  # of the groups, at either end
SLOW = 1.5  # times the median turn


class Turn(NamedTuple):
    """A decode turn beside which no other batch than decode batches was in flight."""

    number: int
    took_ns: int
    off: bool


def compared(turns: Iterable[Turn], size: int, loop_size: int) -> OnOff | None:
    """Windows of `size` turns with the clock on against those off, of one rank's steady turns; None
    for fewer than ten groups of four.

    A rank's turn begins up to loop_size - 1 turns after that of the same number on the rank before:
    these first and last turns of a window, in which some ranks' clocks are on and others' off, are
    left out. None too where that leaves nothing of a window.
    """
    edge = loop_size - 1
    inside = [turn for turn in turns if edge <= turn.number % size < size - edge]
    groups: dict[int, dict[int, list[Turn]]] = defaultdict(lambda: defaultdict(list))
    for turn in inside:
        window = turn.number // size
        groups[window // 4][window % 4].append(turn)
    pairs = [
        found
        for each in groups.values()
        if (found := _on_and_off(each, size - 2 * edge)) is not None
    ]
    if len(pairs) < FEWEST_GROUPS:
        return None
    from scipy.stats import mstats  # noqa: PLC0415 - half a second that no other run needs here

    logs = [math.log(on / off) for on, off in pairs]
    middle = float(mstats.trimmed_mean(logs, TRIMMED))
    low, high = (math.exp(each) for each in mstats.trimmed_mean_ci(logs, TRIMMED))
    limit_ns = SLOW * median(turn.took_ns for turn in inside)
    slow = [turn.off for turn in inside if turn.took_ns > limit_ns]
    return OnOff(
        turns_a_window=size,
        groups=len(pairs),
        on_ms=round(fmean(on for on, _ in pairs) / 1e6, 5),
        off_ms=round(fmean(off for _, off in pairs) / 1e6, 5),
        ratio=round(math.exp(middle), 5),
        low=round(low, 5),
        high=round(high, 5),
        slow_on=slow.count(False),
        slow_off=slow.count(True),
        verdict="kept" if high <= 1 + LIMIT else "broken" if low > 1 + LIMIT else "unknown",
    )


def _on_and_off(windows: dict[int, list[Turn]], turns: int) -> tuple[float, float] | None:
    """Geometric means over two windows each of their mean turns (ns); None where a turn of one is
    missing, or the clock was not on and off as it should have been."""
    if len(windows) < 4 or any(len(each) != turns for each in windows.values()):
        return None
    if any(turn.off == (at in ON_OF_FOUR) for at, each in windows.items() for turn in each):
        return None
    mean = {at: fmean(turn.took_ns for turn in each) for at, each in windows.items()}
    return math.sqrt(mean[0] * mean[3]), math.sqrt(mean[1] * mean[2])


def line(found: OnOff) -> str:
    """The comparison as a sentence with its verdict; wider than a line."""
    limit = f"the limit of {LIMIT:.1%}"
    verdict = {
        "kept": f"{limit} is kept",
        "broken": f"{limit} is BROKEN",
        "unknown": f"cannot tell whether {limit} is kept: more turns tell (--max-new-tokens)",
    }[found.verdict]
    return (
        f"Clock on / off: {found.ratio:.4f} ({found.low:.4f} to {found.high:.4f}), "
        f"{found.groups} groups of windows of {found.turns_a_window} turns: {verdict}. "
        f"Turns longer than {SLOW} times the median: {found.slow_on} on, {found.slow_off} off."
    )
