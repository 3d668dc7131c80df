"""report.html: one file, nothing fetched, names are text, a table behind every picture."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
import shutil

import pytest
import report_runs
from msgspec.structs import replace

from repro_pp_graphs.report import call_names, source
from repro_pp_graphs.report.charts import all_charts, lane_chart, launch_charts
from repro_pp_graphs.report.page import content, html_page
from repro_pp_graphs.traces.explain import step_path, timeline

MOST_BYTES = 3_000_000
EVIL = "</script><script>alert(1)</script><b>"


def text_of(folder) -> str:
    found = source.read(folder)
    return html_page.text_of(content.content(found), found.cases, all_charts.figures(found))


@pytest.fixture(scope="module")
def of_traced(tmp_path_factory) -> str:
    return text_of(report_runs.traced(tmp_path_factory.mktemp("traced") / "run"))


def facts_of(html: str) -> dict:
    return json.loads(re.search(r'id="facts">(.*?)</script>', html, re.S)[1])


def test_only_its_own_script_and_style_may_run(of_traced):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', of_traced)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    script = re.search(r"<script>(.*?)</script>", of_traced, re.S)[1]
    style = re.search(r"<style>(.*?)</style>", of_traced, re.S)[1]
    for name, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}


def test_it_is_one_file_that_asks_for_nothing(of_traced):
    body = re.sub(r"<script>.*?</script>|<style>.*?</style>", "", of_traced, flags=re.S)
    assert not re.findall(r"\b(?:src|srcset|action|background)=", body)
    assert set(re.findall(r'href="([^"]*)"', body)) <= {content.ISSUE}
    assert " style=" not in body and not re.findall(r"\bon[a-z]+=", body)
    assert len(of_traced.encode()) < MOST_BYTES


def test_every_picture_has_a_table_of_its_numbers(of_traced):
    figures = re.findall(r'<figure id="([a-z-]+)">(.*?)</figure>', of_traced, re.S)
    ids = ["launches", "itl-ecdf", "itl-time", "path", "difference", "turns", "send-ecdf", "lanes"]
    assert [name for name, _ in figures] == ids
    for _, inside in figures:
        assert inside.count("<tr>") > 2 and "<figcaption>" in inside
        assert 'role="img" aria-label="' in inside or 'class="alt">' in inside


def test_each_bar_of_the_difference_begins_where_the_one_before_ends(of_traced):
    (pair,) = facts_of(of_traced)["charts"]["difference"]["choices"]
    assert pair["less"] == "B less A"
    *rows, whole = pair["rows"]
    assert rows[0]["from"] == whole["from"] == 0
    for one, other in itertools.pairwise(rows):
        assert one["from"] + one["value"] == pytest.approx(other["from"], abs=2e-3)
    assert rows[-1]["from"] + rows[-1]["value"] == pytest.approx(whole["value"], abs=2e-3)
    assert {row["title"]: row["sure"] for row in rows}["its own decode graphs"]
    for row in (*rows, whole):
        low, high = row["interval"]
        assert low <= row["from"] + row["value"] <= high
        assert row["sure"] == (not low <= row["from"] <= high)


def test_names_from_logs_and_traces_are_text(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    logs = run / "logs"
    report_runs.changed(logs / "run.json", lambda plan: plan["launches"][1].update(model=EVIL))
    report_runs.changed(
        logs / f"{report_runs.A}_launch.json",
        lambda one: one["server_info"].update({EVIL: EVIL, "attention_backend": EVIL}),
    )
    first = next((run / "trace" / report_runs.A).iterdir())
    shutil.move(first, first.with_name("<b>not a trace"))
    html = text_of(run)
    assert html.count("<script>") == 1 and "<b>" not in re.sub(r"<b>[a-zA-Z ]+</b>", "", html)
    assert "&lt;/script&gt;" in html


def test_a_call_in_a_trace_that_is_named_like_markup_is_text(tmp_path):
    folder = tmp_path / "traces"
    shutil.copytree(report_runs.DATA / "traces" / "sglang052_graphs_on", folder)
    for path in folder.iterdir():
        text = gzip.decompress(path.read_bytes())
        text = text.replace(b"cudaStreamSynchronize", b"cuda<script>alert(1)</script>")
        path.write_bytes(gzip.compress(text, 1))
    html = text_of(folder)
    assert "cuda&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<script>") == 1


def test_a_kernel_or_call_of_any_name_stays_data():
    evil = timeline.Slice("moving", 1.0, 2.0, EVIL)
    text = html_page.embedded({"slices": [list(lane_chart.rows_of([evil])[0])], EVIL: "\u2028<!--"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["slices"][0][3] == EVIL


def test_the_distribution_is_that_of_the_values():
    values = [float(n) for n in range(1000)]
    points = launch_charts.ecdf(values)
    assert len(points) <= launch_charts.MOST_POINTS + 1
    assert points[0] == [0.0, 0.001] and points[-1] == [999.0, 1.0]
    assert all(share == pytest.approx((value + 1) / 1000) for value, share in points)
    few = launch_charts.ecdf([1.0, 1.0, 5.0])
    assert few == [[1.0, 0.33333], [1.0, 0.66667], [5.0, 1.0]]
    assert len(launch_charts.ecdf([2.0])) == 1


def test_the_data_of_the_pictures_is_what_was_measured(of_traced):
    facts = facts_of(of_traced)
    (a, b) = facts["charts"]["itl_ecdf"]["series"]
    assert (a["case"], b["case"]) == (0, 1) and a["points"][-1][1] == 1
    tpot = facts["charts"]["launches"]["choices"][0]
    told = [
        json.loads((report_runs.SERIES / f"{label}_client.json").read_text())["summary"]
        for label in (report_runs.A, report_runs.B)
    ]
    values = [point["value"] for point in tpot["points"]]
    assert values == pytest.approx([one["mean_tpot_ms"] for one in told], abs=1e-5)
    for part in facts["charts"]["turns"]["choices"]:
        totals = [sum(bar) for bar in zip(*(p["values"] for p in part["parts"]), strict=True)]
        assert totals == pytest.approx([25.6, 25.6, 25.9, 25.9], abs=0.5)  # ms, both ways the same
    lanes = facts["lanes"]
    assert [picture["title"].split(":")[0] for picture in lanes["pictures"]] == facts["cases"]
    for picture in lanes["pictures"]:
        for rank in picture["ranks"]:
            for lane in rank["lanes"]:
                slices = lane["slices"]
                assert all(0 <= s[1] < s[2] <= picture["length_us"] + 0.001 for s in slices)
                pairs = itertools.pairwise(slices)
                assert all(one[2] <= two[1] + 0.001 for one, two in pairs)
                assert {s[0] for s in slices} <= set(lanes["kinds"])


def test_every_kind_that_a_picture_draws_has_a_colour_in_light_and_dark():
    style = (html_page.ASSETS / "report.css").read_text(encoding="utf-8")
    kinds = {
        *lane_chart.KINDS,
        *(colour for _, colour in call_names.KINDS.values()),
        call_names.REST[1],
    }
    kinds |= {f"path_{each}" for each in step_path.TITLES}
    # light, the system's dark, dark by the button; and the square in the key
    counts = {kind: style.count(f"--{kind}:") for kind in kinds}
    assert set(counts.values()) == {3}, counts
    assert not [kind for kind in kinds if f".key i.{kind}{{" not in style]


def test_a_colour_of_a_case_is_no_colour_of_a_part():
    style = (html_page.ASSETS / "report.css").read_text(encoding="utf-8")
    light, *dark = style.partition("}")[0], *re.findall(r"\{[^{}]*--paper:[^{}]*\}", style)[1:]
    assert len(dark) == 2
    for rules in (light, *dark):
        colours = dict(re.findall(r"--([\w-]+): ?(#\w+)", rules))
        cases = {name: value for name, value in colours.items() if name.startswith("case-")}
        kinds = {*lane_chart.KINDS, *(f"path_{each}" for each in step_path.TITLES)}
        assert len(cases) == len(set(cases.values())) == 8
        assert not {colours[kind] for kind in kinds if kind in colours} & set(cases.values())
        assert colours["hidden_send"] != colours["transfer"] == colours["path_transfer"]


def test_what_to_know_stands_below_the_figures_and_above_the_pictures(tmp_path):
    found = source.read(report_runs.rehearsal(tmp_path / "run"))
    html = text_of(tmp_path / "run")
    heads = re.findall(r"<h2>(.*?)</h2>", html)
    assert heads[0].startswith("The cases side by side (rehearsal: no evidence on ")
    assert heads[1:3] == ["To know", "Every launch"]
    made = content.content(found)
    made.remarks = [f"remark {n}" for n in range(8)]
    html = html_page.text_of(made, found.cases, [])
    shown, _, folded = html.partition("<summary>2 more remarks</summary>")
    assert "remark 5<" in shown and "remark 6<" not in shown and "remark 7<" in folded
    assert "rehearsal: no evidence on" not in text_of(report_runs.series(tmp_path / "series"))


@pytest.mark.parametrize(("make", "barred"), [("series", True), ("rehearsal", False)])
def test_a_bar_at_the_right_is_described_where_there_is_one(tmp_path, make, barred):
    html = text_of(getattr(report_runs, make)(tmp_path / "run"))
    choices = facts_of(html)["charts"]["launches"]["choices"]
    assert any(each["intervals"] for each in choices) == barred
    assert ("A bar at the right" in html) == barred


def test_a_case_without_a_bar_is_named_with_the_reason(tmp_path, of_traced):
    assert "Without a bar" not in of_traced
    folder = report_runs.traced(tmp_path / "run")
    traces = folder / "trace" / report_runs.B
    next(traces.glob("*PP-1*")).unlink()
    assert "Without a bar: graphs_off (not every rank has a trace)." in text_of(folder)
    folder = report_runs.traced(tmp_path / "another")
    shutil.rmtree(folder / "trace" / report_runs.B)
    said = re.search(r" Without a bar: .*?[.]<", text_of(folder))
    assert said and said[0] == " Without a bar: graphs_off (no traces of it).<"


def test_a_bound_stands_below_the_step_that_it_is_a_bound_of(of_traced):
    figure = re.search(r'<figure id="path">(.*?)</figure>', of_traced, re.S)[1]
    cells = re.findall(r'<tr><th scope="row">(.*?)</th><td>([\d.]+)</td>', figure)
    names = [name for name, _ in cells]
    assert names.index("a step after the first quarter of them") < names.index(
        "at least, if launching took no time"
    )
    bounds = [float(value) for name, value in cells if name.startswith("at least, if")]
    steady = float(dict(cells)["a step after the first quarter of them"])
    assert bounds and max(bounds) <= steady
    assert "it may be longer than the whole step" in " ".join(figure.split())


def test_a_graph_on_the_path_of_some_steps_is_said_below_the_table(tmp_path):
    found = source.read(report_runs.traced(tmp_path / "run"))
    one = next(each for each in found.launches if each.explained and each.explained.analysis)
    seen = one.explained.analysis
    path = replace(seen.ring_path, steps=44, graph_steps={"0": 5, "1": 40})
    one.explained.analysis = replace(seen, ring_path=path)
    figure = next(each for each in all_charts.figures(found) if each.id == "path")
    assert "44 steps: PP0's of 5, PP1's of 40, of at least 1 both. A" in figure.table.note


def test_a_run_without_traces_says_so_and_what_to_do(tmp_path, of_traced):
    run = report_runs.series(tmp_path / "run")
    assert "The run was not profiled, so there is no path" in text_of(run)
    assert "without --no-profile" in text_of(run)
    report_runs.changed(run / "logs" / "run.json", lambda plan: plan.update(profile=True))
    html = text_of(run)
    assert "No trace of a launch could be explained, so there is no path" in html
    assert "--resume runs it again" in html
    assert "there is no path" not in of_traced


def test_where_a_server_refused_an_argument_no_resume_is_promised(tmp_path):
    run = report_runs.series(tmp_path / "run")
    report_runs.changed(run / "logs" / "run.json", lambda plan: plan.update(profile=True))
    label = f"{report_runs.A}_launch.json"
    refused = {"run_id": "", "session": 1, "status": "failed"}
    refused |= {"bad_argument": "--attention-backend nonsense"}
    report_runs.changed(run / "logs" / label, lambda launch: launch.update(refused))
    text = text_of(run)
    assert "with --attention-backend nonsense mended in server_args_*.txt it is another run" in text
    assert "--resume runs it again" not in text
