"""A process that the merged trace has beside a rank's own: its tracks, and events on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from repro_pp_graphs.traces.merge.chrome_trace import Placed

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Track:
    """One rank's added process; `names` are its tracks that hold slices."""

    placed: Placed
    names: dict[str, int] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        return self.placed.part.first_pid

    def tid(self, name: str) -> int:
        """The tid of one of the added tracks: no pid has the same number."""
        return self.pid * 100 + self.names.setdefault(name, len(self.names) + 1)

    def us(self, moment_ns: int) -> float:
        """A moment of the rank as the merged trace's ts."""
        return (moment_ns - self.placed.rank.base_ns + self.placed.part.shift_ns) / 1000

    def slice(self, track: str, name: str, start_ns: int, end_ns: int, args: Event) -> Event:
        return {
            "ph": "X",
            "cat": "pipeline",
            "name": name,
            "pid": self.pid,
            "tid": self.tid(track),
            "ts": self.us(start_ns),
            "dur": (end_ns - start_ns) / 1000,
            "args": args,
        }

    def metadata(self) -> Iterator[Event]:
        """What the process and its tracks are called."""
        part = self.placed.part
        case = f" ({part.names.case})" if part.names.case else ""
        rows: list[tuple[int, str, Event]] = [
            (0, "process_name", {"name": f"{part.names.title} · pipeline{case}"}),
            (0, "process_sort_index", {"sort_index": part.first_pid}),
        ]
        rows += [
            (self.tid(name), "thread_name", {"name": f"{part.names.title} · {name}"})
            for name in self.names
        ]
        for tid, kind, args in rows:
            yield {"ph": "M", "name": kind, "pid": self.pid, "tid": tid, "args": args}
