"""Welch's comparison of arms with the launch index as covariate ("Welch with drift").

value ~ arm + launch index (+ session): least squares, the residual variance of each arm for itself
(unbiased), Satterthwaite's degrees of freedom, Student's t. docs/verdict.md has the derivation and
what a simulation says of it. All functions take many series of one order at once: a row each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.stats.looks import MORE

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# of an arm's variance in the order of launches, what a steady drift may explain: AABB has 0.8
MOST_CONFOUNDED = 0.5
_NOTHING = 1e-9
_OUTLYING = 0.05  # the level at which a launch is said to lie off the others
ENOUGH_ROUNDS = 4  # which a run that has too few launches is told to go on to


class Untestable(ValueError):
    """These launches cannot be compared by any test; the message says why."""


@dataclass(frozen=True, eq=False)
class Design:
    """What an order of launches makes of the values: the contrast is `weights` @ values, A - B of
    two arms, (A - B) - (C - D) of the four of a 2 x 2.

    Shapes: N launches, K arms. `arms` (N x K) says which arm a launch is of; `residual` @ values
    are the residuals (N x N, a projection); `df` their degrees of freedom. `halves` @ values of a
    2 x 2 are its two differences C - D and A - B, whose difference the contrast is; of two arms
    there are none (0 x N).
    """

    arms: Bools
    weights: Floats
    halves: Floats
    drift: Floats
    residual: Floats
    df: int

    @property
    def is_a(self) -> Bools:
        """Which launches are of the first arm."""
        found: Bools = self.arms[:, 0]
        return found

    @cached_property
    def shares(self) -> Floats:
        """Variance of the contrast for a variance of 1 in each arm (K)."""
        found: Floats = self.weights**2 @ self.arms
        return found

    @cached_property
    def mixing(self) -> Floats:
        """Expected sums of squared residuals of each arm (rows), by variance of each (K x K)."""
        found: Floats = self.arms.T @ self.residual**2 @ self.arms
        return found

    @cached_property
    def spread(self) -> Floats:
        """Of the quadratic form that estimates the variance of the contrast: half its own variance
        is this (K x K), weighted by the products of the arms' variances.
        """
        of_variance = np.linalg.solve(self.mixing.T, self.shares)
        form = (self.residual * (self.arms @ of_variance)) @ self.residual
        found: Floats = self.arms.T @ form**2 @ self.arms
        return found

    @property
    def pooled(self) -> bool:
        """Whether the residuals are too few to tell the arms' spreads apart."""
        most = max(float(np.prod(np.diag(self.mixing))), _NOTHING)
        return bool(np.linalg.det(self.mixing) <= _NOTHING * most)


def design(is_a: Sequence[bool], sessions: Sequence[int] | None = None) -> Design:
    """The design of launches in the order in which they ran.

    `sessions`: of each launch, which part of a run it is of (begun, resumed): a level of its own
    each. Raises Untestable where the order cannot tell the arms from drift or from sessions.
    """
    parts = None if sessions is None else tuple(sessions)
    return _two_arms(tuple(map(bool, is_a)), parts)


@lru_cache(64)  # the metrics of one series have one design
def _two_arms(is_a: tuple[bool, ...], sessions: tuple[int, ...] | None) -> Design:
    first = np.array(is_a, dtype=bool)
    if not first.any() or first.all():
        raise Untestable("only one of the two cases was measured")
    return _design(np.column_stack([first, ~first]), first.astype(float), [], sessions)


def factorial(
    graphs: Sequence[bool], other: Sequence[bool], sessions: Sequence[int] | None = None
) -> Design:
    """The design of a 2 x 2: what `graphs` changes where `other` holds, less what it changes where
    not. Of each launch in the order in which they ran. Raises Untestable as design does."""
    one, two = (np.asarray(each, dtype=bool) for each in (graphs, other))
    arms = np.column_stack([one & two, ~one & two, one & ~two, ~one & ~two])
    if not arms.any(axis=0).all():
        raise Untestable("not all of the four cases were measured")
    halves = [each - 0.5 for each in (one, two)]
    return _design(arms, halves[0] * halves[1], halves, sessions)


def _design(
    arms: Bools, contrast: Floats, effects: Sequence[Floats], sessions: Sequence[int] | None
) -> Design:
    """The coefficient of `contrast` beside those of `effects`, sessions and launch index."""
    count = len(contrast)
    labels = np.asarray(sessions if sessions is not None else np.zeros(count, dtype=int))
    levels = [(labels == each).astype(float) for each in np.unique(labels)]
    index = np.arange(count) - (count - 1) / 2
    within = _left(contrast, np.column_stack([*effects, *levels]))
    beside = [contrast, *effects[1:], *levels]
    first = [_left(each, np.column_stack(beside)) for each in effects[:1]]
    if min(float(each @ each) for each in (within, *first)) < _NOTHING:
        raise Untestable("the cases were measured in different sessions")
    nuisance = np.column_stack([*effects, *levels, index])
    own = _left(contrast, nuisance)
    if 1 - own @ own / (within @ within) > MOST_CONFOUNDED:
        raise Untestable(
            "one case ran before the other: drift cannot be told from a difference; "
            "run them in turn (ABBA)"
        )
    columns = np.column_stack([contrast, nuisance])
    inverse = np.linalg.pinv(columns)
    residual = np.eye(count) - columns @ inverse
    df = count - int(np.linalg.matrix_rank(columns))
    if df < 1:
        raise Untestable(_too_few(count, arms.shape[1], len(levels)))
    # of a 2 x 2: the first effect is the mean of the two differences, on either side of it half the
    # contrast
    halves = np.array([inverse[1] + side * inverse[0] for side in (-0.5, 0.5) if effects])
    return Design(arms, inverse[0], halves.reshape(-1, count), inverse[-1], residual, df)


def _too_few(launches: int, arms: int, sessions: int) -> str:
    """Why launches leave no degree of freedom, and what to do."""
    rounds = max(ENOUGH_ROUNDS, launches // arms + 2)
    more = f"{MORE} {rounds} --resume measures enough"
    if sessions == 1:
        return f"{launches} launches: too few to estimate how far those of one case differ: {more}"
    return (
        f"{launches} launches in {sessions} sessions (--resume), each of which may have a level of "
        f"its own: too few to estimate also how far launches of one case differ: {more}"
    )


def _left(values: Floats, columns: Floats) -> Floats:
    """What least squares on the columns leaves of the values."""
    rest: Floats = values - columns @ (np.linalg.pinv(columns) @ values)
    return rest


@dataclass(frozen=True)
class Fit:
    """The contrast of each series, its standard error, degrees of freedom and variances by arm
    (k series x K arms)."""

    value: Floats
    error: Floats
    df: Floats
    variances: Floats

    def p(self) -> Floats:
        """Two-sided p of no difference."""
        found: Floats = 2 * _student_cdf(self.df, -np.abs(self.value / self.error))
        return found

    def half_width(self, alpha: float) -> Floats:
        """Half the interval of confidence 1 - alpha."""
        from scipy import special  # noqa: PLC0415 - as below

        found: Floats = -special.stdtrit(self.df, alpha / 2) * self.error
        return found


def _student_cdf(df: Floats | float, t: Floats) -> Floats:
    """Student's t distribution, elementwise."""
    # half of what a summary would import, and a run of one launch a case asks for no interval
    from scipy import special  # noqa: PLC0415

    found: Floats = special.stdtr(df, t)
    return found


def fit(plan: Design, values: Floats) -> Fit:
    """Compare the arms in each row of `values` (k series x N launches)."""
    values = np.atleast_2d(values)
    sums = (values @ plan.residual) ** 2 @ plan.arms
    return fit_of(plan, values @ plan.weights, sums, np.abs(values).max(axis=1))


def fit_of(plan: Design, contrasts: Floats, sums: Floats, largest: Floats) -> Fit:
    """The same from each series' contrast (k), sums of squared residuals by arm (k x K), and
    largest absolute value (k)."""
    # so that equal values give an interval of no width, not a division by zero
    least = (1e-12 * np.maximum(1.0, largest)) ** 2
    if plan.pooled:
        one = np.maximum(sums.sum(1) / plan.df, least)
        variances = np.column_stack([one] * plan.arms.shape[1])
        df = np.full(len(sums), float(plan.df))
    else:
        # unbiased, and at least 0: the larger of an arm's two readings, never the smaller
        variances = np.clip(np.linalg.solve(plan.mixing, sums.T).T, least[:, None], None)
        df = satterthwaite(plan, variances)
    error = np.sqrt(variances @ plan.shares)
    return Fit(contrasts, error, df, variances)


def satterthwaite(plan: Design, variances: Floats) -> Floats:
    """Degrees of freedom of the variance of the contrast, by the arms' variances (k x K).

    2 E^2 / Var of the quadratic form that estimates it, within [1, residual df].
    """
    spread = np.sum((variances @ plan.spread) * variances, axis=1)
    found: Floats = np.clip((variances @ plan.shares) ** 2 / spread, 1.0, float(plan.df))
    return found


def outlying(plan: Design, values: Floats) -> list[int]:
    """The launches of one series that lie off the fit of the others, by position.

    Externally studentized residuals, Bonferroni's correction over the launches. Empty where fewer
    than 2 degrees of freedom are left.
    """
    residuals, own = plan.residual @ values, np.diag(plan.residual)
    if plan.df < 2:
        return []
    seen = np.flatnonzero(own > _NOTHING)
    squares = residuals[seen] ** 2 / own[seen]
    scale = max(1.0, float(np.abs(values).max()))
    others = np.maximum((residuals @ residuals - squares) / (plan.df - 1), (1e-12 * scale) ** 2)
    p = 2 * _student_cdf(plan.df - 1, -np.sqrt(squares / others))
    return [int(at) for at in seen[p * len(values) < _OUTLYING]]
