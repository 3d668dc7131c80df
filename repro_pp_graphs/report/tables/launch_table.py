"""One table for all launches of a run, at most 80 columns wide."""

from __future__ import annotations

import re
from typing import Any

from repro_pp_graphs.launch_record import NOT_BEGUN
from repro_pp_graphs.report.launch_row import Row, cases_of, ended, is_measured, name
from repro_pp_graphs.report.number_words import number, times
from repro_pp_graphs.report.tables import clock_values, ratio_cells, state_rows
from repro_pp_graphs.stats.metric_names import CLIENT, CONTROL, OUTSIDE

_NAME, _CELL, _ABREAST = 23, 8, 4
_WIDE = 14  # a column a case, where there is one round
_MOST_WIDE = 3

METRICS = tuple(  # title, name among a launch's metrics, better
    (f"{each.title} {each.unit}".rstrip(), name, each.better) for name, each in CLIENT.items()
)
# where it was measured: what decode graphs cannot change
ALONE = ("TTFT alone ms", CONTROL, "lower")
OF_TURNS = "turns, waits and sends: means of decode turns, unless the row says otherwise"
# means of the profile pass: the last rank's token send to rank 0 (docs/traces.md)
SENDS = (
    ("token send profiled ms", "host", ""),
    ("  until last byte ms", "sent", ""),
    ("  under own graph ms", "under_graph", ""),
    ("  no compute ms", "idle", ""),
)
# of all turns of the measured pass (docs/pp_clock.md); where there are several rounds, the first
CLOCK = tuple((title, path, "") for title, path in clock_values.ROWS)
CLOCK_ROUNDS = {  # path, and a title that stands without the rows above it
    "waits_ms.mean": "last rank's waits ms",
    "waits_outside_ms.mean": "  outside own batch ms",
    "token_send_ms.mean": "token send measured ms",
    "exchange_ms.mean": "batch measured ms",
}
MARKS = {"DIFFERENT": "*", "BORDERLINE": "?", "NO DIFFERENCE LARGER THAN": "="}
_SHORT = {
    "interrupted": "interr.",
    "unreadable": "unread.",
    NOT_BEGUN: "unbegun",
}  # of a status, in a narrow cell


def lines(summary: dict[str, Any]) -> list[str]:
    """The table: of one round a column a case, of more a row a case and a column a round. Where
    nothing was measured only what is known of the servers; empty where that is nothing."""
    launches = [row for row in summary["launches"] if row["status"] != "not run"]
    cases = cases_of(launches)
    if not launches:
        return []
    rounds = sorted({row["round"] for row in launches})
    launches.sort(key=lambda row: cases.index(row["case"]))
    if len(rounds) == 1:
        blocks = _blocks(launches)
        return _joined([_one_round(summary, launches, block) for block in blocks])
    return [*_all_rounds(summary, launches, cases, rounds), *_crossed(summary)]


def _value(row: Row, key: str) -> float | None:
    profiled = row.get("token_send_ms", {}) if row["status"] == "ok" else {}
    found: float | None = {**row["metrics"], **profiled}.get(key)
    return clock_values.value(row.get("pp_clock"), key) if found is None else found


def _cell(row: Row | None, key: str, width: int) -> str:
    """The value of a launch, or how it ended where it has none."""
    if row is None:
        return "-"
    if not is_measured(row):
        status = ended(row)
        return status if len(status) < width else _SHORT.get(status, status)
    value = _value(row, key)
    return times(value) if key in clock_values.RATIOS else number(value)


def _measured(launches: list[Row], rounds: int = 1) -> list[tuple[str, str, str]]:
    """The metrics, and of the clock and the sends what any launch has; none where nothing was
    measured: every cell would say how a launch ended."""
    if not any(map(is_measured, launches)):
        return []
    clock = list(CLOCK)
    if rounds > 1:
        clock = [(title, path, "") for path, title in CLOCK_ROUNDS.items()]
    more = [ALONE, *clock, *SENDS]
    return [*METRICS, *(each for each in more if any(_value(row, each[1]) for row in launches))]


def _has_turns(launches: list[Row]) -> bool:
    return any(_value(row, each[1]) for row in launches for each in (*CLOCK, *SENDS))


def _blocks(launches: list[Row]) -> list[list[Row]]:
    """Launches that stand beside one another; the first, which others are held against, in each
    block."""
    first, others = launches[0], launches[1:]
    step = _MOST_WIDE - 1
    return [[first, *others[at : at + step]] for at in range(0, max(1, len(others)), step)]


def _joined(blocks: list[list[str]]) -> list[str]:
    """Blocks below one another, an empty line between two."""
    return [line for n, block in enumerate(blocks) for line in [""] * bool(n) + block]


def _one_round(summary: dict[str, Any], launches: list[Row], block: list[Row]) -> list[str]:
    """The rows of all launches, with a column for each of the block."""
    heads = [_in_lines(name(summary, row["case"])) for row in block]
    deep = max(map(len, heads))
    heads = [[""] * (deep - len(head)) + head for head in heads]
    top = [" " * _NAME + "".join(f"{head[at]:>{_WIDE}}" for head in heads) for at in range(deep)]
    figures, found = _measured(launches), []
    top[-1] += "   better" * bool(figures)
    for at, (title, key, better) in enumerate(figures):  # how a launch ended stands once
        said = [_cell(row if is_measured(row) or not at else None, key, _WIDE) for row in block]
        cells = "".join(f"{text:>{_WIDE}}" for text in said)
        found.append(f"{title:<{_NAME}}{cells}" + (f"   {better}" if better else ""))
    nothing = {"-"} if figures else {"-", state_rows.NOT_TRACED}
    for title, text in state_rows.of_run(summary):
        if any(text(row) not in nothing for row in launches):
            found.append(f"{title:<{_NAME}}" + "".join(f"{text(row):>{_WIDE}}" for row in block))
    last = block[-1] is launches[-1]
    found += [f"({OF_TURNS})"] if figures and last and _has_turns(launches) else []
    return [line.rstrip() for line in (*top, *found)] if found else []


def _in_lines(case: str) -> list[str]:
    """A case's name in as many lines as its column needs, between words where it can."""
    lines, most = [""], _WIDE - 1
    for word in re.findall(r"[^_]*_?", case):
        lines += [""] * bool(lines[-1] and len(lines[-1] + word.rstrip("_")) > most)
        lines[-1] += word
    return [line[at : at + most] for line in lines for at in range(0, max(1, len(line)), most)]


def _all_rounds(
    summary: dict[str, Any], launches: list[Row], cases: list[str], rounds: list[int]
) -> list[str]:
    by_place = {(row["case"], row["round"]): row for row in launches}
    ratios, unlike = _ratios(summary), ratio_cells.unlike_launches(summary)
    found = []
    for title, key, better in _measured(launches, len(rounds)):
        head = f"{title}, {better}" if better else title
        has_ratio = any((key, case) in ratios for case in cases)
        found.append(_head(head, rounds, f"{cases[0]} / this" if has_ratio else ""))
        for case in cases:
            its = [by_place.get((case, number_)) for number_ in rounds]
            cells = [
                _cell(row, key, _CELL) + "^" * ((key, row and row["label"]) in unlike)
                for row in its
            ]
            found += _wrapped(name(summary, case), cells, rounds, ratios.get((key, case), ""))
    if found:
        found += ("lower, higher: which is better" + _legend(summary) * bool(ratios)).split("\n")
        found += ["^ unlike the others, but counted"] if unlike else []
        found += [f"({OF_TURNS})"] if _has_turns(launches) else []
    found += state_rows.by_case(summary, launches, cases)
    return [line.rstrip() for line in found]


def _head(title: str, rounds: list[int], ratio: str) -> str:
    columns = "".join(f"{f'r{each}':>{_CELL}}" for each in rounds[:_ABREAST])
    return f"{title:<{_NAME}}{columns}" + (f"  {ratio:>20}" if ratio else "")


def _wrapped(case: str, cells: list[str], rounds: list[int], ratio: str) -> list[str]:
    """A case's cells, so many rounds a line; the ratio on the first."""
    found = []
    for start in range(0, len(cells), _ABREAST):
        part = cells[start : start + _ABREAST]
        last = rounds[min(start + _ABREAST, len(rounds)) - 1]
        title = f"  {case}" if not start else f"    r{rounds[start]} to r{last}"
        short = title if len(title) < _NAME else f"{title[: _NAME - 4]}..."
        text = f"{short:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in part)
        if not start and ratio:
            text += " " * (_CELL * (_ABREAST - len(part)) if len(rounds) > _ABREAST else 0)
            text += f"  {ratio}"
        found.append(text)
    return found


def marked(compared: dict[str, Any]) -> str:
    """`0.949 [0.934, 0.964] *`: an estimate with its interval, and the mark of its word."""
    estimate = compared["estimate"]
    ends = f"[{estimate['low']:.3f}, {estimate['high']:.3f}]"
    return f"{estimate['value']:.3f} {ends} {MARKS.get(compared['word'], '')}".rstrip()


def _ratios(summary: dict[str, Any]) -> dict[tuple[str, str], str]:
    """By metric and case the ratio of the first case to it, with interval and mark; none in a
    rehearsal, whose arms are alike."""
    verdict = summary.get("verdict")
    if not verdict or summary["rehearsal"]:
        return {}
    found = {}
    first = cases_of(summary["launches"])[0]
    for pair in verdict["pairs"]:
        for each in pair["comparisons"]:
            if each["estimate"] and pair["a"] == first:
                found[each["metric"], pair["b"]] = marked(each)
    return found


def _crossed(summary: dict[str, Any]) -> list[str]:
    """Of a 2 x 2, a line a metric: what graphs change with either way to send, and the ratio of
    the two; none in a rehearsal."""
    verdict = summary.get("verdict") or {}
    found = [] if summary["rehearsal"] else verdict.get("interactions", [])
    titles = {key: title for title, key, _ in METRICS} | {OUTSIDE: "waits outside own work ms"}
    out: list[str] = []
    for each in found:
        if each["estimate"] is None:
            continue
        if not out:
            titled = "".join(f"{title:>10}" for title in ("released", "blocking"))
            out.append(f"{'graphs on / off':<27}{titled}  {'blocking / released':>20}")
        ratios = f"{each['ratio']:>10.3f}{each['ratio_blocking']:>10.3f}"
        title = titles.get(each["metric"], each["metric"])
        out.append(f"  {title:<25}{ratios}  {marked(each)}")
    return out


def _legend(summary: dict[str, Any]) -> str:
    pairs = (summary.get("verdict") or {}).get("pairs")
    if not pairs:
        return ""
    pair = pairs[0]
    margin = f"{100 * pair['comparisons'][0]['margin']:.2g} %"
    return (
        f"; [] {100 * (1 - pair['alpha']):.3g} % interval: * different, ? borderline,\n"
        f"= no difference larger than {margin}, unmarked: cannot tell"
    )
