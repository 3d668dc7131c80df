"""Write logs/summary.json; print the verdict, the table, their caveats and what to do next."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from repro_pp_graphs import files, run_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.pp_clock import kept
from repro_pp_graphs.report import launch_row, report_command, source
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.summary import outcome, remarks, run_summary, summary_record
from repro_pp_graphs.report.tables import launch_table, sweep_table
from repro_pp_graphs.run import next_command
from repro_pp_graphs.run.folder import lock, results
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.terminal import Parser, complain, wrapped

LOST = "its plan is lost: run again, what is there is then moved to previous/"


def next_steps(out: Path, plan: Plan, traces: list[Path]) -> list[str]:
    """The paths, and how to look at them."""
    server = "" if plan.attached else f"{plan.program} and "
    lines = [
        f"report  {out}/logs/report.html, to look at; report.md, for an issue",
        f"logs    {out}/logs",
        f"        summary.json, {server}client logs, env.txt",
    ]
    launches = "cudagraph in the search box: the decode launches of every rank"
    if plan.mode == "cpu":
        launches = "DECODE in the search box: the decode steps of every rank"
    lines += [f"trace   {path}" for path in traces]
    if traces:
        lines += [
            "",
            "python -m repro_pp_graphs open FILE shows one of the traces in Perfetto, its",
            "ranks in order ('Open trace file' on ui.perfetto.dev: in no order). There",
            f"  1. type {launches}",
            "  2. type send: the messages; those of the last rank to rank 0 are the token ids",
            "The same in numbers: logs/<label>_analysis.txt",
        ]
    return lines


def said(result: dict[str, Any]) -> list[str]:
    """The headline, the table, and what to know before believing them."""
    found = summary_record.from_json(result).verdict
    out = [*outcome.lines(found, launch_row.names_of(result)), ""] if found else []
    if table := launch_table.lines(result):
        out += [*table, "(what each row is: docs/reading_results.md, The table)"]
    if swept := sweep_table.lines(result):
        out += ["", *swept]
        out += [line for each in sweep_table.notes(result) for line in wrapped(each)]
    out += _lacking(result["launches"])
    known = [line for each in remarks.remarks(result) for line in wrapped(each, "! ")]
    return [*out, "", *known]


def _lacking(launches: list[launch_row.Row]) -> list[str]:
    """Which launches are not measured, and which are and count in no comparison."""
    out: list[str] = []
    others = [row for row in launches if row["status"] != "ok"]
    for measured, text in (
        (False, "Not measured: {}."),
        (True, "Measured, then cut short: {}: its numbers are shown, but not compared."),
    ):
        found = [row for row in others if launch_row.is_measured(row) is measured]
        if found:
            of = f"{len(found)} of {count(len(launches), 'launch')} ({_ended(found)})"
            out += ["", *wrapped(text.format(of))]
    return out


def _ended(rows: list[launch_row.Row]) -> str:
    """`A: interrupted; B, A_r2: not started`: launches' labels, by how they ended."""
    labels: dict[str, list[str]] = {}
    for row in rows:
        status = launch_row.ended(row)
        labels.setdefault("not started" if status == "not run" else status, []).append(row["label"])
    return "; ".join(f"{', '.join(its)}: {status}" for status, its in labels.items())


def main(argv: list[str]) -> int:
    """summary OUT: 0 where every launch was measured, 1 where one was not."""
    parser = Parser("summary", "OUT", __doc__ or "", "")
    parser.add_argument("out", type=Path)
    out = parser.parse_args(argv).out
    logs = out / "logs"
    if not (logs / "run.json").is_file():
        parser.error(f"{out}: no run there (no logs/run.json); name the folder that --out named")
    try:
        plan = run_record.load(logs)
    except (OSError, BadFile) as error:
        complain("summary", f"{error}: {LOST}")
        return 2
    if not lock.objection(out, os.getpid()):  # no run is at work there, whose servers write them
        for fault in kept.keep_all(logs):
            complain("summary", fault)
    result = run_summary.summarise(logs, plan)
    written = _write(logs / "summary.json", result)
    print("\n".join(["", *said(result), ""]))
    written = _report(out, result) and written
    names = [results.merged(launch) for launch in plan.launches]
    names += [results.side_by_side(plan)]
    traces = [out / name for name in filter(None, names) if (out / name).exists()]
    print("\n".join(next_steps(out, plan, traces)))
    if more := next_command.lines(out, plan, result["complete"]):
        print("\n".join(["", *more]))
    return 0 if result["complete"] and written else 1


def _report(out: Path, result: dict[str, Any]) -> bool:
    """report.md and report.html; False, and a line, where the disk does not take them."""
    try:
        report_command.write(source.read(out, result), out / "logs")
    except OSError as error:
        again = f"python -m repro_pp_graphs report {out}"
        complain("summary", f"{error.filename}: {error.strerror}; free some space, then: {again}")
        return False
    return True


def _write(path: Path, result: dict[str, Any]) -> bool:
    """Store the summary; False, and a line, where the disk does not take it."""
    try:
        files.write_json(path, result)
    except OSError as error:
        remedy = "free some space, then: python -m repro_pp_graphs summary"
        complain("summary", f"{path}: {error.strerror}; {remedy} {path.parents[1]}")
        return False
    return True
