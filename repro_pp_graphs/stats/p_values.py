"""What the order of values alone says, and several p-values at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, product


def exact_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the exact Mann-Whitney U test; of two equal values each counts half.

    scipy.stats has it too, and takes longer to import than all that a run's summary computes.
    """
    wins = sum((one > other) + (one == other) / 2 for one, other in product(a, b))
    most = int(max(wins, len(a) * len(b) - wins))
    ways = _ways(*sorted((len(a), len(b))))
    return min(1.0, 2 * sum(ways[most:]) / math.comb(len(a) + len(b), len(a)))


@cache
def _ways(few: int, many: int) -> list[int]:
    """In how many orders of two arms' launches the one wins 0, 1, ... of the comparisons.

    The coefficients of the product of (1 - x^(many + i)) / (1 - x^i) over i up to `few`.
    """
    ways = [1] + [0] * (few * many)
    for i in range(1, few + 1):
        top = many + i
        ways = [n - (ways[at - top] if at >= top else 0) for at, n in enumerate(ways)]
        for first in range(i):
            ways[first::i] = accumulate(ways[first::i])
    return ways


def separate(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether every value of one arm lies above every value of the other."""
    return max(a) < min(b) or max(b) < min(a)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's corrected p-values, in the order given."""
    found = [1.0] * len(ps)
    largest = 0.0
    for place, at in enumerate(sorted(range(len(ps)), key=lambda each: ps[each])):
        largest = max(largest, min(1.0, ps[at] * (len(ps) - place)))
        found[at] = largest
    return found
