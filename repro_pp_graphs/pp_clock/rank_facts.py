"""The facts of one rank, from its rows: what is kept of it once these are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from repro_pp_graphs.pp_clock import on_off, rows
from repro_pp_graphs.pp_clock.clock_record import Mode, OnOff, Rank, Turns
from repro_pp_graphs.pp_clock.loop import Loop
from repro_pp_graphs.pp_clock.rows import Rows
from repro_pp_graphs.pp_clock.turns import by_mode, decode_batches, in_window, profiled
from repro_pp_graphs.pp_clock.window import Window


class Seen(NamedTuple):
    """What is kept of a rank once its rows are gone."""

    header: dict[str, Any]
    rank: Rank
    loop_size: int
    first_ns: int | None  # where its rows begin
    on_off: OnOff | None


def _rank(rank: Rows, loop: Loop, window: Window | None, profiled: dict[Mode, Turns]) -> Rank:
    header, measured = rank.header, in_window(loop, window)
    return Rank(
        pp_rank=header.get("pp_rank", -1),
        tp_rank=header.get("tp_rank", -1),
        rows=len(rank.rows),
        lost=rank.lost,
        torn=rank.torn,
        measured=by_mode(loop, measured),
        profiled=profiled,
        decode_batches=decode_batches(loop, measured),
        found=header.get("found", {}),
        lacks=header.get("lacks", {}),
        failed=header.get("failed", ""),
    )


def _on_off(loop: Loop) -> OnOff | None:
    """None where the clock did not alternate, or too rarely."""
    size = int(loop.header.get("alternate") or 0)
    if not size:
        return None
    steady = (
        on_off.Turn(turn, row.end_ns - row.begin_ns, bool(row.flags & rows.OFF))
        for turn, row in loop.turns.items()
        if loop.steady(turn) and not row.flags & rows.PROFILED
    )
    return on_off.compared(steady, size, loop.size)


def seen_of(
    rank: Rows, windows: Sequence[Window | None], profiles: Sequence[Window | None]
) -> list[Seen]:
    """A rank's facts by each of the windows, with the turns of the profile that belongs to it."""
    loop = Loop(rank)
    first_ns = rank.rows[0].begin_ns if rank.rows else None
    both = _on_off(loop)
    found = (
        _rank(rank, loop, window, by_mode(loop, profiled(loop, profile)))
        for window, profile in zip(windows, profiles, strict=True)
    )
    return [Seen(rank.header, each, loop.size, first_ns, both) for each in found]
