"""report.html: one file that opens from disk, with everything in it and no request to anyone.

Names from traces and logs are text wherever they stand: escaped in the page, data to the script.
The page's security policy lets only this script and this style sheet in, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from repro_pp_graphs.report.charts import waterfall_chart
from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.page.content import ISSUE, MOST_REMARKS, Command, Content, arms_title
from repro_pp_graphs.report.page.embedding import CLOSES, OPENS, embedded
from repro_pp_graphs.report.tables.table import Table

ASSETS = Path(__file__).resolve().parents[1] / "assets"


def asset(name: str) -> str:
    """A built file of web/, as text."""
    return (ASSETS / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def text_of(content: Content, cases: list[str], figures: list[Figure]) -> str:
    """The whole report.html."""
    script, style = asset("report.js").strip(), asset("report.css").strip()
    policy = f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}"
    charts = {each.id.replace("-", "_"): each.data for each in figures if each.id != "lanes"}
    nothing: dict[str, Any] = {"pictures": []}
    lanes = next((each.data for each in figures if each.id == "lanes"), nothing)
    facts = {"cases": cases, "charts": charts, "lanes": lanes}
    title = escape(f"{content.headline} ({content.name})")
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri '
            "'none'; form-action 'none'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{title}</title>",
            f"<style>{style}</style>",
            "</head>",
            "<body>",
            *_body(content, figures),
            f"{OPENS}{embedded(facts)}{CLOSES}",
            f"<script>{script}</script>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _body(content: Content, figures: list[Figure]) -> Iterator[str]:
    when = f" &middot; {escape(content.when)}" if content.when else ""
    yield "<header>"
    yield f'<p class="quiet">{escape(content.name)}{when}</p>'
    yield '<button type="button" id="theme" hidden></button>'
    yield "</header>"
    yield "<main>"
    yield f"<h1>{_linked(content.headline)}</h1>"
    yield f"<p>{escape(content.what)}</p>"
    yield from _list(content.lead)
    for each in content.warnings:
        yield f'<p class="warning"><strong>Warning:</strong> {escape(each)}</p>'
    if content.arms:
        yield f"<h2>{_linked(arms_title(content))}</h2>"
        yield from table(content.arms)
    yield from _to_know(content.remarks)
    yield from _titled("Graphs by sends", content.crossed)
    yield from _swept(content)
    for figure in figures:
        yield from _figure(figure)
    if content.step_differences and not any(each.id == waterfall_chart.ID for each in figures):
        yield f"<h2>{waterfall_chart.TITLE}</h2>"  # why there is no chart of it
        yield from _list(content.step_differences)
    if content.timed and content.turns:
        yield "<h2>What a turn is made of while profiled</h2>"
        yield from table(content.turns)
    if content.explained or content.untraced:
        yield "<h2>What the traces say</h2>"
    if content.untraced:
        yield f"<p>{escape(content.untraced)}</p>"
    for said in content.explained:
        yield f"<h3>{escape(said.name)}</h3>"
        yield from (f"<p>{escape(text)}</p>" for text in said.paragraphs)
    yield from _titled("What the cases ran with that differs", content.differing)
    if content.environment:
        yield "<h2>Environment</h2>"
        yield from table(
            Table(head=["", ""], rows=[[key, value] for key, value in content.environment]), "text"
        )
    if content.changed:
        yield "<p>Changed during the run:</p>"
        yield from _list(content.changed)
    if content.commands:
        yield "<h2>Commands</h2>"
    for command in content.commands:
        yield from _command(command)
    yield "</main>"


def _to_know(remarks: list[str]) -> Iterator[str]:
    """What to know before believing the figures; the gravest are shown."""
    if remarks:
        yield "<h2>To know</h2>"
        yield from _list(remarks[:MOST_REMARKS])
    if len(remarks) > MOST_REMARKS:
        yield f"<details><summary>{count(len(remarks) - MOST_REMARKS, 'more remark')}</summary>"
        yield from _list(remarks[MOST_REMARKS:])
        yield "</details>"


def _swept(content: Content) -> Iterator[str]:
    """The table of a sweep, and what to know of it."""
    if content.swept:
        yield "<h2>By load</h2>"
        yield from table(content.swept)
        if content.swept_waits:
            yield from table(content.swept_waits, "text")
        yield from _list(content.swept_notes)


def _linked(text: str) -> str:
    return escape(text).replace("#10865", f'<a href="{ISSUE}">#10865</a>')


def _list(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "<ul>"
        yield from (f"<li>{escape(line)}</li>" for line in lines)
        yield "</ul>"


def table(found: Table, kind: str = "") -> Iterator[str]:
    """A table that scrolls by itself where the screen is narrow; a row without values is the title
    of those below it."""
    mark = f' class="{kind}"' if kind else ""
    yield '<div class="scroll" tabindex="0" role="region" aria-label="table"><table>'
    if any(found.head):
        heads = "".join(f'<th scope="col"{mark}>{escape(each)}</th>' for each in found.head)
        yield f"<thead><tr>{heads}</tr></thead>"
    yield "<tbody>"
    for row in found.rows:
        first, *rest = row
        title = "" if any(rest) else ' class="title"'
        cells = "".join(f"<td{mark}>{escape(each)}</td>" for each in rest)
        yield f'<tr{title}><th scope="row">{escape(first)}</th>{cells}</tr>'
    yield "</tbody></table></div>"
    if found.note:
        yield f'<p class="quiet">{escape(found.note)}</p>'


def _titled(title: str, shown: Table | None) -> Iterator[str]:
    """A table below its title, where there is one."""
    if shown:
        yield f"<h2>{escape(title)}</h2>"
        yield from table(shown)


def _figure(figure: Figure) -> Iterator[str]:
    yield f'<figure id="{figure.id}">'
    yield f"<h2>{escape(figure.title)}</h2>"
    yield f"<figcaption>{escape(figure.caption)}</figcaption>"
    yield from _key(figure)
    if figure.id == "lanes":
        yield '<div class="tools"></div>'
        yield f'<p class="alt">{escape(figure.alt)}</p><div class="plot"></div>'
    else:
        yield f'<div class="plot" role="img" aria-label="{escape(figure.alt)}"></div>'
    yield "<details><summary>The same as a table</summary>"
    yield from table(figure.table)
    yield "</details>"
    yield "</figure>"


def _key(figure: Figure) -> Iterator[str]:
    """What the colours mean, a line a group; the script fills in what is empty."""
    kinds = figure.data.get("kinds", {})
    for name, members in figure.data.get("groups", {"": []}).items():
        spans = (f'<span><i class="{key}"></i>{escape(kinds[key])}</span>' for key in members)
        head = f"<b>{escape(name)}</b>" if name else ""
        if members or not name:
            yield f'<div class="key">{head}{"".join(spans)}</div>'


def _command(command: Command) -> Iterator[str]:
    yield f"<h3>{escape(command.title)}</h3>"
    yield f'<pre tabindex="0">{escape(command.text)}</pre>'
    yield from _list([note.replace("`", "") for note in command.notes])
