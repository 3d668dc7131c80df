"""Whole numbers in a trace, however they are written there."""

from __future__ import annotations

import re

# Later than that, 2200, no clock is: a nanosecond more and it does not fit its column.
LATEST_NS = 7_258_118_400_000_000_000
WHOLE_NUMBER = re.compile(r"\s*([-+]?\d{1,19})(?:\.0*)?\s*")


def number(value: object) -> int | None:
    """A whole number, also one that is written as a string or as 5.0; None for anything else."""
    if type(value) is int:
        return value if -LATEST_NS <= value <= LATEST_NS else None
    if type(value) is float:
        return int(value) if -LATEST_NS <= value <= LATEST_NS else None
    found = WHOLE_NUMBER.fullmatch(value) if isinstance(value, str) else None
    return number(int(found[1])) if found else None
