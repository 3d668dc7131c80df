"""The table of a sweep: for the terminal, and for report.md and report.html."""

from __future__ import annotations

from collections import Counter
from typing import Any

from repro_pp_graphs.report.launch_row import cases_of, name
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import sweep
from repro_pp_graphs.report.tables import sweep_waits
from repro_pp_graphs.report.tables.launch_table import marked
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.stats.compare import spread
from repro_pp_graphs.stats.metric_names import IDLE

_NAME, _CELL = 28, 12


def lines(summary: dict[str, Any]) -> list[str]:
    """A block a figure: a row a load, a column a case, and the ratio where there is an interval."""
    if not summary.get("sweep"):
        return []
    cases = cases_of(summary["launches"])
    shown = sweep.figures(summary, sweep.SHOWN)
    found = _head(summary, cases) if shown else []
    for metric in shown:
        ratios = sweep.ratios(summary, metric)
        found.append(sweep.FIGURES[metric])
        for each in summary["sweep"]:
            load = each["load"]
            means = sweep.means(summary, load["name"])
            title = f"  {load['title']}"
            short = title if len(title) < _NAME else f"{title[: _NAME - 4]}..."
            cells = (f"{number(means[case].get(metric)):>{_CELL}}" for case in cases)
            text = f"{short:<{_NAME}}{''.join(cells)}"
            # of more cases there is no room: report.md has them
            ratio = _ratio(ratios.get((load["name"], cases[1]))) if len(cases) == 2 else ""
            found.append(f"{text}  {ratio}".rstrip())
    return found + sweep_waits.lines(summary)


def _head(summary: dict[str, Any], cases: list[str]) -> list[str]:
    names = (f"{name(summary, case)[: _CELL - 1]:>{_CELL}}" for case in cases)
    title = f"{count_of(summary)} by load"
    title = title if len(title) < _NAME else title.removeprefix("means of ")
    return [f"{title:<{_NAME}}{''.join(names)}"]


def count_of(summary: dict[str, Any]) -> str:
    """`means of 4 launches`, or `one launch a case`."""
    ok = Counter(row["case"] for row in summary["launches"] if row["status"] == "ok")
    several = max(ok.values(), default=0) > 1
    return f"means of {spread(ok.values())} launches" if several else "one launch a case"


def _ratio(found: dict[str, Any] | None) -> str:
    return marked(found) if found else ""


def _families(summary: dict[str, Any]) -> str:
    """Over how many tests words are corrected."""
    loads, others = len(summary["sweep"]), len(summary["sweep"][0]["pairs"])
    others -= bool(summary["verdict"]["findings"])  # the question's own pair
    text = f"{loads} loads"
    if others > 1:
        text += f"; pairs of cases besides the question's: {loads} loads x {others} pairs"
    return text


def notes(summary: dict[str, Any]) -> list[str]:
    """What to know of the table, in sentences."""
    if not summary.get("sweep"):
        return []
    main, found = summary["sweep"][0]["load"]["title"], []
    several = len(summary["sweep"]) > 1
    if several and any(sweep.ratios(summary, metric) for metric in sweep.SHOWN):
        found.append(
            f"The verdict is on {main}, the main load; words of the others are corrected for their "
            f"number (Holm, {_families(summary)})."
        )
    own = sweep.traced(summary)
    if several and any(row.get("trace_bytes") for row in summary["launches"]) and not own:
        found.append(
            f"Only the main load, {main}, was profiled: it alone has traces (--profile-loads)."
        )
    figures = sweep.figures(summary, list(sweep.FIGURES))
    if IDLE not in figures:
        found.append(
            "The idle part of the token return: cannot tell. It takes the ranks' clocks (pp_clock) "
            "on GPUs, one a rank."
        )
    found += sweep.most_idle(summary) + (sweep_waits.largest(summary) if several else [])
    return found + own + sweep.partial(summary)


def table(summary: dict[str, Any]) -> Table | None:
    """A row a load below a row that names the figure; a column a case, and where any figure has
    intervals the ratios."""
    if not summary.get("sweep"):
        return None
    cases = cases_of(summary["launches"])
    shown = sweep.figures(summary, sweep.SHOWN)
    ratios = {each: sweep.ratios(summary, each) for each in shown if each in sweep.COMPARED}
    known = {case for found in ratios.values() for _, case in found}
    compared = [case for case in cases[1:] if case in known]
    names = [name(summary, case) for case in cases]
    head = [count_of(summary), *names]
    head += [f"{names[0]} / {name(summary, case)}" for case in compared]
    rows = []
    for metric in shown:
        rows.append([sweep.FIGURES[metric], *[""] * (len(head) - 1)])
        for each in summary["sweep"]:
            load = each["load"]
            means = sweep.means(summary, load["name"])
            cells = [number(means[case].get(metric)) for case in cases]
            found = ratios.get(metric, {})
            cells += [_ratio(found.get((load["name"], case))) for case in compared]
            rows.append([load["title"], *cells])
    legend = "* different, ? borderline, = no difference that matters." * bool(compared)
    return Table(head=head, rows=rows, note=legend)
