"""What CUDA and HIP calls of the host do, by their names."""

from __future__ import annotations

import re
from functools import lru_cache

# A CUDA call that only enqueues returns in about 10 us.
BLOCKED_US = 50.0
# CUDA's and HIP's names, with their suffixes (`Ex`, `_ptsz`); the first pattern that fits holds.
CALL_KINDS = (
    ("graph", re.compile("GraphLaunch")),
    ("launch", re.compile("Launch|Memset.*Async")),
    ("copy", re.compile("Memcpy.*(Async|WithStream)")),
)


# Calls that return when a stream, an event or the device has got so far.
SYNCHRONISES = re.compile("Synchronize")


@lru_cache(maxsize=1024)
def call_kind(name: str) -> str:
    """`graph`, `launch` (of a kernel, or to set memory) or `copy`, empty for all other CUDA and HIP
    calls."""
    return next((kind for kind, pattern in CALL_KINDS if pattern.search(name)), "")


@lru_cache(maxsize=1024)
def synchronises(name: str) -> bool:
    """Whether a CUDA or HIP call only waits: for a stream, an event or the device."""
    return bool(SYNCHRONISES.search(name))
