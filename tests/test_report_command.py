"""report DIR: whatever a folder holds is reported, as far as it holds it, and no further."""

from __future__ import annotations

import json
import shutil
import sys
from html import escape
from pathlib import Path

import msgspec
import pytest
import report_runs
from programs import ran

from repro_pp_graphs.report import report_command, source
from repro_pp_graphs.report.charts import all_charts
from repro_pp_graphs.report.charts.waterfall_chart import TITLE, compared, difference
from repro_pp_graphs.report.page import content, html_page
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables import launch_table
from repro_pp_graphs.stats import metric_names

pytestmark = pytest.mark.slow

FILES = {"summary.json", "report.md", "report.html"}


def report(*arguments: object) -> int:
    return report_command.main([str(each) for each in arguments])


def test_a_run_is_rebuilt_from_disk_and_says_what_it_wrote(tmp_path, capsys):
    run = report_runs.series(tmp_path / "run")
    assert report(run) == 0
    printed = capsys.readouterr().out
    assert {path.name for path in (run / "logs").iterdir()} >= FILES
    assert all(f"{run}/logs/{name}" in printed for name in FILES)
    found = json.loads((run / "logs" / "summary.json").read_text())
    assert len(found["launches"]) == 8


def test_the_folder_of_the_records_alone_will_do(tmp_path):
    run = report_runs.series(tmp_path / "run")
    assert report(run / "logs", "--out", tmp_path / "elsewhere") == 0
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == FILES
    assert not (run / "logs" / "report.md").exists()


def test_somebody_elses_traces_are_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    shutil.copytree(report_runs.DATA / "traces" / "sglang052_graphs_on", folder / "on")
    shutil.copytree(report_runs.DATA / "traces" / "sglang052_graphs_off", folder / "off")
    before = sorted(folder.rglob("*"))
    assert report(folder) == 0
    beside = tmp_path / "theirs_report"
    assert sorted(folder.rglob("*")) == before  # nothing is written among their traces
    assert {path.name for path in beside.iterdir()} == {"report.md", "report.html"}
    text = (beside / "report.md").read_text()
    assert "no verdict" in text and "Token return PP1" in text
    assert "The cases side by side" not in text
    html = (beside / "report.html").read_text()
    assert '<figure id="lanes">' in html and '<figure id="launches">' not in html
    assert report(folder / "on", "--out", tmp_path / "one") == 0


def test_of_somebodys_cases_those_are_compared_that_analyze_compares(tmp_path):
    names = "sglang052_graphs_off", "sglang052_graphs_on", "sglang056_graphs_on"
    for name in names:
        shutil.copytree(report_runs.DATA / "traces" / name, tmp_path / name)
    off, on, _ = names
    assert [(each.a, each.b) for each in compared(source.read(tmp_path))] == [(on, off)]


def test_the_difference_of_equal_arms_is_called_noise_and_not_explained(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    said = content.content(source.read(run))
    assert said.step_table is not None and "noise" not in said.step_differences[0]
    off = run / "trace" / report_runs.B
    shutil.rmtree(run / "trace" / report_runs.A)
    shutil.copytree(off, run / "trace" / report_runs.A)
    (run / "logs" / f"{report_runs.A}_analysis.json").unlink()  # of the traces with graphs
    found = source.read(run)
    said = content.content(found)
    (text,) = said.step_differences
    assert "all without graphs" in text and text.endswith("while profiled is noise.")
    assert said.step_table is None and difference(found) is None
    html = html_page.text_of(said, found.cases, all_charts.figures(found))
    assert f"<h2>{TITLE}</h2>\n<ul>\n<li>{escape(text)}</li>" in html
    changed = run / "logs" / f"{report_runs.B}_launch.json"
    report_runs.changed(changed, lambda one: one["server_info"].update(chunked_prefill_size=7))
    assert "noise" not in content.content(source.read(run)).step_differences[0]


def test_a_difference_of_one_launch_each_in_a_rehearsal_is_called_noise(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    on_gpus = content.content(source.read(run))
    assert on_gpus.step_table and "noise" not in on_gpus.step_table.note
    report_runs.changed(run / "logs" / "run.json", lambda value: value.update(mode="cpu"))
    found = source.read(run)
    said, drawn = content.content(found), difference(found)
    (text,) = said.step_differences
    noise = "A rehearsal on a CPU, one launch each: take this difference as noise."
    assert text.startswith(f"{noise} A decode step of ")
    assert drawn is not None and noise in drawn.caption and noise in drawn.alt
    assert said.step_table is not None and noise in said.step_table.note


def test_a_difference_that_lacks_launches_says_of_which_it_is(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    found = source.read(run)
    (whole,) = content.content(found).step_differences
    assert "alone" not in whole
    again = f"{report_runs.A}_r2"  # a second launch, without a trace
    first = next(one for one in found.launches if one.summary.label == report_runs.A)
    summary = msgspec.structs.replace(first.summary, label=again)
    found.launches.append(msgspec.structs.replace(first, summary=summary, explained=None))
    (text,) = content.content(found).step_differences
    assert text.endswith(
        f"Of {report_runs.A}, {report_runs.B} alone: of other launches no step's path is known."
    )


@pytest.mark.parametrize(
    ("given", "to"),
    [("a/b", "b_report"), ("b/", "b_report"), (".", "{here}_report"), ("..", "{above}_report")],
)
def test_a_report_of_traces_is_written_here_but_never_among_them(tmp_path, monkeypatch, given, to):
    monkeypatch.chdir(tmp_path)
    place = report_command.of_traces(Path(given))
    assert place == Path(to.format(here=tmp_path, above=tmp_path.parent))


def explained(found: Source) -> list[tuple[bool, bool, str]]:
    return [
        (each.analysis is not None, each.timeline is not None, each.why)
        for _, each in found.all_explained()
    ]


def test_an_analysis_of_another_version_is_made_anew_from_the_traces(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    for label in (report_runs.A, report_runs.B):
        (run / "logs" / f"{label}_analysis.json").write_text('{"schema": 1, "ranks": {}}')
    assert explained(source.read(run)) == [(True, True, "")] * 2
    # it is kept, and what was cut from the traces too, for when they are gone
    shutil.rmtree(run / "trace")
    assert explained(source.read(run)) == [(True, True, "")] * 2
    for label in (report_runs.A, report_runs.B):
        (run / "logs" / f"{label}_analysis.json").write_text('{"schema": 1, "ranks": {}}')
    gone = explained(source.read(run))
    assert [each[:2] for each in gone] == [(False, True)] * 2
    assert all("traces to make it anew are gone" in why for *_, why in gone)


def test_slices_of_traces_that_changed_are_cut_anew(tmp_path):
    run = report_runs.traced(tmp_path / "run")
    before = source.read(run).launches[0].explained
    shutil.rmtree(run / "trace" / report_runs.A)
    other = report_runs.DATA / "traces" / "sglang0516_sync_send"
    shutil.copytree(other, run / "trace" / report_runs.A)
    for path in (run / "trace" / report_runs.A).iterdir():
        path.touch()
    after = source.read(run).launches[0].explained
    assert before.timeline.length_us != after.timeline.length_us


def test_a_torn_client_file_costs_that_launch_alone(tmp_path):
    run = report_runs.series(tmp_path / "run")
    torn = run / "logs" / f"{report_runs.A}_client.json"
    torn.write_text(torn.read_text()[:1000])
    assert report(run) == 0
    text = (run / "logs" / "report.md").read_text()
    assert f"{torn.name} is cut off" in text
    found = source.read(run)
    assert sum(bool(one.itl_ms) for one in found.launches) == 7


@pytest.mark.parametrize("what", ["empty", "missing", "torn", "a file"])
def test_a_folder_without_anything_is_one_sentence(tmp_path, capsys, what):
    folder = tmp_path / "run"
    if what == "a file":
        folder.write_text("")
    elif what != "missing":
        (folder / "logs").mkdir(parents=True)
    if what == "torn":
        (folder / "logs" / "run.json").write_text('{"schema": 1')
    assert report(folder) == (2 if what in ("missing", "a file") else 1)
    lines = capsys.readouterr().err.splitlines()
    assert " ".join(lines).startswith("report: ") and "name the folder" in " ".join(lines)
    assert len(lines) <= 5 and max(map(len, lines)) <= 80 + len(str(tmp_path))


def test_where_it_cannot_be_written_is_said_with_a_way_out(tmp_path, capsys):
    run = report_runs.series(tmp_path / "run")
    (tmp_path / "taken").write_text("")
    assert report(run, "--out", tmp_path / "taken") == 1
    assert "--out names another folder" in " ".join(capsys.readouterr().err.split())


def test_a_rehearsal_shows_no_ratio(tmp_path):
    run = report_runs.rehearsal(tmp_path / "run")
    assert report(run) == 0
    text = (run / "logs" / "report.md").read_text()
    head = next(line for line in text.splitlines() if line.startswith("|"))
    assert " / " not in head and "REHEARSAL" in text
    assert Path(run / "logs" / "report.html").stat().st_size < 3_000_000


def test_the_headline_of_a_rehearsal_calls_its_cases_as_its_tables_do(tmp_path):
    run = report_runs.rehearsal(tmp_path / "run")

    def without_question(plan: dict) -> None:
        for launch in plan["launches"]:
            launch["case"] = launch["case"].replace("graphs_off", "graphs_other")
            launch["expects_graphs"] = None

    report_runs.changed(run / "logs" / "run.json", without_question)
    (run / "logs" / "summary.json").unlink(missing_ok=True)
    assert report(run) == 0
    head = (run / "logs" / "report.md").read_text().splitlines()[0]
    assert head.startswith("# TPOT mean, arm A / arm B: ") and "graphs_o" not in head


def test_no_secret_of_the_servers_is_in_a_report(tmp_path):
    run = report_runs.series(tmp_path / "run")
    key, token, other = "plugh-plugh-1234", "hf_QmVyZ2FtYXNjaGluZW5iYXVlcg", "xyzzy-xyzzy-5678"

    def with_secrets(plan: dict) -> None:
        for launch in plan["launches"]:
            launch["args"] += ["--api-key", key]
            launch["env"]["HF_TOKEN"] = token

    report_runs.changed(run / "logs" / "run.json", with_secrets)
    for path in (run / "logs").glob(f"{report_runs.A}*_launch.json"):
        report_runs.changed(path, lambda one: one["server_info"].update(admin_api_key=other))
    assert report(run) == 0
    for name in ("report.md", "report.html"):
        text = (run / "logs" / name).read_text()
        assert "--api-key" in text
        assert not [secret for secret in (key, token, other) if secret in text]


def failed(logs: Path) -> None:
    for path in logs.glob("*_launch.json"):
        report_runs.changed(path, lambda one: one.update(status="failed", reason="it died"))


def gone(logs: Path) -> None:
    for path in (*logs.glob("*_launch.json"), *logs.glob("*_client.json")):
        path.unlink()


def alone(logs: Path) -> None:
    report_runs.changed(logs / "run.json", lambda run: run.update(launches=run["launches"][:1]))


def without_prompts(logs: Path) -> None:
    for path in logs.glob("*_client.json"):
        path.write_text('{"summary": {}, "requests": []}')


def odd_arrivals(logs: Path) -> None:
    odd = [{"events": [[1, 1], [1, 2], [5, 2]]}, {"events": []}, {"events": [[3]]}]
    for path in logs.glob("*_client.json"):
        report_runs.changed(path, lambda client: client.update(requests=odd))


def torn_extras(logs: Path) -> None:
    for name in ("pp_clock", "timeline", "analysis"):
        (logs / f"{report_runs.A}_{name}.json").write_text("[")


@pytest.mark.parametrize(
    "change", [failed, gone, alone, without_prompts, odd_arrivals, torn_extras]
)
def test_a_run_that_lacks_much_is_reported_as_far_as_it_goes(tmp_path, change):
    run = report_runs.series(tmp_path / "run")
    change(run / "logs")
    assert report(run) == 0
    text = (run / "logs" / "report.md").read_text()
    assert text.startswith("# ") and "Commands" in text
    if change is failed:
        assert "it died" in text and "The cases side by side" not in text


def test_case_a_comes_first_whichever_ran_first(tmp_path):
    run = report_runs.series(tmp_path / "run")
    report_runs.changed(run / "logs" / "run.json", lambda plan: plan["launches"].reverse())
    found = source.read(run)
    assert found.cases == ["graphs_on", "graphs_off"]
    ran = [(one.order, one.summary.label) for one in found.launches]
    assert ran[0] == (1, f"{report_runs.A}_r4") and ran[-1] == (8, report_runs.A)
    assert {one.summary.case: one.case for one in found.launches} == {
        "graphs_on": 0,
        "graphs_off": 1,
    }


ONE_MORE = """
import json, sys
from repro_pp_graphs.stats import metric_names
metric_names.CLIENT["max_itl_ms"] = metric_names.Shown("ITL longest", "ms", "lower")
from repro_pp_graphs.report import report_command
from repro_pp_graphs.report.tables import launch_table
from pathlib import Path
run = Path(sys.argv[1])
status = report_command.main([str(run)])
found = json.loads((run / "logs/summary.json").read_text())
print("\\n".join(launch_table.lines(found)))
sys.exit(status)
"""


def test_a_further_metric_of_the_client_takes_a_line_in_names_alone(tmp_path):
    run = report_runs.series(tmp_path / "run")
    done = ran([sys.executable, "-c", ONE_MORE, str(run)])
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((run / "logs" / "summary.json").read_text())
    clients = {
        each["label"]: json.loads((run / f"logs/{each['label']}_client.json").read_text())
        for each in found["launches"]
    }
    for each in found["launches"]:
        assert each["metrics"]["max_itl_ms"] == clients[each["label"]]["summary"]["max_itl_ms"]
    (compared,) = [
        each for each in found["verdict"]["pairs"][0]["comparisons"] if "max_itl" in each["metric"]
    ]
    assert (compared["role"], compared["better"]) == ("secondary", "lower")
    assert "\nITL longest ms" in done.stdout
    markdown = (run / "logs" / "report.md").read_text()
    assert "| ITL longest, ms | lower |" in markdown
    assert '"title":"ITL longest, ms"' in (run / "logs" / "report.html").read_text()


def test_every_metric_that_is_compared_is_in_the_summary_and_shown(tmp_path, capsys):
    run = report_runs.series(tmp_path / "run")
    assert report(run) == 0
    found = json.loads((run / "logs" / "summary.json").read_text())
    markdown = (run / "logs" / "report.md").read_text()
    lines = "\n".join(["", *launch_table.lines(found)])
    for name, shown in metric_names.CLIENT.items():
        assert all(name in each["metrics"] for each in found["launches"]), name
        assert f"| {shown.title}, {shown.unit}".removesuffix(", ") in markdown
        assert f"\n{shown.title} {shown.unit}".rstrip() in lines


def test_two_folders_are_refused_with_what_takes_two(tmp_path, capsys):
    assert report_command.main([str(tmp_path), str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the one that holds both folders" in said and "compare DIR1 DIR2" in said
