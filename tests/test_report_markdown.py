"""report.md: right numbers, short, rendered by a GFM renderer as it is meant."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser

import pytest
import report_runs
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.report import call_names, source
from repro_pp_graphs.report.charts import bar_charts, waterfall_chart
from repro_pp_graphs.report.page import commands, content, markdown
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.traces.explain.step_path import IF


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text)


class Page(HTMLParser):
    """The tags of a page, the rows of its tables, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.tags and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


@pytest.fixture(scope="module")
def of_series(tmp_path_factory) -> str:
    found = source.read(report_runs.series(tmp_path_factory.mktemp("series") / "run"))
    return markdown.text_of(content.content(found))


@pytest.fixture(scope="module")
def of_traced(tmp_path_factory) -> str:
    found = source.read(report_runs.traced(tmp_path_factory.mktemp("traced") / "run"))
    return markdown.text_of(content.content(found))


@pytest.mark.parametrize(("changed", "title"), [(1, "1 change"), (2, "2 changes")])
def test_one_change_of_the_environment_is_one_change(tmp_path, changed, title):
    found = content.content(source.read(report_runs.series(tmp_path / "run")))
    found.changed = [f"driver {n}" for n in range(changed)]
    assert f"<summary>Environment, {title} during the run</summary>" in markdown.text_of(found)


def test_a_run_without_traces_says_so_and_what_to_do(of_series, of_traced):
    assert "The run was not profiled" in of_series and "without --no-profile" in of_series
    assert "not profiled" not in of_traced


def before_details(text: str) -> list[str]:
    return text.partition("<details>")[0].splitlines()


@pytest.mark.parametrize("which", ["of_series", "of_traced"])
def test_it_is_short_before_the_details_and_renders(which, request):
    text = request.getfixturevalue(which)
    assert len(before_details(text)) < 60
    page = Page(rendered(text))
    assert page.tags[0] == "h1"
    assert page.tags.count("details") == text.count("</details>") == page.tags.count("summary")
    assert "|" not in Page(rendered("\n".join(before_details(text)))).text


def test_the_table_holds_the_mean_of_each_case(of_series):
    rows = {row[0]: row for row in Page(rendered(of_series)).rows if row}
    # of the table in the README of the data: 47.86, 48.36, 47.48, 47.62; 50.78, 51.02, 50.15, 49.67
    assert rows["TPOT mean, ms"][1:4] == ["lower", "47.83", "50.41"]
    assert rows["output tokens/s"][1] == "higher"


@pytest.mark.parametrize(
    ("cut", "tpot"), [(["_r4"], "50.65"), (["", "_r2", "_r3", "_r4"], "50.41")]
)
def test_a_launch_cut_short_after_its_measured_pass_is_shown_and_in_no_mean_of_others(
    cut, tpot, tmp_path
):
    run = report_runs.series(tmp_path / "run")
    why = {"status": "interrupted", "measured": True, "reason": "interrupted after its pass"}
    for each in cut:
        path = run / "logs" / f"{report_runs.B}{each}_launch.json"
        report_runs.changed(path, lambda one: one.update(why))
    (run / "logs" / "summary.json").unlink(missing_ok=True)
    text = markdown.text_of(content.content(source.read(run)))
    rows = {row[0]: row for row in Page(rendered(text)).rows if row}
    assert rows["TPOT mean, ms"][1:4] == ["lower", "47.83", tpot]
    note = "cut short after its measured pass: not compared"
    assert (note in text) == (len(cut) == 4)
    assert "interrupted after its pass" in "\n".join(before_details(text))


def test_a_turn_is_shown_with_what_its_rank_waits_for(of_traced):
    rows = {row[0]: row for row in Page(rendered(of_traced)).rows if row}
    heads = next(row for row in Page(rendered(of_traced)).rows if row[1:] and "PP0" in row[1])
    last = heads.index("PP1 graphs_on")
    assert re.fullmatch(r"21\.\d\d \(2[01]\.\d\d own graph\)", rows["send of token ids"][last])


def test_a_call_that_waits_in_some_releases_alone_names_them():
    title, _ = call_names.KINDS["process"]
    assert title == "work on results (sglang 0.5.6 and older wait for them here)"


def test_what_a_free_token_send_would_save_stands_in_it_as_in_the_page(of_traced, tmp_path):
    found = source.read(report_runs.traced(tmp_path / "run"))
    rows = {row[0]: row[1:] for row in Page(rendered(of_traced)).rows if row}
    path = bar_charts.one_token(found)
    assert path is not None
    of_page = {row[0]: row[1:] for row in path.table.rows}
    token_send = f"at least, if {IF['token_send']}"
    for title in (token_send, f"at least, if {IF['send=0']}", bar_charts.STEADY):
        assert rows[title] == of_page[title]
    least = rows[token_send][0].partition(" ")[0]  # "(?)" behind it: within what it is accurate to
    assert float(least) < float(rows[bar_charts.STEADY][0])
    assert f"While profiled, of {report_runs.A}, {report_runs.B}." in of_traced


def test_the_commands_are_those_of_plain_sglang(of_series):
    commands = of_series.partition("Commands")[2]
    assert "python -m sglang.launch_server" in commands
    assert "repro_pp_graphs.server.launch" not in commands
    assert "python -m sglang.bench_serving" in commands
    assert "--random-input-len 91" in commands and "--num-prompts 16" in commands


def test_the_load_in_the_commands_is_the_one_that_was_sent(tmp_path):
    plan = run_record.load(report_runs.series(tmp_path / "run") / "logs")
    sent = client_words.measured(plan, plan.launches[0], tmp_path)
    shown = shlex.split(commands.client(plan).replace("\\\n", " "))
    assert shown == ["python", "client_benchmark.py", *sent[: sent.index("--output")]]


def test_what_differs_besides_graphs_is_a_warning_on_top(tmp_path):
    run = report_runs.series(tmp_path / "run")
    quiet = markdown.text_of(content.content(source.read(run)))
    assert "in more than CUDA graphs" not in quiet
    for path in (run / "logs").glob(f"{report_runs.B}*_launch.json"):
        report_runs.changed(path, lambda one: one["server_info"].update(chunked_prefill_size=7))
    for path in (run / "logs").glob("*_r2_launch.json"):  # it never answered
        report_runs.changed(path, lambda one: one.update(server_info=None))
    text = markdown.text_of(content.content(source.read(run)))
    top = "\n".join(before_details(text)[:12])
    assert (
        "graphs_off differs from graphs_on in more than CUDA graphs (chunked_prefill_size)" in top
    )


def asks_of_a_shim(run):
    """The series as if its second case had graphs as the first, and a shim besides."""
    logs = run / "logs"

    def plan(found):
        args = found["launches"][0]["args"]
        for one in found["launches"]:
            if one["case"] == "graphs_off":
                env = one["env"] | {"REPRO_SHIMS": "trace_rank,sync_send"}
                one.update(case="sync_send", expects_graphs=True, args=args, env=env)

    report_runs.changed(logs / "run.json", plan)
    info = launch_record.load(logs, report_runs.A).server_info
    for path in logs.glob(f"{report_runs.B}*_launch.json"):
        report_runs.changed(path, lambda one: one.update(server_info=info))
    return run


def test_the_shim_that_a_case_is_for_is_no_warning_and_what_came_besides_is(tmp_path):
    run = asks_of_a_shim(report_runs.series(tmp_path / "run"))
    text = markdown.text_of(content.content(source.read(run)))
    assert "graphs_on / sync_send" in text and "Warning" not in text
    assert "shim sync_send" in text.partition("<details>")[2]  # in the table of what differs
    for path in (run / "logs").glob(f"{report_runs.B}*_launch.json"):
        report_runs.changed(path, lambda one: one["server_info"].update(chunked_prefill_size=7))
    text = markdown.text_of(content.content(source.read(run)))
    more = "in more than what the argument file of its case says (chunked_prefill_size)"
    assert f"sync_send differs from graphs_on {more}" in text.partition("<details>")[0]


HOSTILE = st.text(st.sampled_from("<>&|*_`~#@[]()!\\-+=.1ax \n\t$:/\"'"), max_size=30)


@given(HOSTILE)
def test_a_name_stays_the_text_that_it_is(name):
    table = markdown.Table(head=["", name], rows=[["x", name]])
    page = Page(rendered("\n".join(markdown.rows(table))))
    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    flat = " ".join(name.split())
    assert page.rows[1][1].replace("\u200b", "") == flat


@given(HOSTILE)
def test_a_sentence_stays_the_text_that_it_is(name):
    flat = " ".join(name.split())
    for line in ("{}", "- {}", "> **Warning:** {}"):
        page = Page(rendered(line.format(markdown.plain(name))))
        assert set(page.tags) <= {"p", "ul", "li", "blockquote", "strong"}
        shown = page.text.replace("\u200b", "").strip().removeprefix("Warning:").strip()
        assert shown == flat


@pytest.mark.parametrize(("times", "said"), [(1.5, True), (0.5, False), (None, False)])
def test_where_tpot_differs_the_other_way_than_profiled_steps_it_is_said(tmp_path, times, said):
    """Of the two graphs_off has the longer step while profiled."""
    run = report_runs.traced(tmp_path / "run")
    for path in (run / "logs").glob(f"{report_runs.A}*_client.json") if times else ():
        report_runs.changed(
            path,
            lambda one: one["summary"].update(mean_tpot_ms=one["summary"]["mean_tpot_ms"] * times),
        )
    text = " ".join(waterfall_chart.sentences(source.read(run)))
    assert ("In the measured pass it is the other way round: mean TPOT " in text) == said
