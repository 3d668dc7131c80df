"""An estimate with its interval, of the values that two cases of several launches have."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from repro_pp_graphs.stats import power
from repro_pp_graphs.stats.arms import Arms
from repro_pp_graphs.stats.drift import Design, Fit, Floats, Untestable, design, fit, outlying
from repro_pp_graphs.stats.verdict_record import Comparison, Estimate

Scale = Literal["ratio", "difference"]


def put(found: Comparison, arms: Arms, alpha: float) -> Floats:
    """Put the ratio's estimate, what could be detected and which launches are unlike the others
    into a comparison; the variances of the two cases. Raises Untestable."""
    plan = design(arms.is_a, arms.sessions)
    logs = np.log(arms.values)
    fitted = fit(plan, logs)
    found.estimate = estimate_of(plan, logs, fitted, alpha, "ratio")
    found.detectable = math.expm1(power.detectable(plan, fitted.variances[0], alpha))
    _mark_outlying(found, arms, plan, logs, alpha)
    variances: Floats = fitted.variances[0]
    return variances


def difference(arms: Arms, alpha: float) -> Estimate | None:
    """A - B in the metric's own unit; None where the order of the launches does not do."""
    try:
        plan = design(arms.is_a, arms.sessions)
    except Untestable:
        return None
    values = np.array(arms.values, dtype=float)
    return estimate_of(plan, values, fit(plan, values), alpha, "difference")


def estimate_of(plan: Design, values: Floats, fitted: Fit, alpha: float, scale: Scale) -> Estimate:
    """The first series of a fit as an estimate, exponentiated for a ratio."""
    value, half = float(fitted.value[0]), float(fitted.half_width(alpha)[0])
    ends = [value, value - half, value + half]
    if scale == "ratio":
        ends = [_exp(end) for end in ends]
    spreads = np.sqrt(fitted.variances[0])
    return Estimate(
        scale=scale,
        value=ends[0],
        low=ends[1],
        high=ends[2],
        p=float(fitted.p()[0]),
        df=float(fitted.df[0]),
        spread_a=float(spreads[0]),
        spread_b=float(spreads[1]),
        drift=float(plan.drift @ values),
        pooled=plan.pooled,
    )


def _exp(value: float) -> float:
    """exp, within what a float and JSON can hold."""
    return math.exp(min(max(value, -700.0), 700.0))


def _mark_outlying(found: Comparison, arms: Arms, plan: Design, logs: Floats, alpha: float) -> None:
    """Launches unlike the others, and the ratio without them; nothing is dropped.

    Of two launches of a case each is as far from their mean as the other: neither is named.
    """
    several = [arms.is_a.count(each) > 2 for each in arms.is_a]
    places = [at for at in outlying(plan, logs) if several[at]]
    found.outlying = [arms.labels[at] for at in places]
    rest = arms.without(places)
    if places and min(sum(rest.is_a), len(rest.is_a) - sum(rest.is_a)) >= 2:
        try:
            less = design(rest.is_a, rest.sessions)
        except Untestable:
            return
        logs = np.log(rest.values)
        found.without_outlying = estimate_of(less, logs, fit(less, logs), alpha, "ratio")
