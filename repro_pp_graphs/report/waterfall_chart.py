"""Why a case's decode step is longer than the first case's: the difference as a waterfall."""

from __future__ import annotations

from typing import Any

import msgspec

from repro_pp_graphs.report.figure import Figure
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables import Table
from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.facts import RingPath
from repro_pp_graphs.traces.path import difference_words
from repro_pp_graphs.traces.path.compare import Difference, Differences, differences

ROW_PX, FOOT_PX = 34, 50
WHOLE = "the whole step"


class Compared(msgspec.Struct, kw_only=True):
    """The steps of two cases, A and B: their names, their launches' paths, B less A."""

    a: str
    b: str
    a_paths: list[RingPath]
    b_paths: list[RingPath]
    found: Differences


def compared(source: Source) -> list[Compared]:
    """The first case whose critical path is known against each of the others."""
    paths: dict[int, list[RingPath]] = {}
    for case, each in source.all_explained():
        if each.analysis and each.analysis.ring_path:
            paths.setdefault(case, []).append(each.analysis.ring_path)
    known = sorted(paths)
    return [
        Compared(
            a=source.cases[known[0]],
            b=source.cases[case],
            a_paths=paths[known[0]],
            b_paths=paths[case],
            found=differences(paths[known[0]], paths[case]),
        )
        for case in known[1:]
    ]


def sentences(source: Source) -> list[str]:
    """What the differences are made of, a sentence each."""
    return [difference_words.sentence(each.a, each.b, each.found) for each in compared(source)]


def difference(source: Source) -> Figure | None:
    """The difference of two cases' decode steps, category by category."""
    pairs = compared(source)
    if not pairs:
        return None
    choices = [_choice(str(at), pair) for at, pair in enumerate(pairs)]
    most = max(len(choice["rows"]) for choice in choices)
    data = {"bars": [], "choices": choices, "height": FOOT_PX + ROW_PX * most}
    first = pairs[0]
    return Figure(
        id="difference",
        title="Why a decode step is longer or shorter",
        caption="B less A, by what the step waits for on its way round: each bar begins where the "
        "one above ends, the last is their sum. Lines: 95 % intervals "
        f"{difference_words.OVER[first.found.over]}. Means while profiled.",
        alt=" ".join(difference_words.sentence(each.a, each.b, each.found) for each in pairs),
        data={**data, "choose": "B less A"} if len(choices) > 1 else data,
        table=_table(pairs),
    )


def _choice(key: str, pair: Compared) -> dict[str, Any]:
    """The rows of one pair: each from where the one before ended, ms."""
    rows, at = [], 0.0
    for name, title in TITLES.items():
        part = pair.found.categories[name]
        if any(path.categories[name].mean for path in (*pair.a_paths, *pair.b_paths)):
            rows.append(_row(title, part, at))
            at += part.mean
    rows.append({**_row(WHOLE, pair.found.step, 0.0), "whole": True})
    return {"key": key, "title": f"{pair.b} less {pair.a}", "rows": rows, "points": []}


def _row(title: str, part: Difference, begin_us: float) -> dict[str, Any]:
    row = {
        "title": title,
        "from": _ms(begin_us),
        "value": _ms(part.mean),
        "sure": difference_words.is_sure(part),
    }
    if part.low is None or part.high is None:
        return row
    ends = [_ms(begin_us + part.low), _ms(begin_us + part.high)]
    return {**row, "interval": ends, "text": f"{_ms(part.low):+.2f} to {_ms(part.high):+.2f} ms"}


def _ms(us: float) -> float:
    return round(us / 1e3, 4)


def _table(pairs: list[Compared]) -> Table:
    rows = []
    for name, title in TITLES.items():
        parts = [pair.found.categories[name] for pair in pairs]
        if any(part.mean for part in parts):
            rows.append([title, *map(_cell, parts)])
    rows.append([WHOLE, *(_cell(pair.found.step) for pair in pairs)])
    heads = [f"{pair.b} less {pair.a}" for pair in pairs]
    over = difference_words.OVER[pairs[0].found.over]
    return Table(head=["ms of a step", *heads], rows=rows, note=f"\u00b1: 95 % {over}.")


def _cell(part: Difference) -> str:
    return f"{part.mean / 1e3:+.2f} \u00b1 {difference_words.half_width(part)}"


def table(source: Source) -> Table | None:
    """The differences as a table; None where there are none."""
    pairs = compared(source)
    return _table(pairs) if pairs else None
