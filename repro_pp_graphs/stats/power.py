"""What a series of launches could have seen, and how many rounds it takes to settle a difference.

By simulating the comparison itself on normal launches of the spreads that were seen: 4,000 series,
always the same random numbers, so that the same launches give the same answer.
"""

from __future__ import annotations

import functools

import numpy as np

from repro_pp_graphs.stats.drift import Design, Floats, design, fit

POWER = 0.8  # a difference counts as visible where 4 of 5 such series show it
SERIES = 4000
MOST_ROUNDS = 64
BLOCK = 2  # rounds: A B, B A


@functools.cache
def abba(rounds: int) -> Design:
    """The design of that many rounds in ABBA order."""
    return design([(number % 2 == 0) == first for number in range(rounds) for first in (1, 0)])


def _without_difference(plan: Design, variances: Floats, alpha: float) -> tuple[Floats, Floats]:
    """A - B and half its interval in series whose arms do not differ; `variances`: of A, of B."""
    noise = np.random.default_rng(len(plan.is_a)).standard_normal((SERIES, len(plan.is_a)))
    found = fit(plan, noise * np.sqrt(np.where(plan.is_a, *variances)))
    return found.value, found.half_width(alpha)


def detectable(plan: Design, variances: Floats, alpha: float) -> float:
    """The A - B that a test at level alpha finds with probability POWER.

    On the scale of the values: of logarithms, 0.05 is a ratio of exp(0.05).
    """
    value, half = _without_difference(plan, variances, alpha)
    return float(np.quantile(half - value, POWER))


def rounds_needed(variances: Floats, alpha: float, margin: float) -> int | None:
    """The fewest rounds, in blocks of two, that exclude a difference of `margin` with probability
    POWER where there is none (and then also see one where it is there).

    None: more than MOST_ROUNDS. `margin` on the scale of the values.
    """
    blocks = range(2, MOST_ROUNDS // BLOCK + 1)
    low, high = 0, len(blocks)
    while low < high:  # the first block that does: more rounds never need more
        middle = (low + high) // 2
        value, half = _without_difference(abba(BLOCK * blocks[middle]), variances, alpha)
        if np.quantile(np.abs(value) + half, POWER) <= margin:
            high = middle
        else:
            low = middle + 1
    return BLOCK * blocks[low] if low < len(blocks) else None
