"""Write logs/summary.json and print the side-by-side table, its caveats and what to do next."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from repro_pp_graphs.report import summary, table
from repro_pp_graphs.run import record
from repro_pp_graphs.run.record import Plan
from repro_pp_graphs.terminal import wrapped


def next_steps(out: Path, plan: Plan, traces: list[Path]) -> list[str]:
    """The paths, and how to look at them."""
    lines = [
        f"logs    {out}/logs",
        f"        summary.json, {plan.program} and client logs, env.txt",
    ]
    launches = "cudagraph in the search box: the decode launches of every rank"
    if plan.mode == "cpu":
        launches = "DECODE in the search box: the decode steps of every rank"
    lines += [f"trace   {path}" for path in traces]
    if traces:
        lines += [
            "",
            "Open ui.perfetto.dev, 'Open trace file', choose one of the traces, then",
            f"  1. type {launches}",
            "  2. type send: the last rank's send to rank 0, and what runs beside it",
            "The same in numbers: logs/<label>_analysis.txt",
        ]
    return lines


def main(argv: list[str]) -> int:
    """summary OUT: 0 where every launch was measured, 1 where one was not."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs summary", description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args(argv).out
    logs = out / "logs"
    if not (logs / "run.json").is_file():
        parser.error(f"{out}: no run there (no logs/run.json); name the folder that --out named")
    plan = record.load(logs)
    result = summary.summarise(logs, plan)
    (logs / "summary.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print()
    print("\n".join(table.lines(result)))
    for remark in table.remarks(result):
        print("\n".join(wrapped(remark, "! ")))
    print()
    names = [*(launch.label for launch in plan.launches), "A_vs_B"]
    candidates = [out / "trace" / f"{name}_chrome_trace.json" for name in names]
    print("\n".join(next_steps(out, plan, [path for path in candidates if path.exists()])))
    return 0 if result["complete"] else 1
