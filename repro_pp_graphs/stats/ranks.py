"""What the order of values alone says, and several p-values at once."""

from __future__ import annotations

from collections.abc import Sequence

from scipy import stats


def exact_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p of the exact Mann-Whitney U test."""
    return float(stats.mannwhitneyu(a, b, alternative="two-sided", method="exact").pvalue)


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
