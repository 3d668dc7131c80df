"""The turns of the measured pass, unprofiled, as pp_clock timed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import msgspec

from repro_pp_graphs.pp_clock.clock_record import ClockFacts, Turns
from repro_pp_graphs.report.call_names import KINDS, REST
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.stats.compare import spread

MOST_COLUMNS = 8  # of ranks in a table of turns
LEAST_MS = 0.005  # of what is shown: less is 0.00


class Bars(msgspec.Struct, kw_only=True):
    """A bar a case and rank: ms a turn by kind of call (means over launches), the whole turn."""

    names: list[str]
    parts: dict[str, list[float]]
    turns: list[float]
    launches: list[int]  # of each

    def choice(self) -> dict[str, Any]:
        """The bars as a picture has them."""
        parts = [
            {"key": KINDS[kind][1], "title": KINDS[kind][0], "values": values}
            for kind, values in self.parts.items()
        ]
        rest = {"key": REST[1], "title": REST[0], "values": self.rest()}
        how = {"key": "clock", "title": "unprofiled, by call (pp_clock)"}
        return {**how, "bars": self.names, "parts": [*parts, rest], "points": []}

    def rest(self) -> list[float]:
        """What no timed call covers."""
        sums = [sum(values[at] for values in self.parts.values()) for at in range(len(self.names))]
        return [round(max(0.0, whole - ms), 4) for whole, ms in zip(self.turns, sums, strict=True)]

    def table(self, only: list[int] | None = None) -> Table:
        """The same numbers; `only` some of the bars."""
        at = range(len(self.names)) if only is None else only
        rows = [
            [KINDS[kind][0], *(_ms(values[each]) for each in at)]
            for kind, values in self.parts.items()
        ]
        rest = self.rest()
        rows.append([REST[0], *(f"{rest[each]:.2f}" for each in at)])
        rows.append(["the whole turn", *(f"{self.turns[each]:.2f}" for each in at)])
        over = f" over {spread(self.launches)} launches" if max(self.launches) > 1 else ""
        note = (
            f"ms a decode turn, timed in the measured pass without a profiler: means{over}; they "
            "add up."
        )
        if "send_tokens" in self.parts:
            note += (
                " Turns beside a prefill are left out; where another table has a token send or "
                "token return of the measured pass, those count too."
            )
        return Table(head=["", *(self.names[each] for each in at)], rows=rows, note=note)

    def some(self) -> Table:
        """As many of the bars as a page without pictures has room for, by `shown_ranks`."""
        cases: dict[str, list[int]] = {}
        for at, name in enumerate(self.names):
            cases.setdefault(name.split(" ", 1)[1], []).append(at)
        ranks = shown_ranks([len(its) for its in cases.values()])
        pairs = zip(cases.values(), ranks, strict=True)
        only = [its[each] for its, shown in pairs for each in shown]
        found = self.table(only)
        return Table(
            head=found.head, rows=found.rows, note=found.note + left_out(len(self.names), len(only))
        )


def shown_ranks(ranks: Sequence[int]) -> list[list[int]]:
    """By case the ranks that have a column, by index: all where there is room, else the first and
    the last of each case, of many cases the last. `ranks`: how many each case has."""
    if sum(ranks) <= MOST_COLUMNS:
        return [list(range(number)) for number in ranks]
    ends = [sorted({0, number - 1}) for number in ranks]
    if sum(map(len, ends)) <= MOST_COLUMNS:
        return ends
    return [[number - 1] if at < MOST_COLUMNS else [] for at, number in enumerate(ranks)]


def left_out(there: int, shown: int) -> str:
    """That a table lacks some ranks, a sentence behind others; empty where it has all."""
    return f" {count(there - shown, 'rank')} more: report.html." if there > shown else ""


def bars(source: Source) -> Bars | None:
    """The decode turns of every case and rank; None where no launch was timed."""
    found: dict[str, list[Turns]] = {}
    for case, name in enumerate(source.cases):
        clocks = [one.clock for one in source.launches if one.case == case and one.clock]
        for rank in dict.fromkeys(rank for each in clocks for rank in each.ranks):
            if timed := list(_decode(clocks, rank)):
                found[f"{rank} {name}"] = timed
    if not found:
        return None
    parts = {}
    for kind in KINDS:
        values = [fmean(_a_turn(each, kind) for each in timed) for timed in found.values()]
        if any(ms >= LEAST_MS for ms in values):
            parts[kind] = [round(ms, 4) for ms in values]
    return Bars(
        names=list(found),
        parts=parts,
        turns=[round(fmean(each.turn.mean for each in timed), 4) for timed in found.values()],
        launches=[len(timed) for timed in found.values()],
    )


def _ms(value: float) -> str:
    """Two digits; nothing for what would be 0.00."""
    return f"{value:.2f}" if value >= LEAST_MS else ""


def _decode(clocks: Iterable[ClockFacts], rank: str) -> Iterable[Turns]:
    for each in clocks:
        turns = each.ranks[rank].measured.get("decode") if rank in each.ranks else None
        if turns:
            yield turns


def _a_turn(turns: Turns, kind: str) -> float:
    """How long the calls of a kind take in a turn, ms."""
    if turns.parts:
        return turns.parts.get(kind, 0.0)
    calls = turns.calls.get(kind)
    return calls.mean * calls.count / turns.turn.count if calls else 0.0
