"""Times as stacked bars: one token's way round the ring, and what a turn of a host is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from repro_pp_graphs.pp_clock.clock_record import EDGES
from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.number_words import times
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables import turn_tables
from repro_pp_graphs.report.tables.page_tables import (
    first_explained,
    first_followed,
    of_launches,
    turns,
    unprofiled_tpot_ms,
)
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.traces.analysis_record import RingPath, Turn
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.explain.step_path import which_graph
from repro_pp_graphs.traces.explain.words import CAUSE_TITLES, ROW_TITLES, ROWS

SAVED_FROM = (
    "At least: a step would not be shorter than this. It is of the steps after the first quarter, "
    "whose mean stands above it, so that it may be longer than the whole step, the mean of all. "
    "(?): the difference is less than such an estimate is accurate to, 2 % of a step, or as far as "
    "the same step computed with nothing changed is off."
)
STEADY = "a step after the first quarter of them"
BAR_PX, FOOT_PX = 30, 60


def _stack(choose: str, bars: list[str], choices: list[dict[str, Any]]) -> dict[str, Any]:
    """The data of a picture of bars; a choice has the bars of its own, or these."""
    most = max(len(choice.get("bars", bars)) for choice in choices)
    data = {"bars": bars, "choices": choices, "height": FOOT_PX + BAR_PX * most}
    return {**data, "choose": choose} if len(choices) > 1 else data


def _part(key: str, title: str, us: list[float], more: list[Any] | None = None) -> dict[str, Any]:
    """One colour of the bars, us -> ms."""
    part = {"key": key, "title": title, "values": [round(each / 1e3, 4) for each in us]}
    return {**part, "more": more} if more else part


def one_token(source: Source) -> Figure | None:
    """What a decode step waits for on its way round the ring: a bar a case."""
    first = [(source.cases[case], label, path) for case, label, path in first_followed(source)]
    known = [(name, path) for name, _, path in first]
    if not known:
        return None
    parts = []
    for category, title in step_path.TITLES.items():
        us = [path.categories[category].mean for _, path in known]
        if any(us):
            parts.append(_part(f"path_{category}", title, us))
    names = [name for name, _ in known]
    return Figure(
        id="path",
        title="One token's way round the ring",
        caption="The critical path of a decode step, from a launch on PP0 to the next launch of "
        "the same micro-batch: what it waits for, one after another. Work that runs meanwhile and "
        "is not waited for is not shown: it costs the step nothing. Means while profiled, of "
        f"{of_launches([label for _, label, _ in first])}.{_not_followed(source)}",
        alt=f"Stacked bars of {len(names)} cases; the table has every part.",
        data=_stack("", names, [{"key": "path", "title": "", "parts": parts, "points": []}]),
        table=_path_table(known, [_unprofiled(source, label) for _, label, _ in first]),
    )


def _not_followed(source: Source) -> str:
    """Which cases have no bar, and why; empty where all have one."""
    reasons = dict.fromkeys(range(len(source.cases)), "no traces of it")
    reasons |= {case: each.why for case, each in reversed(source.all_explained()) if each.why}
    for case, each in first_explained(source):
        if each.analysis:
            reasons[case] = each.analysis.ring_path_unknown or "its steps were not followed"
    for case, _, _ in first_followed(source):
        del reasons[case]
    lacking = [f"{source.cases[case]} ({why})" for case, why in reasons.items()]
    return f" Without a bar: {'; '.join(lacking)}." if lacking else ""


def _unprofiled(source: Source, label: str) -> tuple[float | None, float | None]:
    """A launch without the profiler: mean TPOT, ms; by pp_clock a profiled turn over another."""
    clock = next((one.clock for one in source.launches if one.summary.label == label), None)
    return unprofiled_tpot_ms(source).get(label), clock.distortion if clock else None


def _path_table(
    known: list[tuple[str, RingPath]], unprofiled: list[tuple[float | None, float | None]]
) -> Table:
    rows = []
    for category, title in step_path.TITLES.items():
        cells = [path.categories[category] for _, path in known]
        if any(cell.mean for cell in cells):
            shown = [
                f"{cell.mean / 1e3:.2f}"
                + (f" \u00b1 {1.96 * cell.error / 1e3:.2f}" if cell.error is not None else "")
                for cell in cells
            ]
            rows.append([title, *shown])
    rows.append(["the whole step", *(f"{path.step_us.mean / 1e3:.2f}" for _, path in known)])
    tpots, turns_longer = zip(*unprofiled, strict=True)
    if any(tpots):
        rows.append(["TPOT, not profiled", *(f"{ms:.2f}" if ms else "-" for ms in tpots)])
        longer = [
            path.step_us.mean / 1e3 / ms if ms else None
            for ms, (_, path) in zip(tpots, known, strict=True)
        ]
        rows.append(["profiled step / TPOT (steps followed)", *map(times, longer)])
    if any(turns_longer):
        rows.append(
            [
                f"longer when profiled: the last rank's turn, by pp_clock, {EDGES}",
                *map(times, turns_longer),
            ]
        )
    rows.append(["steps followed", *(f"{path.steps} of {path.steps_there}" for _, path in known)])
    rows += _what_if_rows(known)
    return Table(
        head=["ms of a step", *(name for name, _ in known)],
        rows=rows,
        note="\u00b1: 95 % interval of the mean, over the steps."
        + "".join(f" {name}: {text}." for name, path in known if (text := which_graph(path)))
        + f" {SAVED_FROM}" * any(path.what_if for _, path in known),
    )


def _what_if_rows(known: list[tuple[str, RingPath]]) -> list[list[str]]:
    """How long a step is, and at least would be if ..., ms; empty where no path has an estimate."""
    bounded = {STEADY: [path.steady_us if path.what_if else None for _, path in known]}
    bounded |= {
        f"at least, if {title}": [path.what_if.get(what) for _, path in known]
        for what, title in step_path.IF.items()
    }
    return [
        [title, *(_least(us, path, title) for us, (_, path) in zip(cells, known, strict=True))]
        for title, cells in bounded.items()
        if any(us is not None for us in cells)
    ]


def _least(us: float | None, path: RingPath, title: str) -> str:
    """A step's least length, ms; with (?) where it may save nothing."""
    if us is None:
        return "-"
    unsure = title != STEADY and step_path.may_be_none(path, us)
    return f"{us / 1e3:.2f}" + " (?)" * unsure


def what_ifs(source: Source) -> Table | None:
    """The what-ifs of each case's first launch whose path is known; None where there are none."""
    first = [(source.cases[at], label, path) for at, label, path in first_followed(source)]
    first = [each for each in first if each[2].what_if]
    rows = _what_if_rows([(name, path) for name, _, path in first])
    if not rows:
        return None
    labels = of_launches([label for _, label, _ in first])
    return Table(
        head=["ms of a step", *(name for name, _, _ in first)],
        rows=rows,
        note=f"While profiled, of {labels}. {SAVED_FROM} Sending token ids is the last rank's send "
        "to PP0 (#10865's); messages are all sends and receives.",
    )


def parts_of_a_turn(source: Source) -> Figure | None:
    """Each rank's turn as a stacked bar: unprofiled by pp_clock, and by the traces by call and by
    what the host waits for."""
    timed = turn_tables.bars(source)
    whole = turns(source, every_rank=True)
    if whole is None and timed is None:
        return None
    names, found = _turns(source)
    choices = [timed.choice()] if timed else []
    if found:
        by_call = {"key": "call", "title": "profiled, by call", "parts": _by_call(found)}
        by_cause = {"key": "cause", "title": "profiled, by wait", "parts": _by_cause(found)}
        choices += [{**by_call, "points": []}, {**by_cause, "points": []}]
    bars = names or (timed.names if timed else [])
    caption = (
        "A turn of the scheduler's loop: from a batch's send to the next one's. Means, which add "
        "up. A wait for the own graph is time that the GPU works."
    )
    both = " The measured pass, timed by pp_clock, and the profile, which slows a turn down."
    return Figure(
        id="turns",
        title="What a turn of each rank's host is made of",
        caption=caption + (both if timed and found else ""),
        alt=f"Stacked bars of {len(bars)} ranks; the table has every part.",
        data=_stack("Parts", bars, choices),
        table=timed.table() if timed else whole or Table(head=[], rows=[]),
    )


def _turns(source: Source) -> tuple[list[str], list[Turn]]:
    """Every rank that has turns in the traces of a case's first traced launch."""
    names, found = [], []
    for case, explained in first_explained(source):
        for label, turn in (explained.analysis.turns if explained.analysis else {}).items():
            names.append(f"PP{label} {source.cases[case]}")
            found.append(turn)
    return names, found


def _by_call(found: list[Turn]) -> list[dict[str, Any]]:
    parts = []
    for row in ROWS:
        its = [turn.rows.get(row) for turn in found]
        if any(each and each.mean for each in its):
            more = [_waits(each.waits if each else {}) for each in its]
            parts.append(
                _part(row, ROW_TITLES[row], [each.mean if each else 0 for each in its], more)
            )
    return parts


def _waits(waits: Mapping[Any, float]) -> list[list[str]]:
    titles: Mapping[str, str] = {str(cause): text for cause, text in CAUSE_TITLES.items()}
    return [[f"waits {titles[cause]}", f"{us / 1e3:.2f} ms"] for cause, us in waits.items()]


def _by_cause(found: list[Turn]) -> list[dict[str, Any]]:
    parts = []
    waited = [0.0] * len(found)
    for cause, text in CAUSE_TITLES.items():
        us = [_waited(turn, cause) for turn in found]
        waited = [before + now for before, now in zip(waited, us, strict=True)]
        if any(us):
            parts.append(_part(cause, f"waits {text}", us))
    rest = [max(0.0, turn.mean - us) for turn, us in zip(found, waited, strict=True)]
    return [*parts, _part("working", "does not wait", rest)]


def _waited(turn: Turn, cause: str) -> float:
    """How long a turn's host waits for a cause in all its rows, us."""
    return sum(us for row in turn.rows.values() for name, us in row.waits.items() if name == cause)
