"""Rehearsals on a CPU: no name claims graphs, and what the numbers do not tell is said."""

from __future__ import annotations

import pytest
from made_up_run import plan
from measured_runs import ABBA, launch, measured

from repro_pp_graphs import launch_record
from repro_pp_graphs.report import launch_row, summary_step
from repro_pp_graphs.report.summary import remarks, run_summary
from repro_pp_graphs.report.tables import launch_table


def test_in_a_rehearsal_a_case_that_claims_no_graphs_keeps_its_name(tmp_path):
    cases = {"CASE_A_decode_graphs": "graphs_on", "CASE_fcfs": "fcfs"}
    made = plan(*(launch(label, case, 1) for label, case in cases.items()), mode="cpu")
    found = run_summary.summarise(tmp_path, made)
    assert [launch_row.name(found, case) for case in cases.values()] == ["arm A", "fcfs"]
    assert "arm A is CASE_A_decode_graphs, fcfs is CASE_fcfs" in remarks.remarks(found)[0]


def test_in_a_rehearsal_no_name_claims_graphs_and_no_ratio_stands(tmp_path):
    cases = {"A": "graphs_on", "B": "graphs_off"}
    made = plan(*(launch(label, cases[label[0]], n) for label, _, n in ABBA), mode="cpu")
    lines = launch_table.lines(measured(tmp_path, made, [30, 20, 21, 31], graph_state=None))
    assert [line.split()[:2] for line in lines[1:3]] == [["arm", "A"], ["arm", "B"]]
    assert "graphs" not in "\n".join(lines) and "/ this" not in "\n".join(lines)
    said_ = remarks.remarks(run_summary.summarise(tmp_path, made))
    assert "arm A is A, arm B is B" in said_[0]
    text = " ".join(summary_step.said(run_summary.summarise(tmp_path, made)))
    assert "TPOT mean, arm A / arm B: 1.488" in text  # docs/reading_results.md says what it is
    for label, *_ in ABBA:
        launch_record.path_of(tmp_path, label).unlink()
    text = " ".join(summary_step.said(run_summary.summarise(tmp_path, made)))
    assert "TPOT mean, arm A / arm B: CANNOT TELL: nothing was measured." in text
    assert "graphs_on" not in text and "graphs_off" not in text


@pytest.mark.parametrize(("other", "of_graphs"), [("graphs_off", True), ("mine", False)])
def test_a_rehearsal_says_what_its_numbers_do_not_tell(tmp_path, other, of_graphs):
    made = plan(launch("A", "graphs_on"), launch("B", other), mode="cpu")
    first = remarks.remarks(run_summary.summarise(tmp_path, made))[0]
    assert first.startswith("REHEARSAL on a CPU: ")
    assert ("#10865" in first) == of_graphs
    assert ("how these cases compare on GPUs" in first) != of_graphs
