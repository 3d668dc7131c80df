"""Welch's comparison of two arms with the launch index as covariate ("Welch with drift").

value ~ arm + launch index (+ session): least squares, the residual variance of each arm for itself
(unbiased), Satterthwaite's degrees of freedom, Student's t. docs/verdict.md has the derivation and
what a simulation says of it. All functions take many series of one order at once: a row each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# of an arm's variance in the order of launches, what a steady drift may explain: AABB has 0.8
MOST_CONFOUNDED = 0.5
_NOTHING = 1e-9


class Untestable(ValueError):
    """These launches cannot be compared by any test; the message says why."""


@dataclass(frozen=True)
class Design:
    """What an order of launches makes of the values: A - B is `weights` @ values.

    Shapes: N launches. `residual` @ values are the residuals (N x N, a projection); `df` their
    degrees of freedom.
    """

    is_a: Bools
    weights: Floats
    drift: Floats
    residual: Floats
    df: int

    @cached_property
    def shares(self) -> Floats:
        """Variance of A - B for a variance of 1 in arm A, and in arm B."""
        squares = self.weights**2
        return np.array([squares[self.is_a].sum(), squares[~self.is_a].sum()])

    @cached_property
    def mixing(self) -> Floats:
        """Expected sums of squared residuals of A and of B (rows), by variance of A and of B."""
        squares = self.residual**2
        arms = (self.is_a, ~self.is_a)
        return np.array([[squares[np.ix_(one, two)].sum() for two in arms] for one in arms])

    @cached_property
    def spread(self) -> Floats:
        """Of the quadratic form that estimates the variance of A - B: half its own variance is
        this, weighted by the arms' variances squared, and by their product twice (3 numbers).
        """
        a, b = (self.residual * arm for arm in (self.is_a, ~self.is_a))  # residual @ diag(arm)
        of_variance = np.linalg.solve(self.mixing.T, self.shares)
        form = of_variance[0] * (a @ self.residual) + of_variance[1] * (b @ self.residual)
        a, b = form * self.is_a, form * ~self.is_a
        return np.array([np.sum(a * a.T), np.sum(b * b.T), np.sum(a * b.T)])

    @property
    def pooled(self) -> bool:
        """Whether the residuals are too few to tell the arms' spreads apart."""
        (aa, ab), (ba, bb) = self.mixing
        return bool(aa * bb - ab * ba <= _NOTHING * max(aa * bb, _NOTHING))


def design(is_a: Sequence[bool], sessions: Sequence[int] | None = None) -> Design:
    """The design of launches in the order in which they ran.

    `sessions`: of each launch, which part of a run it is of (begun, resumed): a level of its own
    each. Raises Untestable where the order cannot tell the arms from drift or from sessions.
    """
    arms = np.asarray(is_a, dtype=bool)
    count = len(arms)
    if not arms.any() or arms.all():
        raise Untestable("only one of the two cases was measured")
    labels = np.asarray(sessions if sessions is not None else np.zeros(count, dtype=int))
    levels = [(labels == each).astype(float) for each in np.unique(labels)]
    index = np.arange(count) - (count - 1) / 2
    within = _left(arms.astype(float), np.array(levels).T)
    if within @ within < _NOTHING:
        raise Untestable("the two cases were measured in different sessions")
    nuisance = np.column_stack([*levels, index])
    own = _left(arms.astype(float), nuisance)
    if 1 - own @ own / (within @ within) > MOST_CONFOUNDED:
        raise Untestable(
            "one case ran before the other: drift cannot be told from a difference; "
            "run them in turn (ABBA)"
        )
    columns = np.column_stack([arms.astype(float), nuisance])
    inverse = np.linalg.pinv(columns)
    residual = np.eye(count) - columns @ inverse
    df = count - int(np.linalg.matrix_rank(columns))
    if df < 1:
        raise Untestable("too few launches: nothing is left to estimate their spread from")
    return Design(arms, inverse[0], inverse[-1], residual, df)


def _left(values: Floats, columns: Floats) -> Floats:
    """What least squares on the columns leaves of the values."""
    rest: Floats = values - columns @ (np.linalg.pinv(columns) @ values)
    return rest


@dataclass(frozen=True)
class Fit:
    """A - B of each series, its standard error, degrees of freedom and variances by arm (k x 2)."""

    value: Floats
    error: Floats
    df: Floats
    variances: Floats

    def p(self) -> Floats:
        """Two-sided p of no difference."""
        found: Floats = 2 * special.stdtr(self.df, -np.abs(self.value / self.error))
        return found

    def half_width(self, alpha: float) -> Floats:
        """Half the interval of confidence 1 - alpha."""
        found: Floats = -special.stdtrit(self.df, alpha / 2) * self.error
        return found


def fit(plan: Design, values: Floats) -> Fit:
    """Compare the arms in each row of `values` (k series x N launches)."""
    values = np.atleast_2d(values)
    squares = (values @ plan.residual) ** 2
    sums = np.column_stack([squares[:, plan.is_a].sum(1), squares[:, ~plan.is_a].sum(1)])
    # so that equal values give an interval of no width, not a division by zero
    least = (1e-12 * np.maximum(1.0, np.abs(values).max(axis=1))) ** 2
    if plan.pooled:
        one = np.maximum(sums.sum(1) / plan.df, least)
        variances = np.column_stack([one, one])
        df = np.full(len(values), float(plan.df))
    else:
        # unbiased, and at least 0: the larger of an arm's two readings, never the smaller
        variances = np.clip(np.linalg.solve(plan.mixing, sums.T).T, least[:, None], None)
        df = satterthwaite(plan, variances)
    error = np.sqrt(variances @ plan.shares)
    return Fit(values @ plan.weights, error, df, variances)


def satterthwaite(plan: Design, variances: Floats) -> Floats:
    """Degrees of freedom of the variance of A - B, by the arms' variances (k x 2).

    2 E^2 / Var of the quadratic form that estimates it, within [1, residual df].
    """
    a, b = variances.T
    spread = np.array([a**2, b**2, 2 * a * b]).T @ plan.spread
    found: Floats = np.clip((variances @ plan.shares) ** 2 / spread, 1.0, float(plan.df))
    return found


def outlying(plan: Design, values: Floats, alpha: float = 0.05) -> list[int]:
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
    p = 2 * special.stdtr(plan.df - 1, -np.sqrt(squares / others))
    return [int(at) for at in seen[p * len(values) < alpha]]
