"""A made-up GPU with a clock of its own: its events pass at times that a test chooses."""

from __future__ import annotations

import time
from typing import Any


class FakeEvent:
    """A CUDA event on a made-up GPU, whose clock runs from `CUDA.begin_ns` of the host's."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at_ms: float | None = None

    def record(self, stream: Any = None) -> None:
        self.at_ms = CUDA.passes_ms(stream)

    def query(self) -> bool:
        assert self.at_ms is not None
        return CUDA.now_ms() >= self.at_ms

    def elapsed_time(self, later: FakeEvent) -> float:
        assert self.query() and later.query() and self.at_ms is not None
        return later.at_ms - self.at_ms  # type: ignore[operator]


class CUDA:
    """A GPU with a queue of work and an idle stream."""

    begin_ns = 0
    queued_ms = 0.0
    capturing = False
    stuck = False
    Event = FakeEvent

    @staticmethod
    def Stream(priority: int) -> str:
        return "idle"

    @staticmethod
    def is_current_stream_capturing() -> bool:
        return CUDA.capturing

    @staticmethod
    def now_ms() -> float:
        return (time.monotonic_ns() - CUDA.begin_ns) / 1e6

    @staticmethod
    def passes_ms(stream: Any) -> float:
        if stream == "idle":
            return CUDA.now_ms() + (1e9 if CUDA.stuck else 0)
        return max(CUDA.now_ms(), CUDA.queued_ms)
