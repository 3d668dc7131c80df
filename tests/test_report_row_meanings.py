"""What the rows of a table are: each row has its words, and no words are of a row that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from repro_pp_graphs.report.tables import clock_values, launch_table, row_meanings, state_rows
from repro_pp_graphs.traces.explain import step_path

UNDER_ANOTHER = ("... median", "... p99")  # of the row above them
TITLES = [
    *(title for title, *_ in (*launch_table.METRICS, launch_table.ALONE, *launch_table.SENDS)),
    *(title for title, _ in clock_values.ROWS if title.strip() not in UNDER_ANOTHER),
    *launch_table.CLOCK_ROUNDS.values(),
    *(title for title, _ in state_rows.STATE),
    "session (--resume)",
    "graphs on / off",
    "  waits outside own work ms",
]


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("behind", ["      1.2     3.4", ", lower   r1   r2", ", arm A: r1 -"])
def test_every_row_has_its_words(title, behind):
    found = row_meanings.meaning(title + behind)
    assert found is not None
    name, what = found
    assert title.strip().startswith(name) and what
    longer = [other for other in row_meanings.MEANINGS if title.strip() == other]
    assert longer in ([], [name])  # not a shorter one's


def test_words_are_of_rows_that_there_are():
    named = {found[0] for title in TITLES if (found := row_meanings.meaning(title))}
    assert named == set(row_meanings.MEANINGS)


def document(name: str) -> str:
    return Path(__file__).parents[1].joinpath("docs", name).read_text("utf-8")


def test_the_categories_of_a_path_are_called_in_the_documents_as_they_are_printed():
    text = document("ring_path.md")
    lacking = [k for k, title in step_path.TITLES.items() if f"\n| `{k}` | {title} | " not in text]
    assert lacking == []


def test_every_row_stands_in_the_documents_table_too():
    text = document("reading_results.md")
    rows = re.findall(r"^\| ([^|]+) \|", text, re.M)
    named = {name for row in rows for name in re.split(", |: ", row)}
    assert row_meanings.MEANINGS.keys() - named == set()


@pytest.mark.parametrize(
    "line",
    ["", "                 arm A     arm B   better", "lower, higher: which is better", "  arm A"],
)
def test_other_lines_are_no_rows(line):
    assert row_meanings.meaning(line) is None


def test_a_row_stands_once_in_the_tables_order():
    lines = ["TTFT p99 ms   1", "  in prefill turns ms  2", "TTFT median ms  3", "TTFT alone ms  4"]
    found = [line.split(":")[0] for line in row_meanings.of_lines(lines)]
    assert found == ["TTFT", "in prefill turns", "TTFT alone"]
