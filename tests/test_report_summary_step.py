"""The step that writes summary.json: what it holds, prints and exits with."""

from __future__ import annotations

import json

from made_up_run import plan
from measured_runs import launch, measured

from repro_pp_graphs import launch_record
from repro_pp_graphs.report import summary_step


def test_the_command_that_opens_a_trace_with_its_ranks_in_order_is_named(tmp_path):
    lines = summary_step.next_steps(tmp_path, plan(launch("A", "on")), [tmp_path / "a.json"])
    assert any("python -m repro_pp_graphs open FILE" in line for line in lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_what_the_server_resolved_is_kept_without_its_crowd(tmp_path):
    info = {"version": "0.5.22", "pp_size": 4, "disable_cuda_graph": False, "api_key": "hunter2"}
    result = measured(tmp_path, plan(launch("A", "on")), [30], server_info=info)
    (one,) = result["launches"]
    assert one["sglang_version"] == "0.5.22"
    assert one["resolved"] == {"version": "0.5.22", "pp_size": 4, "disable_cuda_graph": False}
    assert "hunter2" not in json.dumps(result)


def test_the_command_writes_the_summary_and_exits_by_it(tmp_path, capsys):
    two = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path / "logs", two, [30, 20])
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "A_chrome_trace.json").write_text("{}", encoding="utf-8")
    assert summary_step.main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / "logs" / "summary.json").read_text("utf-8")) == result
    printed = capsys.readouterr().out
    assert "A_chrome_trace.json" in printed and "B_chrome_trace.json" not in printed
    assert "ui.perfetto.dev" in printed
    launch_record.amend(tmp_path / "logs", "B", status="failed")
    assert summary_step.main([str(tmp_path)]) == 1
