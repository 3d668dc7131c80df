"""Whether graphs change a metric otherwise with one way to send than with another: the 2 x 2.

The interaction is a difference of log ratios, (on / off with blocking sends) / (on / off as
released) as a ratio, from one model of all launches (drift.factorial). docs/verdict.md has the
rules.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from repro_pp_graphs.stats.arms import Sample, nothing
from repro_pp_graphs.stats.compare import LEAST_LAUNCHES, Asked
from repro_pp_graphs.stats.looks import Look, look
from repro_pp_graphs.stats.verdict_record import Estimate, Interaction, Word


class Cells(NamedTuple):
    """The four cases: graphs on and off, as released and with blocking sends."""

    on: str
    off: str
    blocking_on: str
    blocking_off: str


def interaction(cells: Cells, samples: Sequence[Sample], metric: str, asked: Asked) -> Interaction:
    """The interaction of one metric over the launches that count and have it."""
    ours = [s for s in samples if s.case in cells and not s.fault and metric in s.values]
    rounds = _rounds(cells, ours, metric)
    at = look(asked.planned, asked.later, len(rounds))
    found = Interaction(
        metric=metric,
        cases=list(cells),
        word="CANNOT TELL",
        why=nothing(samples) or _lacking(cells, ours, metric),
        margin=asked.margin,
        alpha=at.alpha,
        by_round=rounds,
    )
    if found.why:
        return found
    import numpy as np  # noqa: PLC0415 - as in compare.py

    from repro_pp_graphs.stats.drift import Untestable, factorial, fit  # noqa: PLC0415
    from repro_pp_graphs.stats.intervals import estimate_of  # noqa: PLC0415

    try:
        plan = factorial(
            [s.case in (cells.on, cells.blocking_on) for s in ours],
            [s.case in (cells.blocking_on, cells.blocking_off) for s in ours],
            [s.session for s in ours],
        )
    except Untestable as error:
        found.why = str(error)
        return found
    logs = np.log([s.values[metric] for s in ours])
    # of the same model, without its drift: where a launch is missing plain means would not be
    found.ratio, found.ratio_blocking = (float(each) for each in np.exp(plan.halves @ logs))
    found.estimate = estimate_of(plan, logs, fit(plan, logs), at.alpha, "ratio")
    found.word, found.why = _word(found.estimate, found, at)
    return found


def _lacking(cells: Cells, ours: Sequence[Sample], metric: str) -> str:
    """Why there is nothing to test; empty where there is."""
    counts = {case: sum(s.case == case for s in ours) for case in cells}
    missing = [case for case, count in counts.items() if not count]
    if missing:
        return f"not measured in {' and '.join(missing)}"
    values = [s.values[metric] for s in ours]
    if not all(map(math.isfinite, values)) or min(values) <= 0:
        return "a value of 0 or less has no ratio"
    return "one launch a case: too few to test" if min(counts.values()) == 1 else ""


def _rounds(cells: Cells, ours: Sequence[Sample], metric: str) -> list[float]:
    """The interaction of each round in which all four cases were measured, as a ratio."""
    by_round: dict[int, dict[str, float]] = defaultdict(dict)
    for each in ours:
        by_round[each.round][each.case] = each.values[metric]
    found = []
    for _, values in sorted(by_round.items()):
        if len(values) == len(cells) and min(values.values()) > 0:
            on, off, blocking_on, blocking_off = (values[case] for case in cells)
            found.append((blocking_on / blocking_off) / (on / off))
    return found


def _word(estimate: Estimate, found: Interaction, at: Look) -> tuple[Word, str]:
    """The word for an interval, and why."""
    few = len(found.by_round)
    if at.withheld or few < LEAST_LAUNCHES:
        return "CANNOT TELL", at.withheld or f"{few} whole rounds: too few"
    if not estimate.low <= 1 <= estimate.high:
        if len({each > 1 for each in found.by_round}) == 1:
            return "DIFFERENT", "the interval excludes 1 and every round agrees"
        return "BORDERLINE", "the interval excludes 1, but not every round agrees"
    if 1 / (1 + found.margin) < estimate.low and estimate.high < 1 + found.margin:
        return "NO DIFFERENCE LARGER THAN", f"the interval lies within {found.margin:.0%} of 1"
    return "CANNOT TELL", "the interval contains 1, and differences that would matter as well"
