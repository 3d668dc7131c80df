"""report.md: the report for an issue, as GitHub renders it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from repro_pp_graphs.report.charts import waterfall_chart
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.page import commands
from repro_pp_graphs.report.page.content import ISSUE, MOST_REMARKS, Command, Content, arms_title
from repro_pp_graphs.report.tables.table import Table

MOST_BEFORE = 56  # lines before the details
LEAST_REMARKS = 2  # the gravest stand before the details, however long the rest is
MOST_DIFFERENCES = 4  # the table has the others
STEP_TABLE = "What a decode step waits for, one case less another"
WHAT_IFS = "How long a decode step would be at least, if ..."
_SPECIAL = re.compile(r"([\\`*\[\]<|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_FIRST = re.compile(r"^(?:(\d+)([.)])(?=\s|$)|([-+=>]|#{1,6}(?=\s|$)))")
_REFERENCE = re.compile(r"(?<=@)(?=\w)|(?<=#)(?!10865\b)(?=\d)")  # mentions and issues, but ours


def plain(text: str) -> str:
    """A text that stays text: nothing in it is markup, a mention or a break of the line."""
    shown = "".join(" " if not each.isprintable() else each for each in text)
    flat = _SPECIAL.sub(r"\\\1", " ".join(shown.split()))
    flat = _FIRST.sub(lambda m: f"{m[1]}\\{m[2]}" if m[1] else f"\\{m[3]}", flat)
    return _REFERENCE.sub("\u200b", flat)


def rows(table: Table) -> list[str]:
    """A table; numbers to the right."""
    head = "| " + " | ".join(plain(each) or " " for each in table.head) + " |"
    rule = "|:--|" + "--:|" * (len(table.head) - 1)
    body = ["| " + " | ".join(map(plain, row)) + " |" for row in table.rows]
    note = ["", f"<sub>{plain(table.note)}</sub>"] if table.note else []
    return [head, rule, *body, *note]


def folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines below a title that opens on a click."""
    return ["<details>", f"<summary>{plain(title)}</summary>", "", *lines, "", "</details>", ""]


def text_of(content: Content) -> str:
    """The whole report.md."""
    lines = [f"# {plain(content.headline)}", "", plain(content.what)]
    lines += [f"#10865 is {ISSUE}.", ""] if "#10865" in content.headline else [""]
    lines += [f"- {plain(each)}" for each in content.lead]
    lines += [""] if content.lead else []
    for each in content.warnings:
        lines += [f"> **Warning:** {plain(each)}", ""]
    if content.arms:
        lines += [f"## {arms_title(content)}", "", *rows(content.arms), ""]
    if content.crossed:
        lines += ["## Graphs by sends", "", *rows(content.crossed), ""]
    if content.step_differences:
        lines += [f"## {waterfall_chart.TITLE}", ""]
        lines += [f"- {plain(each)}" for each in content.step_differences[:MOST_DIFFERENCES]]
        more = len(content.step_differences) - MOST_DIFFERENCES
        lines += [f"- and {more} more: *{STEP_TABLE}*, below"] if more > 0 else []
        lines += [""]
    if content.swept:
        lines += ["## Over the load", "", *rows(content.swept), ""]
        lines += [*(rows(content.swept_waits) if content.swept_waits else []), ""]
        lines += [*(f"- {plain(each)}" for each in content.swept_notes), ""]
    if shown := content.timed or content.turns:
        lines += ["## What a turn of each rank's host is made of", "", *rows(shown), ""]
    short, rest = content.remarks[:MOST_REMARKS], content.remarks[MOST_REMARKS:]
    room = max(LEAST_REMARKS, MOST_BEFORE - len(lines) - 4)
    if len(short) > room:
        short, rest = content.remarks[:room], content.remarks[room:]
    if short:
        lines += ["## To know", "", *(f"- {plain(each)}" for each in short), ""]
    return "\n".join([*lines, *_details(content, rest)]).rstrip("\n") + "\n"


def _details(content: Content, remarks: list[str]) -> Iterator[str]:
    if remarks:
        yield from folded("More remarks", [f"- {plain(each)}" for each in remarks])
    if content.step_table:
        yield from folded(STEP_TABLE, rows(content.step_table))
    if content.timed and content.turns:
        yield from folded("What a turn is made of while profiled", rows(content.turns))
    if content.what_ifs:
        yield from folded(WHAT_IFS, rows(content.what_ifs))
    for said in content.explained:
        text = "\n\n".join(map(plain, said.paragraphs))
        yield from folded(f"What the traces of {said.name} say", text.splitlines())
    if content.untraced:
        yield from folded("No traces, no what-ifs", [plain(content.untraced)])
    if content.differing:
        yield from folded("What the cases ran with that differs", rows(content.differing))
    if content.environment or content.changed:
        number = len(content.changed or [])
        title = "Environment" + f", {count(number, 'change')} during the run" * bool(number)
        yield from folded(title, _environment(content))
    if content.commands:
        yield from folded("Commands", _commands(content.commands))


def _environment(content: Content) -> list[str]:
    table = Table(head=["", ""], rows=[[key, value] for key, value in content.environment])
    lines = rows(table) if content.environment else []
    if content.changed:
        lines += ["", "Changed during the run:", "", *(f"- {plain(c)}" for c in content.changed)]
    return lines


def _commands(found: list[Command]) -> Iterator[str]:
    for each in found:
        yield from (f"{plain(each.title)}:", "", *commands.fenced(each.text, "bash"), "")
        yield from (f"- {note}" for note in each.notes)
        if each.notes:
            yield ""
