"""Launches that failed, were cut short or never ran: said so in place of numbers, none left out."""

from __future__ import annotations

import json

import pytest
from made_up_run import plan
from measured_runs import ABBA, launch, measured, metrics, rows

from repro_pp_graphs import launch_record
from repro_pp_graphs.bundle import issue
from repro_pp_graphs.report import summary_step
from repro_pp_graphs.report.summary import remarks, run_summary
from repro_pp_graphs.report.tables import launch_table


@pytest.mark.parametrize("mode", ["cpu", "gpu"])
@pytest.mark.parametrize("others", [["small"], ["graphs_off", "sync_send", "sync_send_no_graphs"]])
def test_where_nothing_was_measured_that_is_said_and_no_launch_is_left_out(tmp_path, mode, others):
    made = plan(*(launch(case, case) for case in ["graphs_on", *others]), mode=mode)
    launch_record.amend(tmp_path, "graphs_on", status="interrupted", run_id=made.run_id)
    text = " ".join(" ".join(summary_step.said(run_summary.summarise(tmp_path, made))).split())
    assert "CANNOT TELL: nothing was measured." in text and "not measured in" not in text
    assert "left out" not in text and "(graphs_on: interrupted; " in text
    assert f"; {', '.join(others)}: not started)." in text


def test_after_an_interruption_only_what_was_measured_is_there(tmp_path, capsys):
    made = plan(*(launch(*one) for one in ABBA))
    logs = tmp_path / "logs"
    measured(logs, made, [30, 20, 21, 31])
    for label in ("B_r2", "A_r2"):
        launch_record.path_of(logs, label).unlink()
    lines = launch_table.lines(run_summary.summarise(logs, made))
    assert rows(lines, "ITL median ms") == [["30", "20", "lower"]]
    assert summary_step.main([str(tmp_path)]) == 1
    said_ = capsys.readouterr().out
    assert "Not measured: 2 of 4 launches (B_r2, A_r2: not started)" in said_
    assert "not run" not in said_


@pytest.mark.parametrize("several", [False, True])
def test_where_every_launch_failed_there_is_no_table_of_figures(tmp_path, several):
    made = plan(*(launch(*one) for one in (ABBA if several else ABBA[:2])))
    for each in made.launches:
        failed = {"status": "failed", "reason": "died", "run_id": made.run_id}
        launch_record.amend(tmp_path, each.label, **failed)
    result = run_summary.summarise(tmp_path, made)
    assert launch_table.lines(result) == []
    text = " ".join(" ".join(summary_step.said(result)).split())
    assert "CANNOT TELL: nothing was measured." in text and "what each row is" not in text
    count = len(made.launches)
    labels = ", ".join(each.label for each in made.launches)
    assert f"Not measured: {count} of {count} launches ({labels}: failed)." in text
    assert "```text" not in issue.describe(tmp_path, made, result), "an empty block for an issue"


def test_failed_requests_are_shown(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    path = tmp_path / "A_client.json"
    path.write_text(json.dumps({"summary": metrics(30) | {"failed": 3}}), encoding="utf-8")
    assert rows(launch_table.lines(run_summary.summarise(tmp_path, two)), "failed requests") == [
        ["3", "-"]
    ]
    launch_record.amend(tmp_path, "A", status="interrupted")  # by which they failed
    lines = launch_table.lines(run_summary.summarise(tmp_path, two))
    assert not any("failed requests" in line for line in lines)


def test_a_failed_launch_says_so_in_place_of_numbers(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    launch_record.amend(tmp_path, "B", status="failed", reason="died")
    result = run_summary.summarise(tmp_path, two)
    assert not result["complete"]
    assert rows(launch_table.lines(result), "TPOT mean ms") == [["30", "failed", "lower"]]
    assert rows(launch_table.lines(result), "ITL median ms") == [["30", "-", "lower"]]  # once
    assert any("1 launch a case, of off none: too few" in text for text in remarks.remarks(result))


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_what_was_measured_before_a_launch_was_cut_short_is_shown(tmp_path, status):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    launch_record.amend(tmp_path, "B", status=status, measured=True)
    result = run_summary.summarise(tmp_path, two)
    assert not result["complete"]
    cell = status if status == "running" else "20"
    assert rows(launch_table.lines(result), "TPOT mean ms") == [["30", cell, "lower"]]
    text = " ".join(summary_step.said(result))
    if status == "running":  # nobody has looked at it
        assert "Not measured: 1 of 2 launches (B: running)" in text
    else:
        assert f"Measured, then cut short: 1 of 2 launches (B: {status}): its numbers" in text
    assert "CANNOT TELL: no launch of off counts" in text


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_client_file_is_a_launch_without_numbers(tmp_path, content):
    one = plan(launch("A", "on"))
    measured(tmp_path, one, [30])
    (tmp_path / "A_client.json").write_text(content, encoding="utf-8")
    assert run_summary.summarise(tmp_path, one)["launches"][0]["metrics"] == {}


def test_a_launch_that_was_stopped_is_not_measured(tmp_path, capsys):
    made = plan(*(launch(*one) for one in ABBA))
    logs = tmp_path / "logs"
    measured(logs, made, [30, 20, 21, 31])
    for label in ("B", "B_r2", "A_r2"):
        launch_record.path_of(logs, label).unlink()
    path = launch_record.path_of(logs, "A")
    for status in ("interrupted", "running", "failed"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))
        assert summary_step.main([str(tmp_path)]) == 1
        said_ = " ".join(capsys.readouterr().out.split())
        assert "ITL" not in said_, "a table of nothing but that"
        assert "decode lines w/ graph 118 of 118" in said_, "which its log says"
        assert f"Not measured: 4 of 4 launches (A: {status}; B, B_r2, A_r2: not started)." in said_


def test_a_launch_that_was_interrupted_is_named_where_no_table_says_so(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    launch_record.amend(tmp_path, "B", status="interrupted", reason="interrupted")
    assert "B: interrupted" in remarks.remarks(run_summary.summarise(tmp_path, two))  # report.md's
