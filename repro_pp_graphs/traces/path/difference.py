"""Why B's decode step is longer or shorter than A's: the difference by what steps wait for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, variance
from typing import Literal, get_args

import msgspec

from repro_pp_graphs.traces.analysis_record import PathCategory, RingPath

CATEGORIES: tuple[PathCategory, ...] = get_args(PathCategory)


class Difference(msgspec.Struct, frozen=True):
    """B less A, us a step: the mean and its 95 % interval (None: of too few)."""

    mean: float
    low: float | None
    high: float | None


class Differences(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of two cases' steps; `categories` add up to `step`.

    `over`: what the intervals are over: launches, where a case has two or more, else the steps of
    one launch each, which say nothing of how launches differ.
    """

    over: Literal["launches", "steps"]
    step: Difference
    categories: dict[PathCategory, Difference]


def differences(a: Sequence[RingPath], b: Sequence[RingPath]) -> Differences:
    """The difference between the launches of two cases, at least one of each.

    Raises ValueError where a case has none.
    """
    if not a or not b:
        raise ValueError("a case has no launch whose critical path is known: nothing to compare")
    over: Literal["launches", "steps"] = "launches" if max(len(a), len(b)) > 1 else "steps"
    categories = {
        name: _difference(*(_values(case, name) for case in (a, b))) for name in CATEGORIES
    }
    whole = _difference(*(_wholes(case) for case in (a, b)))
    if over == "steps":
        categories = {name: _over_steps(a, b, name) for name in CATEGORIES}
        errors = [_error([path.step_error for path in case]) for case in (a, b)]
        whole = _between(whole.mean, errors)
    return Differences(over=over, step=whole, categories=categories)


def _values(case: Sequence[RingPath], name: PathCategory) -> list[float]:
    return [path.categories[name].mean for path in case]


def _wholes(case: Sequence[RingPath]) -> list[float]:
    return [sum(part.mean for part in path.categories.values()) for path in case]


def _difference(a: list[float], b: list[float]) -> Difference:
    """Welch's interval for the difference of two means; where a case has one value the other's
    spread is taken for both, as nothing else shows how launches differ. Without one of one each."""
    mean = fmean(b) - fmean(a)
    if max(len(a), len(b)) < 2:
        return Difference(mean, None, None)
    if min(len(a), len(b)) < 2:
        return _by_spread(mean, a if len(a) > 1 else b)
    parts = [variance(each) / len(each) for each in (a, b)]
    error = math.sqrt(sum(parts))
    if not error:
        return Difference(mean, mean, mean)
    from scipy import special  # noqa: PLC0415 - slow to import, and a single launch needs none

    below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (a, b), strict=True))
    half = float(special.stdtrit(sum(parts) ** 2 / below, 0.975)) * error
    return Difference(mean, mean - half, mean + half)


def _by_spread(mean: float, several: list[float]) -> Difference:
    """The interval for the difference between a single value and the mean of several."""
    from scipy import special  # noqa: PLC0415 - as above

    error = math.sqrt(variance(several) * (1 + 1 / len(several)))
    half = float(special.stdtrit(len(several) - 1, 0.975)) * error
    return Difference(mean, mean - half, mean + half)


def _over_steps(a: Sequence[RingPath], b: Sequence[RingPath], name: PathCategory) -> Difference:
    mean = fmean(_values(b, name)) - fmean(_values(a, name))
    return _between(mean, [_error([p.categories[name].error for p in case]) for case in (a, b)])


def _error(errors: Sequence[float | None]) -> float | None:
    """The standard error of the mean over launches by what their steps show alone."""
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return None
    return math.sqrt(sum(error**2 for error in known)) / len(known)


def _between(mean: float, errors: Sequence[float | None]) -> Difference:
    known = [error for error in errors if error is not None]
    if len(known) < len(errors):
        return Difference(mean, None, None)
    half = 1.96 * math.sqrt(sum(error**2 for error in known))
    return Difference(mean, mean - half, mean + half)
