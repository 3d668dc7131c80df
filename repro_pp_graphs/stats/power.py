"""What a series of launches could have seen, and how many rounds it takes to settle a difference.

By simulating the comparison itself on normal launches of the spreads that were seen: 4,000 series,
always the same random numbers, so that the same launches give the same answer.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from repro_pp_graphs.stats.drift import Design, Floats, design, fit_of

POWER = 0.8  # a difference counts as visible where 4 of 5 such series show it
SERIES = 4000
MOST_ROUNDS = 64
BLOCK = 2  # rounds: A B, B A


@functools.cache
def abba(rounds: int) -> Design:
    """The design of that many rounds in ABBA order."""
    return design([(number % 2 == 0) == first for number in range(rounds) for first in (1, 0)])


@dataclass(frozen=True)
class _Noise:
    """What a design makes of SERIES series whose launches all have variance 1, in parts: what comes
    from the launches of A and of B. Times the arms' standard deviations they add up to any other.
    """

    contrasts: Floats  # 2 x SERIES
    squares: Floats  # 2 x 2 x SERIES x 2: products of two parts' residuals, summed over each arm
    largest: Floats  # 2 x SERIES: absolute values


@functools.lru_cache(48)
def _noise(plan: Design) -> _Noise:
    noise = np.random.default_rng(len(plan.is_a)).standard_normal((SERIES, len(plan.is_a)))
    parts = [noise * arm for arm in plan.arms.T]
    residuals = [part @ plan.residual for part in parts]
    return _Noise(
        np.array([part @ plan.weights for part in parts]),
        np.array([[(one * two) @ plan.arms for two in residuals] for one in residuals]),
        np.array([np.abs(part).max(axis=1) for part in parts]),
    )


def _without_difference(plan: Design, variances: Floats, alpha: float) -> tuple[Floats, Floats]:
    """A - B and half its interval in series whose arms do not differ; `variances`: of A, of B."""
    noise, spreads = _noise(plan), np.sqrt(variances)
    sums = np.einsum("i,j,ijsk->sk", spreads, spreads, noise.squares)
    largest = (spreads[:, None] * noise.largest).max(axis=0)
    found = fit_of(plan, spreads @ noise.contrasts, sums, largest)
    return found.value, found.half_width(alpha)


def detectable(plan: Design, variances: Floats, alpha: float) -> float:
    """The A - B that a test at level alpha finds with probability POWER.

    On the scale of the values: of logarithms, 0.05 is a ratio of exp(0.05).
    """
    return _detectable(plan, tuple(map(float, variances)), alpha)


@functools.lru_cache(1024)  # what is written of a run is computed for each of its files
def _detectable(plan: Design, variances: tuple[float, ...], alpha: float) -> float:
    value, half = _without_difference(plan, np.array(variances), alpha)
    return float(np.quantile(half - value, POWER))


def rounds_needed(variances: Floats, alpha: float, margin: float) -> int | None:
    """The fewest rounds, in blocks of two, that exclude a difference of `margin` with probability
    POWER where there is none (and then also see one where it is there).

    None: more than MOST_ROUNDS. `margin` on the scale of the values.
    """
    return _rounds_needed(tuple(map(float, variances)), alpha, margin)


@functools.lru_cache(1024)  # as above
def _rounds_needed(variances: tuple[float, ...], alpha: float, margin: float) -> int | None:
    blocks = range(2, MOST_ROUNDS // BLOCK + 1)
    low, high, spreads = 0, len(blocks), np.array(variances)
    while low < high:  # the first block that does: more rounds never need more
        middle = (low + high) // 2
        value, half = _without_difference(abba(BLOCK * blocks[middle]), spreads, alpha)
        if np.quantile(np.abs(value) + half, POWER) <= margin:
            high = middle
        else:
            low = middle + 1
    return BLOCK * blocks[low] if low < len(blocks) else None
