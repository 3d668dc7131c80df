"""Two cases compared over their launches: a word for each metric, by rules fixed before the run.

docs/verdict.md has the rules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

from repro_pp_graphs.stats import p_values
from repro_pp_graphs.stats.arms import Arms, Sample, arms_of, nothing
from repro_pp_graphs.stats.looks import Look, look
from repro_pp_graphs.stats.metric_names import CONTROL, MARGIN
from repro_pp_graphs.stats.verdict_record import (
    Better,
    Comparison,
    Estimate,
    LeftOut,
    Pair,
    Role,
    Word,
)

LEAST_LAUNCHES = 3  # a case: with two the interval is shown and nothing concluded


class Metric(NamedTuple):
    """What is compared: its name among a launch's values, its part, the better direction."""

    name: str
    role: Role
    better: Better = "lower"


class Asked(NamedTuple):
    """What was fixed before the run: looks, as in looks.look, and the margin."""

    planned: Sequence[int]
    later: Sequence[int] = ()
    margin: float = MARGIN


class Rules(NamedTuple):
    """At which level to test, what counts as no difference, and why not to test at all."""

    alpha: float
    margin: float = MARGIN
    withheld: str = ""


def pair(
    a: str, b: str, samples: Sequence[Sample], metrics: Sequence[Metric], asked: Asked
) -> Pair:
    """Case `a` against case `b` in every metric; the first metric is the primary."""
    ours = [sample for sample in samples if sample.case in (a, b)]
    empty = nothing(samples)  # of nothing no launch is left out
    left_out = [] if empty else [LeftOut(label=s.label, why=s.fault) for s in ours if s.fault]
    counted = [sample for sample in ours if not sample.fault]
    at = look(asked.planned, asked.later, whole_rounds(a, b, counted))
    rules = Rules(at.alpha, asked.margin, at.withheld)
    found = [compare(a, b, counted, metric, rules) for metric in metrics]
    for each in found:
        each.why = empty or _uncounted(a, b, each, ours) or each.why
    measured = [each for each in found if each.values_a or each.values_b or each.role == "primary"]
    secondary = [each for each in measured if each.role == "secondary"]
    correct(secondary, rules.alpha, "metrics")
    return Pair(
        a=a,
        b=b,
        alpha=at.alpha,
        alpha_why=at.why,
        comparisons=measured,
        withheld=at.withheld,
        left_out=left_out,
        unproven=_moved(measured),
        notes=_notes(counted, at, tested=any(each.estimate for each in measured)),
    )


def _uncounted(a: str, b: str, found: Comparison, samples: Sequence[Sample]) -> str:
    """Why there is nothing to test where a case has the metric only in launches that do not count;
    empty where that is not so."""
    missing = [case for case, its in ((a, found.values_a), (b, found.values_b)) if not its]
    having = {sample.case for sample in samples if found.metric in sample.values}
    if not having.intersection(missing):
        return ""
    left_out = " and ".join(case for case in missing if case in having)
    never = " and ".join(case for case in missing if case not in having)
    return f"no launch of {left_out} counts" + (f", not measured in {never}" if never else "")


def whole_rounds(a: str, b: str, counted: Sequence[Sample]) -> int:
    """Rounds in which both cases were measured."""
    rounds = [{each.round for each in counted if each.case == case} for case in (a, b)]
    return len(rounds[0] & rounds[1])


def compare(a: str, b: str, samples: Sequence[Sample], metric: Metric, rules: Rules) -> Comparison:
    """One metric of two cases. Every sample counts that has it."""
    arms = arms_of(a, samples, metric.name)
    first, second = arms.of(True), arms.of(False)
    found = Comparison(
        metric=metric.name,
        role=metric.role,
        better=metric.better,
        word="CANNOT TELL",
        why="",
        margin=rules.margin,
        values_a=first,
        values_b=second,
        mean_a=fmean(first.values()) if first else None,
        mean_b=fmean(second.values()) if second else None,
    )
    found.why = _lacking(a, b, arms)
    if found.why:
        return found
    # one launch a case asks for no interval, and needs no numpy
    from repro_pp_graphs.stats import drift, intervals, power  # noqa: PLC0415

    try:
        variances = intervals.put(found, arms, rules.alpha)
    except drift.Untestable as error:
        found.why = str(error)
        return found
    found.exact_p = p_values.exact_p(list(first.values()), list(second.values()))
    found.ranks_separate = p_values.separate(list(first.values()), list(second.values()))
    found.word, found.why = _word(found, rules)
    if found.word == "CANNOT TELL":
        margin = math.log1p(rules.margin)
        found.rounds_needed = power.rounds_needed(variances, rules.alpha, margin)
    if found.word in ("DIFFERENT", "BORDERLINE") and found.estimate:
        lower = found.estimate.value < 1
        found.favours = a if lower == (metric.better == "lower") else b
    return found


def difference(a: str, samples: Sequence[Sample], name: str, alpha: float) -> Estimate | None:
    """A - B of a value that may be 0, in its own unit; None where launches or order do not do."""
    arms = arms_of(a, samples, name)
    if min(sum(arms.is_a), len(arms.is_a) - sum(arms.is_a)) < 2:
        return None
    from repro_pp_graphs.stats import intervals  # noqa: PLC0415 - as above

    return intervals.difference(arms, alpha)


def spread(counts: Iterable[int]) -> str:
    """How many launches cases have, of those that have any: `3`, or `2 to 3` where not all alike;
    `0` of none."""
    known = [count for count in counts if count] or [0]
    low, high = min(known), max(known)
    return str(high) if low == high else f"{low} to {high}"


def _lacking(a: str, b: str, arms: Arms) -> str:
    """Why there is nothing to test; empty where there is."""
    counts = {a: sum(arms.is_a), b: len(arms.is_a) - sum(arms.is_a)}
    missing = [case for case, count in counts.items() if not count]
    if missing:
        return f"not measured in {' and '.join(missing)}"
    if min(counts.values()) == 1:
        few = [case for case, count in counts.items() if count == 1]
        which = "a case" if len(few) == 2 else f"of {few[0]}"
        return f"one launch {which}: too few to test"
    if not all(map(math.isfinite, arms.values)) or min(arms.values) <= 0:
        return "a value of 0 or less has no ratio"
    return ""


def _word(found: Comparison, rules: Rules) -> tuple[Word, str]:
    """The word for an interval, and why. `found` has its estimate."""
    estimate, counts = found.estimate, (len(found.values_a), len(found.values_b))
    if rules.withheld or min(counts) < LEAST_LAUNCHES or estimate is None:
        return "CANNOT TELL", rules.withheld or f"{spread(counts)} launches a case: too few"
    if not estimate.low <= 1 <= estimate.high:
        return _unequal(found, rules)
    if 1 / (1 + rules.margin) < estimate.low and estimate.high < 1 + rules.margin:
        return "NO DIFFERENCE LARGER THAN", f"the interval lies within {rules.margin:.0%} of 1"
    return "CANNOT TELL", "the interval contains 1, and differences that would matter as well"


def _unequal(found: Comparison, rules: Rules) -> tuple[Word, str]:
    """The word where the interval excludes 1: the order of the launches must agree."""
    if found.ranks_separate:
        return "DIFFERENT", "the interval excludes 1 and no launches of the two overlap"
    if found.exact_p is not None and found.exact_p <= rules.alpha:
        return "DIFFERENT", "the interval excludes 1 and the exact U test agrees"
    return "BORDERLINE", "the interval excludes 1, but launches overlap: add a block of two rounds"


def correct(found: Sequence[Comparison], alpha: float, what: str) -> None:
    """Holm's correction over several tests of a kind: what it takes back is at most BORDERLINE.
    `what` they are of: metrics, pairs of cases, loads."""
    tested = [each for each in found if each.estimate]
    corrected = p_values.holm([each.estimate.p for each in tested if each.estimate])
    for each, p in zip(tested, corrected, strict=True):
        each.p_holm = p
        if each.word == "DIFFERENT" and p > alpha:
            each.word = "BORDERLINE"
            each.why = f"not after Holm's correction over {len(tested)} {what}"


def _moved(found: Sequence[Comparison]) -> str:
    """The control that moved: what graphs cannot change differs; empty where none did."""
    for each in found:
        if each.role == "control" and each.word in ("DIFFERENT", "BORDERLINE") and each.estimate:
            name = "TTFT of one prompt alone" if each.metric == CONTROL else each.metric
            return (
                f"{name}, which no case changes, differs (ratio {each.estimate.value:.3f}): "
                "something else changed too"
            )
    return ""


def _notes(counted: Sequence[Sample], at: Look, tested: bool) -> list[str]:
    sessions = sorted({sample.session for sample in counted})
    found = [at.why]
    if len(sessions) > 1 and tested:
        found.append(
            f"the launches are of {len(sessions)} sessions (--resume), whose levels may differ: "
            "cases are compared within each session"
        )
    return found
