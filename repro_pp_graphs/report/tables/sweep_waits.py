"""The longest wait of a turn under each load of a sweep: which rank, in which call, for whom.

From the ranks' clocks (pp_clock) in the measured pass: means of a decode turn over the launches of
a case. Waits outside the rank's own batches are idle time of its GPU; where no GPU was timed that
part cannot be told, and the longest wait is named as what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from repro_pp_graphs.pp_clock.clock_record import ENOUGH_TURNS
from repro_pp_graphs.report.call_names import KINDS, peer
from repro_pp_graphs.report.launch_row import cases_of, name
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import sweep
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.terminal import wrapped

LEAST_MS = 0.005  # less is 0.00
NOT_RUN = "pp_clock did not run"
NO_GPU = "no GPU was timed"


class Wait(NamedTuple):
    """The longest of a turn's waits, of all ranks and kinds of call, means in ms."""

    ms: float
    turn_ms: float  # of that rank
    rank: str
    kind: str  # of call (rows.KINDS)
    peer: str  # the rank that it waits for; empty: its own results
    batch_ms: float | None  # a turn's batch on the GPU of the rank that is waited for

    @property
    def where(self) -> str:
        """`PP0, receive of token ids from PP1 (batch 38 ms)`."""
        way = "from" if self.kind.startswith("recv_") else "to"
        whom = f" {way} {self.peer}" if self.peer else ""
        batch = f" (batch {number(self.batch_ms, 3)} ms)" if self.peer and self.batch_ms else ""
        return f"{self.rank}, {KINDS[self.kind][0]}{whom}{batch}"

    @property
    def text(self) -> str:
        """`7 of 80 ms: PP0, receive of token ids from PP1 (batch 38 ms)`."""
        return f"{number(self.ms, 3)} of {number(self.turn_ms, 3)} ms: {self.where}"


class Longest(NamedTuple):
    """What is known under one load: `idle` outside all own batches, `any_wait` idle or not; `why`
    one of them cannot be told."""

    idle: Wait | None = None
    any_wait: Wait | None = None
    why: str = ""

    @property
    def text(self) -> str:
        """The idle one in words."""
        if self.idle:
            return self.idle.text
        return f"cannot tell: {self.why}" if self.why else f"none of {LEAST_MS} ms or more"


def longest(summary: dict[str, Any], case: str, load: str) -> Longest:
    """Of one case under one load."""
    rows = sweep.counted(summary, case, load)
    if not rows:
        return Longest(why="not measured")
    clocks = [sweep.of_load(row, load).get("pp_clock") or {} for row in rows]
    if not any(clocks) and not any("pp_clock" in (row.get("shims") or {}) for row in rows):
        return Longest(why=NOT_RUN)
    clocks = [each for each in clocks if each.get("ranks")]
    if why := _too_few(clocks):
        return Longest(why=why)
    any_wait = _longest(clocks, "waits_ms")
    if any(rank.get("outside_ms") is None for each in clocks for rank in each["ranks"].values()):
        return Longest(any_wait=any_wait, why=NO_GPU)
    return Longest(_longest(clocks, "outside_ms"), any_wait)


def _too_few(clocks: Sequence[dict[str, Any]]) -> str:
    """Why the clocks' turns do not say which wait is longest; empty where they do."""
    if not clocks:
        return "pp_clock timed no decode turn"
    for each in clocks:
        in_flight = each.get("in_flight", 0)
        if 0 < in_flight < each.get("loop_size", 0):
            return (
                f"{in_flight} of {each['loop_size']} micro-batches in flight, and turns without "
                "one are not timed"
            )
        there = {rank["pp_rank"] for rank in each["ranks"].values()}
        if absent := set(range(each["pp_size"])) - there:
            return f"PP{min(absent)} left no decode turn: its wait may be the longest"
    fewest = min(rank["turns"] for each in clocks for rank in each["ranks"].values())
    return "" if fewest >= ENOUGH_TURNS else f"{fewest} decode turns, fewer than {ENOUGH_TURNS}"


def _longest(clocks: Sequence[dict[str, Any]], part: str) -> Wait | None:
    """None where no wait is worth naming."""
    ranks = list(dict.fromkeys(rank for each in clocks for rank in each["ranks"]))
    found: Wait | None = None
    for rank in ranks:
        its = [each["ranks"][rank] for each in clocks if rank in each["ranks"]]
        for kind in dict.fromkeys(kind for each in its for kind in each[part]):
            ms = fmean(each[part].get(kind, 0.0) for each in its)
            if ms >= LEAST_MS and (found is None or ms > found.ms):
                at, size = its[0]["pp_rank"], clocks[0]["pp_size"]
                whom = peer(kind, at, size)
                key = "" if whom is None else rank.replace(f"PP{at}", f"PP{whom}", 1)
                batches = [
                    each["ranks"][key].get("own_batch_ms")
                    for each in clocks
                    if key in each["ranks"]
                ]
                batch_ms = fmean(batches) if batches and all(batches) else None
                turn_ms = fmean(each["turn_ms"] for each in its)
                found = Wait(ms, turn_ms, rank, kind, key, batch_ms)
    return found


def every(summary: dict[str, Any]) -> dict[tuple[str, str], Longest]:
    """By load and case."""
    cases = cases_of(summary["launches"])
    loads = [each["load"]["name"] for each in summary["sweep"]]
    return {(load, case): longest(summary, case, load) for load in loads for case in cases}


def what(summary: dict[str, Any]) -> str:
    """What a wait outside a rank's own batches is: idle, unless its GPU may run another rank's."""
    shared = "longest wait of a turn outside the rank's own batches (GPUs are shared: idle or not)"
    return shared if summary.get("sharing") else "longest idle wait of a turn"


class Named(NamedTuple):
    """The waits of all loads in words: what they are of, and a text a load and case."""

    title: str
    cells: dict[tuple[str, str], str]

    @property
    def same(self) -> str:
        """The text that all have; empty where they differ."""
        texts = set(self.cells.values())
        return texts.pop() if len(texts) == 1 else ""


def named(summary: dict[str, Any]) -> Named:
    """Idle waits; where no GPU was timed under any load, waits, idle or not."""
    found = every(summary)
    if any(each.any_wait for each in found.values()) and all(each.why for each in found.values()):
        title = f"longest wait of a turn (which part of it is idle: cannot tell, {NO_GPU})"
        cells = {
            key: each.any_wait.text if each.any_wait else each.text for key, each in found.items()
        }
        return Named(title, cells)
    return Named(what(summary), {key: each.text for key, each in found.items()})


def lines(summary: dict[str, Any]) -> list[str]:
    """For the terminal, at most 80 columns: a line a load and case."""
    found = named(summary)
    if found.same:
        return wrapped(f"{found.title}: {found.same}")
    out = wrapped(f"{found.title}: its rank, the call, whom it waits for")
    for each in summary["sweep"]:
        out += wrapped(each["load"]["title"], "  ")
        for case in cases_of(summary["launches"]):
            mark = f"    {name(summary, case)[:12]:<11} "
            out += wrapped(found.cells[each["load"]["name"], case], mark)
    return out


def table(summary: dict[str, Any]) -> Table | None:
    """For report.md and report.html: a row a load, a column a case; None without a sweep."""
    if not summary.get("sweep"):
        return None
    found, cases = named(summary), cases_of(summary["launches"])
    rows = [
        [each["load"]["title"], *(found.cells[each["load"]["name"], case] for case in cases)]
        for each in summary["sweep"]
    ]
    note = (
        "In the measured pass: of all ranks and calls the one with most ms a decode turn, of the "
        "turn's ms, and the rank that it waits for"
    )
    batch = any("(batch " in cell for row in rows for cell in row[1:])
    note += "; batch: how long that rank's GPU computes in a turn." if batch else "."
    return Table(head=[found.title, *(name(summary, case) for case in cases)], rows=rows, note=note)


def largest(summary: dict[str, Any]) -> list[str]:
    """A sentence a case: the longest idle wait of all loads; empty where none is known."""
    said = []
    for case in cases_of(summary["launches"]):
        known = [
            (one.idle, each["load"]["title"])
            for each in summary["sweep"]
            if (one := longest(summary, case, each["load"]["name"])).idle
        ]
        if known:
            wait, title = max(known, key=lambda each: each[0].ms)
            said.append(
                f"{name(summary, case)}: of {len(known)} loads the {what(summary)} is under "
                f"{title}: {wait.text}."
            )
    return said
