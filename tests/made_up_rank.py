"""Rows that the clock of a rank might have left: turns that all look alike."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CODES, Row, Rows

MS = 1_000_000
TURN_MS = 20


class Rank:
    """Rows of a rank whose turns all look alike; times in ms."""

    def __init__(self, pp_rank: int, pp_size: int = 2, depth: int = 0, **header: Any) -> None:
        self.header = {"format": 1, "pp_rank": pp_rank, "pp_size": pp_size, "tp_rank": 0}
        self.header |= {"loop_size": pp_size + depth, **header}
        self.rows: list[Row] = []

    def row(self, turn: int, kind: str, begin: float, end: float, **more: int) -> None:
        fields = {"flags": 0, "batch_size": 0, "unused": 0, "value": 0} | more
        times = int(begin * MS), int(end * MS)
        self.rows.append(Row(len(self.rows) + 1, *times, turn, CODES[kind], *fields.values()))

    def turn(
        self, at: int, calls: dict[str, tuple[float, float]], flags: int = rows.DECODE
    ) -> None:
        """A turn of TURN_MS that begins at its number; calls by kind, ms from its begin."""
        base = at * TURN_MS
        for kind, (begin, end) in calls.items():
            self.row(at, kind, base + begin, base + end)
        self.row(at, "turn", base, base + TURN_MS, flags=flags, batch_size=8)

    def own_batch(self, at: int, begin: float, end: float) -> None:
        self.row(at, "own_batch", at * TURN_MS + begin, at * TURN_MS + end, value=9000)

    @property
    def file(self) -> Rows:
        return Rows(self.header, self.rows, 0, 0)


EVERYTHING = (0, 10**12)
CALLS = {"launch": (1, 2), "send_tokens": (3, 15), "recv_tokens": (15, 16), "process": (16, 17)}


def steady(turns: int = 40, **header: Any) -> Rank:
    rank = Rank(1, **header)
    for at in range(turns):
        rank.turn(at, {"recv_requests": (0, 0.5), "recv_hidden": (0.5, 1), **CALLS})
    return rank
