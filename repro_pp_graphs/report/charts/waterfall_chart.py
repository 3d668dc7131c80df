"""Why one case's decode step is longer than another's: the difference as a waterfall."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import msgspec

from repro_pp_graphs.report.case_differences import alike, between_cases
from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables.page_tables import (
    first_explained,
    measured,
    of_launches,
    unprofiled_tpot_ms,
)
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.stats.metric_names import MARGIN
from repro_pp_graphs.traces.analysis_record import RingPath
from repro_pp_graphs.traces.commands.case_pairs import ANOTHER, pairs, with_graphs
from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.path import difference_words, host_speed
from repro_pp_graphs.traces.path.alike import split_otherwise
from repro_pp_graphs.traces.path.alike import unlike as not_comparable
from repro_pp_graphs.traces.path.difference import Difference, Differences, differences

ID = "difference"
TITLE = "Why a decode step is longer or shorter"
ROW_PX, FOOT_PX = 34, 50
WHOLE = "the whole step"


class Compared(msgspec.Struct, kw_only=True):
    """The steps of two cases, A and B: their names, their letters (or 1st, 2nd), their launches'
    paths, B less A. `noise`: why their difference is nothing but that; empty where it may be more.
    `split`: that their decode steps were of other sizes. `uneven`: of one launch each, that their
    hosts were not equally fast. `aside`: of a rehearsal,
    what its difference is worth; empty on GPUs.
    """

    a: str
    b: str
    marks: tuple[str, str]
    a_paths: list[RingPath]
    b_paths: list[RingPath]
    found: Differences
    launches: str  # of which launches it is; empty where it is of all
    aside: str = ""
    noise: str = ""
    split: str = ""
    uneven: str = ""
    otherwise: str = ""  # that TPOT of the measured pass differs the other way round
    unlike: str = ""  # why they cannot be compared

    def less(self) -> str:
        """`graphs_off (B) less graphs_on (A)`"""
        both = zip((self.a, self.b), self.marks, strict=True)
        a, b = (name if name.endswith(mark) else f"{name} ({mark})" for name, mark in both)
        return f"{b} less {a}"


def compared(source: Source) -> list[Compared]:
    """The cases that `analyze` holds against one another, of those whose critical path is known."""
    paths: dict[int, list[RingPath]] = {}
    labels: dict[int, list[str]] = {}
    for case, each in source.all_explained():
        if each.analysis and each.analysis.ring_path:
            paths.setdefault(case, []).append(each.analysis.ring_path)
            labels.setdefault(case, []).append(each.name)
    firsts = {
        case: each.analysis
        for case, each in first_explained(source)
        if each.analysis and case in paths
    }
    unlike = between_cases(source)
    found = []
    for at_a, at_b in pairs(list(firsts.values())):
        a, b = list(firsts)[at_a], list(firsts)[at_b]
        graphs = [with_graphs(firsts[case]) for case in (a, b)]
        one_each = len(paths[a]) == len(paths[b]) == 1
        names = source.cases[a], source.cases[b]
        equal = source.plan and graphs[0] == graphs[1] and alike(unlike, a, b, graphs[0])
        found.append(
            Compared(
                a=source.cases[a],
                b=source.cases[b],
                marks=difference_words.marks(firsts[a].case, firsts[b].case),
                a_paths=paths[a],
                b_paths=paths[b],
                found=differences(paths[a], paths[b]),
                launches=_of_some(source, {case: labels[case] for case in (a, b)}),
                aside=_aside(source, one_each),
                noise=("all with graphs" if graphs[0] else "all without graphs") if equal else "",
                unlike="; ".join(not_comparable(firsts[a], firsts[b]).refused),
                split="; ".join(split_otherwise(firsts[a], firsts[b])),
                uneven=host_speed.unequal(names[0], firsts[a], names[1], firsts[b])
                if one_each
                else "",
                otherwise=_otherwise(source, a, b, differences(paths[a], paths[b]).step.mean),
            )
        )
    return found


def _otherwise(source: Source, a: int, b: int, longer_us: float) -> str:
    """That TPOT of the measured pass, of two cases by index, differs in the other direction than
    their profiled steps; empty where it does not, or by less than MARGIN, or is not known."""
    tpots = unprofiled_tpot_ms(source)
    of_case = [
        [tpots[one.summary.label] for one in source.launches if one.case == case]
        for case in (a, b)
        if all(one.summary.label in tpots for one in source.launches if one.case == case)
    ]
    if len(of_case) < 2 or not all(of_case):
        return ""
    first, second = map(fmean, of_case)
    if abs(second / first - 1) < MARGIN or (second > first) == (longer_us > 0):
        return ""
    return (
        f"In the measured pass it is the other way round: mean TPOT {number(first)} ms in "
        f"{source.cases[a]}, {number(second)} in {source.cases[b]}. The steps followed here are "
        "profiled ones, and none in which the micro-batch itself prefills: what prefills, their "
        "chunks or another moment of the host add to TPOT may not be in them."
    )


def _aside(source: Source, one_each: bool) -> str:
    """What a difference in a rehearsal is worth; empty on GPUs."""
    if not (source.summary and source.summary.rehearsal):
        return ""
    if one_each:
        return "A rehearsal on a CPU, one launch each: take this difference as noise."
    return "A rehearsal on a CPU: this difference says nothing of GPUs."


def _of_some(source: Source, labels: dict[int, list[str]]) -> str:
    """Of which launches a difference is, where a case was measured in more; else empty."""
    if all(len(its) >= measured(source, case) for case, its in labels.items()):
        return ""
    its = [label for each in labels.values() for label in each]
    return f"Of {of_launches(its)} alone: of other launches no step's path is known."


def sentences(source: Source) -> list[str]:
    """What the differences are made of, a sentence each."""
    return [_sentence(each) for each in compared(source)]


def _sentence(pair: Compared) -> str:
    if pair.unlike:
        return f"{pair.a} and {pair.b} are not comparable: {pair.unlike}."
    if not pair.noise:
        said = difference_words.sentence(pair.a, pair.b, pair.found)
        split = f"They have {pair.split}. A part of the difference may be that." * bool(pair.split)
        return " ".join(
            filter(None, (pair.aside, said, split, pair.otherwise, pair.uneven, pair.launches))
        )
    return (
        f"{pair.a} and {pair.b} ran the same server, {pair.noise}: that {pair.b}'s decode steps "
        f"are {difference_words.longer(pair.found.step)} while profiled is noise. "
        f"{pair.launches}"
    ).rstrip()


def _explained(source: Source) -> list[Compared]:
    """The pairs whose difference can come from what differs between them."""
    return [pair for pair in compared(source) if not (pair.noise or pair.unlike)]


def difference(source: Source) -> Figure | None:
    """The difference of two cases' decode steps, category by category."""
    pairs = _explained(source)
    if not pairs:
        return None
    choices = [_choice(str(at), pair) for at, pair in enumerate(pairs)]
    most = max(len(choice["rows"]) for choice in choices)
    data = {"bars": [], "choices": choices, "height": FOOT_PX + ROW_PX * most}
    first = pairs[0]
    partly = " ".join(_asides(pairs))
    which = f"{first.less()}, by" if len(pairs) == 1 else "By"
    return Figure(
        id=ID,
        title=TITLE,
        caption=f"{which} what the step waits for on its way round: each bar begins where the one "
        "above ends, the last is their sum. Lines: 95 % intervals "
        f"{_over(pairs)}. Means while profiled. {partly}".rstrip(),
        alt=" ".join(map(_sentence, pairs)),
        data={**data, "choose": "Cases"} if len(choices) > 1 else data,
        table=_table(pairs, len(source.cases) > 2),
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
    longer, shorter = pair.marks[::-1]
    return {
        **{"key": key, "title": pair.less(), "rows": rows, "points": []},
        **{"less": f"{longer} less {shorter}", "second": longer},
    }


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


def _table(pairs: list[Compared], several: bool) -> Table:
    rows = []
    for name, title in TITLES.items():
        parts = [pair.found.categories[name] for pair in pairs]
        if any(part.mean for part in parts):
            rows.append([title, *map(_cell, parts)])
    rows.append([WHOLE, *(_cell(pair.found.step) for pair in pairs)])
    heads = [pair.less() for pair in pairs]
    note = f"\u00b1: 95 % {_over(pairs)}."
    note += "".join(f" {text}" for text in _asides(pairs))
    note += f" {ANOTHER[0].upper()}{ANOTHER[1:]}." if several else ""
    return Table(head=["ms of a step", *heads], rows=rows, note=note)


def _asides(pairs: list[Compared]) -> list[str]:
    """What to know of the pairs, each once."""
    return list(dict.fromkeys(t for pair in pairs for t in (pair.aside, pair.launches) if t))


def _over(pairs: list[Compared]) -> str:
    """What the pairs' intervals are over; pairs with one launch of each case may stand beside
    others."""
    found = {pair.found.over for pair in pairs}
    if len(found) == 1:
        return difference_words.OVER[found.pop()]
    alone = difference_words.OVER["steps"]
    return f"{difference_words.OVER['launches']}, of cases with one launch each {alone}"


def _cell(part: Difference) -> str:
    return f"{part.mean / 1e3:+.2f} \u00b1 {difference_words.half_width(part)}"


def table(source: Source) -> Table | None:
    """The differences as a table; None where there are none."""
    pairs = _explained(source)
    return _table(pairs, len(source.cases) > 2) if pairs else None
