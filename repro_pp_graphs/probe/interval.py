"""The mean of a few values, and how far off it may be."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# two-sided 95 %, by degrees of freedom from 1
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
        2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)  # fmt: skip
T_95_MANY = 2.086  # beyond the table: a little wide


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and half-width of its 95 % interval (Student's t); None for the half-width of a single
    value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": mean, "half_width": None}
    t = T_95[len(values) - 2] if len(values) - 2 < len(T_95) else T_95_MANY
    return {"mean": mean, "half_width": t * statistics.stdev(values) / math.sqrt(len(values))}
