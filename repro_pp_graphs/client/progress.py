"""The line on a terminal that shows how far a run is."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterable

from .quick_count import quick_count
from .run import Run
from .stream import Stream


class Progress:
    """A line rewritten in place, on a terminal only, from the newest bytes of each stream."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._on = sys.stdout is not None and sys.stdout.isatty()
        self._tokens: dict[Stream, int] = {}
        self._first: dict[Stream, tuple[int, int]] = {}

    def show(self, run: Run, active: Iterable[Stream], now_ns: int) -> None:
        if not self._on:
            return
        busy = list(active)
        gaps_ms = []
        for stream in busy:
            with contextlib.suppress(IndexError):  # nothing has come, or it has been parsed
                newest_ns, slab, start, end, _ = stream.reads[-1]
                newest = quick_count(bytes(slab[start:end]), 1)
                if newest is not None:
                    self._tokens[stream] = newest[1] * stream.prompts
                    first_ns, first = self._first.setdefault(stream, (newest_ns, newest[1]))
                    if newest[1] > first:
                        gaps_ms.append((newest_ns - first_ns) / 1e6 / (newest[1] - first))
        tokens = sum(self._tokens.values())
        itl = f"  ITL ~{statistics.fmean(gaps_ms):.1f} ms" if gaps_ms else ""
        rate = tokens / max(1e-9, (now_ns - run.begin_ns) / 1e9)
        done = len(run.streams) - len(busy)
        line = f"{self._label}: {done}/{len(run.streams)} streams  ~{rate:.0f} tok/s{itl}"
        self._draw(line[:79])

    def clear(self) -> None:
        if self._on:
            self._draw("")

    def _draw(self, line: str) -> None:
        try:
            sys.stdout.write(f"\r\x1b[K{line}")
            sys.stdout.flush()
        except OSError:  # the terminal was closed; the measurement goes on
            self._on = False
