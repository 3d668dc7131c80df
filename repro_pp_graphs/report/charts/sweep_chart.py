"""A sweep as lines over the load: a colour a case, dots the launches, the line their mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.summary import sweep
from repro_pp_graphs.report.tables import sweep_table, sweep_waits


def loads(source: Source) -> Figure | None:
    """TPOT, token return and idle part over the load; None without a sweep."""
    if source.summary is None or not source.summary.sweep:
        return None
    summary = msgspec.to_builtins(source.summary)
    metrics = sweep.figures(summary, list(sweep.FIGURES))
    table = sweep_table.table(summary)
    if not metrics or table is None:
        return None
    grid = _grid(summary)
    return Figure(
        id="loads",
        title="Over the load",
        caption="A line a case, through the means of its launches, which are the dots. All loads "
        "of a launch are measured on one server, one after another. Where two things vary, dashes "
        "are the values of the second. A mean names the longest wait of a turn under its load: "
        "the rank, its call, the rank it waits for.",
        alt=f"{len(summary['sweep'])} loads by {', '.join(sweep.FIGURES[key] for key in metrics)}; "
        "the table has every mean.",
        data={
            "choose": "Figure",
            "along": list(grid.along),
            "choices": [_choice(source, summary, metric, grid) for metric in metrics],
        },
        table=table,
    )


class _Grid(NamedTuple):
    """Where a load is drawn: its place along the first axis that varies, its dash by the rest."""

    axis: str
    along: dict[str, int]  # title of a value -> place
    groups: dict[str, int]  # title of the rest -> dash

    def place(self, load: dict[str, Any]) -> tuple[int, int]:
        """The place and the dash of a load."""
        value, rest = _parts(load, self.axis)
        return self.along[value], self.groups[rest]


def _grid(summary: dict[str, Any]) -> _Grid:
    loads_ = [each["load"] for each in summary["sweep"]]
    axes = list(loads_[0]["point"])
    varied = (axis for axis in axes if len({load["point"][axis] for load in loads_}) > 1)
    axis = next(varied, axes[0])
    ordered = sorted(loads_, key=lambda load: _size(load["point"][axis]))
    along = dict.fromkeys(_parts(load, axis)[0] for load in ordered)
    groups = dict.fromkeys(_parts(load, axis)[1] for load in loads_)
    return _Grid(axis, _numbered(along), _numbered(groups))


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: number for number, name in enumerate(names)}


def _size(value: str) -> float:
    """A value of an axis as a number; of 4000@2 the rate."""
    text = value.rpartition("@")[2]
    return float(text) if text.replace(".", "", 1).isdigit() else 0.0


def _parts(load: dict[str, Any], axis: str) -> tuple[str, str]:
    """The title of a load's value on an axis, and that of the rest: `batch 8`, `input 4000`."""
    parts = dict(zip(load["point"], load["title"].split(", "), strict=True))
    return parts.pop(axis), ", ".join(parts.values())


def _choice(source: Source, summary: dict[str, Any], metric: str, grid: _Grid) -> dict[str, Any]:
    """One figure: the lines and dots of every case."""
    cases = {one.case: one.summary.case for one in source.launches}
    lines, points = [], []
    waits = sweep_waits.named(summary)
    for number, case in sorted(cases.items()):
        means: dict[str, list[tuple[int, float, str]]] = {}
        for each in summary["sweep"]:
            load = each["load"]
            at, rest = grid.place(load)[0], _parts(load, grid.axis)[1]
            mean = sweep.means(summary, load["name"])[case].get(metric)
            if mean is not None:
                why = waits.cells[load["name"], case]
                means.setdefault(rest, []).append((at, round(mean, 5), why))
            points += [
                {"case": number, "at": at, "name": f"{label}, {load['title']}", "value": value}
                for label, value in _launches(summary, case, load["name"], metric)
            ]
        for rest, line in means.items():
            name = ", ".join(filter(None, [source.cases[number], rest]))
            how = {"name": name, "case": number, "dash": grid.groups[rest]}
            placed = sorted(line)
            lines.append({**how, "points": [[at, ms] for at, ms, _ in placed]})
            lines[-1]["waits"] = [why for *_, why in placed]
    shown = {"key": metric, "title": sweep.FIGURES[metric], "waits": waits.title}
    return {**shown, "lines": lines, "points": points}


def _launches(
    summary: dict[str, Any], case: str, load: str, metric: str
) -> Iterator[tuple[str, float]]:
    """The label and the value of each launch of a case that measured a load."""
    for row in summary["launches"]:
        found = sweep.values(row, load)
        if row["case"] == case and metric in found:
            yield row["label"], round(found[metric], 5)
