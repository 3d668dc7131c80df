"""Runs that never were, with what their clients measured; the rows of a table, the remarks."""

from __future__ import annotations

import json

import made_up_run

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.report.summary import remarks, run_summary
from repro_pp_graphs.run_record import Launch, Plan


def launch(label: str, case: str, number: int = 1, **changes) -> Launch:
    fields = {"args": ["--pp-size", "4"], "pp_size": 4, "expects_graphs": True, **changes}
    return made_up_run.launch(label, case=case, round=number, **fields)


def metrics(itl_ms: float) -> dict:
    return {
        **{"median_ttft_ms": 1234.5678, "p99_ttft_ms": 20, "median_itl_ms": itl_ms},
        **{"p99_itl_ms": 2 * itl_ms, "mean_tpot_ms": itl_ms, "output_throughput": 600.4},
        **{"completed": 32, "failed": 0, "warnings": []},
    }


def measured(logs, plan_: Plan, itls_ms: list[float], **facts) -> dict:
    logs.mkdir(parents=True, exist_ok=True)
    run_record.save(logs, plan_)
    for one, itl_ms in zip(plan_.launches, itls_ms, strict=True):
        client = {"schema": 1, "summary": metrics(itl_ms), "requests": []}
        (logs / f"{one.label}_client.json").write_text(json.dumps(client), encoding="utf-8")
        state = {"decode_lines": 118, "with_graph": 118, "launches": dict.fromkeys("0123", 24)}
        launch_record.amend(logs, one.label, **{"status": "ok", "graph_state": state, **facts})
    return run_summary.summarise(logs, plan_)


def rows(lines: list[str], name: str) -> list[list[str]]:
    return [line[len(name) :].split() for line in lines if line.startswith(name)]


ABBA = [("A", "on", 1), ("B", "off", 1), ("B_r2", "off", 2), ("A_r2", "on", 2)]


def told(tmp_path, plan_: Plan, **facts) -> str:
    result = measured(tmp_path, plan_, [30] * len(plan_.launches), **facts)
    return "\n".join(remarks.remarks(result))
