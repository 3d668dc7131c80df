"""The labels of launches, and the names that their results have by them: two never share one."""

from __future__ import annotations

import made_up_run
import pytest
from plan_harness import BASE, plan_of

from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Plan


def test_labels_number_the_later_rounds(tmp_path):
    plan = plan_of(tmp_path, "--rounds", "2")
    labels = [launch.label for launch in plan.launches]
    assert labels in (["A", "B", "B_r2", "A_r2"], ["B", "A", "A_r2", "B_r2"])
    assert [launch.round for launch in plan.launches] == [1, 1, 2, 2]
    assert {launch.block for launch in plan.launches} == {1}


def test_a_case_without_label_is_named_after_its_file(tmp_path):
    plan = plan_of(tmp_path, base="# label: base\n" + BASE, one="", two="")
    assert [launch.label for launch in plan.launches] == ["CASE_one", "CASE_two"]


@pytest.mark.parametrize(
    ("argv", "cases"),
    [
        ([], {"one": "# label: X", "two": "# label: X"}),
        (["--rounds", "2"], {"one": "# label: X", "two": "# label: X_r2"}),
        (["--cases", "one,one"], {"one": "# label: X"}),
    ],
)
def test_two_cases_of_one_label_are_refused(tmp_path, argv, cases):
    with pytest.raises(PlanError, match=r"share the label|is named twice"):
        plan_of(tmp_path, *argv, **cases)


def named(*labels: str, **changes) -> Plan:
    """A plan of one launch a label, in rounds of their own."""
    launches = (made_up_run.launch(label, case=label) for label in labels)
    return made_up_run.plan(*launches, **changes)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (("CASE_A_decode_graphs", "CASE_B_no_graphs"), "A_vs_B"),
        (("CASE_A_decode_graphs", "CASE_B_no_graphs", "CASE_C_sync"), "A_vs_B"),
        (("CASE_A_decode_graphs", "CASE_C_sync"), "A_vs_C"),
        (("CASE_A_decode_graphs", "mine"), "CASE_A_decode_graphs_vs_mine"),
        (("CASE_B_no_graphs", "CASE_A_decode_graphs"), "A_vs_B"),  # whichever ran first
        (("CASE_A_decode_graphs", "CASE_A_decode_graphs_r2"), None),
        (("mine", "yours"), "mine_vs_yours"),
    ],
)
def test_the_side_by_side_trace_is_named_by_what_it_holds(labels, name):
    name = name or "_vs_".join(labels)
    assert results.side_by_side(named(*labels)) == f"trace/{name}_chrome_trace.json.gz"


def test_traces_of_the_first_round_are_plain_json_and_those_of_later_ones_compressed():
    plan = named("one", "one_r2")
    plan.launches[1].round = 2
    assert [results.merged(launch) for launch in plan.launches] == [
        "trace/one_chrome_trace.json",
        "trace/one_r2_chrome_trace.json.gz",
    ]


def test_one_launch_or_none_traced_has_no_side_by_side_trace():
    assert results.side_by_side(named("one")) == ""
    assert results.side_by_side(named("one", "two", profile=False)) == ""


@pytest.mark.parametrize(
    ("labels", "clash"),
    [
        (
            ("CASE_A_x", "CASE_B_y", "A_vs_B_chrome_trace.json.gz"),
            "trace/A_vs_B_chrome_trace.json.gz",
        ),
        (("a", "b", "a_vs_b_chrome_trace.json.gz"), "trace/a_vs_b_chrome_trace.json.gz"),
        (("a", "a_chrome_trace.json"), "trace/a_chrome_trace.json"),
        (("a", "a"), "logs/a_analysis.json"),
        (("a", "b", "a_vs_b_2"), None),
        (("run", "summary", "env", "merge"), None),
    ],
)
def test_two_results_of_one_name_are_seen_before_anything_runs(labels, clash):
    assert results.clashes(named(*labels))[:1] == ([clash] if clash else [])
