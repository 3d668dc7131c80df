"""Quantiles with linear interpolation; numpy's own import numpy.ma, which takes 17 ms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def quantile(values: npt.NDArray[Any], share: float) -> float:
    """The value below which a share (0 to 1) of the values, at least one, lie."""
    ordered = np.sort(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (at - low))


def median(values: npt.NDArray[Any]) -> float:
    """The middle value, between two of them their mean."""
    return quantile(values, 0.5)


def spread(values: Floats) -> dict[str, float]:
    """Mean, median, 99th percentile and maximum (us), empty for no values."""
    if not len(values):
        return {}
    return {
        "mean": round(float(np.mean(values)), 3),
        "median": round(median(values), 3),
        "p99": round(quantile(values, 0.99), 3),
        "max": round(float(np.max(values)), 3),
    }
