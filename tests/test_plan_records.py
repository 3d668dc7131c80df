"""The records of a plan and its launches: read as written, and begun anew with a launch."""

from __future__ import annotations

import json
from dataclasses import replace

from plan_harness import plan_of

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.report.summary import run_summary
from repro_pp_graphs.run import begin_step, finish_step


def test_a_plan_comes_back_from_its_file(tmp_path):
    plan = plan_of(tmp_path, "--rounds", "2", count=0)
    plan.launches[0].notes.append('naïve 词 "quoted" \\ \n')
    run_record.save(tmp_path, plan)
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 1
    assert run_record.load(tmp_path) == plan
    assert run_record.load(tmp_path) != replace(plan, batch=plan.batch + 1)


def test_facts_of_a_launch_add_up(tmp_path):
    assert launch_record.load(tmp_path, "A") is None
    launch_record.amend(tmp_path, "A", ["one"], status="running", profile_s=1.5)
    launch_record.amend(tmp_path, "A", ["two"], status="ok")
    stored = {"status": "ok", "warnings": ["one", "two"], "profile_s": 1.5}
    assert json.loads((tmp_path / "A_launch.json").read_text()) == stored
    assert launch_record.load(tmp_path, "A") == LaunchRecord(**stored)
    assert launch_record.load(tmp_path, "B") is None


def test_a_launch_that_runs_again_forgets_why_it_failed(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, count=0)
    (tmp_path / "logs").mkdir()
    run_record.save(tmp_path / "logs", plan)
    launch_record.amend(tmp_path / "logs", "A", status="failed", reason="port in use")
    monkeypatch.setattr(begin_step, "obstacle", lambda *_: "")
    assert begin_step.main([str(tmp_path), "A", "--root", str(tmp_path)]) == 0
    assert finish_step.main([str(tmp_path), "A"]) == 0
    known = launch_record.load(tmp_path / "logs", "A")
    assert (known.status, known.reason) == ("ok", None)


def test_an_earlier_try_leaves_no_rows_of_any_ranks_clock_on_any_node(tmp_path):
    """Servers remove none themselves: of several nodes one starts while another's ranks write."""
    plan = plan_of(tmp_path, "--pp-size", "4")
    launch = plan.launches[0]
    launch.nodes = launch.started_nodes = 2
    (tmp_path / "logs").mkdir(exist_ok=True)
    start = f"logs/{launch.label}_pp_clock"
    ours = [f"{start}_PP{rank}_TP0.rows{end}" for rank in range(4) for end in ("", ".gz")]
    other = f"logs/{launch.label}_r2_pp_clock_PP0_TP0.rows.gz"
    for name in [*ours, other]:
        (tmp_path / name).touch()
    begin_step.begin(tmp_path, plan, launch.label)
    assert [name for name in [*ours, other] if (tmp_path / name).exists()] == [other]


def test_a_launch_that_is_interrupted_before_its_record_is_begun_is_of_this_run(tmp_path):
    plan = plan_of(tmp_path, count=0)
    plan.run_id = "r"
    (tmp_path / "logs").mkdir()
    run_record.save(tmp_path / "logs", plan)
    assert finish_step.main([str(tmp_path), "A", "--interrupted"]) == 1
    known = launch_record.load(tmp_path / "logs", "A")
    assert known is not None and (known.status, known.run_id) == ("interrupted", "r")
    (row, _) = run_summary.summarise(tmp_path / "logs", plan)["launches"]
    assert row["status"] == "interrupted" and "another run" not in row.get("reason", "")
