"""Of a launch's traces, read once: one trace of all ranks, and where a decode step's time goes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.folder import own_traces, results
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.terminal import show
from repro_pp_graphs.traces.commands.one_reading import CannotExplainError, explain_case


def note(logs: Path, texts: list[str]) -> None:
    """Add remarks to merge.log. Raises OSError."""
    with (logs / "merge.log").open("a", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts)


def explain(out: Path, label: str, merged: Path, slices: Path | None) -> str:
    """Write merged trace, analysis and slices of a profile, and remarks on its traces; why that
    could not be done, or an empty text. `label`: of the launch, or of one of its loads. Raises
    OSError where the disk does not take it."""
    logs = out / "logs"
    as_json, as_text = (logs / f"{label}_analysis.{kind}" for kind in ("json", "txt"))
    try:
        found = explain_case(out / "trace" / label, merged, as_json, as_text, slices)
    except (CannotExplainError, FileNotFoundError) as error:
        note(logs, [f"{label}: {error}"])
        return f"the traces could not be read; see {logs}/merge.log"
    counted = f"{merged.name}: {found.events} events of {found.ranks} ranks"
    note(logs, [*(f"{label}: warning: {text}" for text in found.warnings), counted])
    return ""


def explain_loads(out: Path, plan: Plan, launch: Launch, known: LaunchRecord) -> None:
    """The same of a sweep's other loads that were profiled; what fails is noted in the launch's
    record, whose measurement stands. Raises OSError."""
    logs = out / "logs"
    for name in plan.profiled_loads(launch):
        state = (known.loads or {}).get(name)
        if state is None or state.profile is None or not state.profile.trace_bytes:
            continue
        label = plan.load_label(launch, name)
        line, why = own_traces.claim(out, label, state.profile.trace_bytes)
        if line:
            show(line)
        if why := why or explain(out, label, out / results.merged_load(label), None):
            show(f"{label}: {why}")
            found = msgspec.structs.replace(state.profile, fault=why)
            launch_record.note_profile(logs, launch.label, name, found)


def main(argv: list[str]) -> int:
    """explain OUT LABEL: 0 explained; 1 where the launch's traces are not what its profile saw, or
    could not be read."""
    parser = step_options.of_launch("explain", __doc__)
    options = parser.parse_args(argv)
    out, label = options.out, options.label
    known = launch_record.load(out / "logs", label) or LaunchRecord("running")
    plan = run_record.load(out / "logs")
    launch = plan.launch(label)
    line, reason = own_traces.claim(out, label, known.trace_bytes)
    if line:
        show(line)
        launch_record.amend(out / "logs", label, [line])
    slices = out / "logs" / f"{label}_timeline.json"
    reason = reason or explain(out, label, out / results.merged(launch), slices)
    explain_loads(out, plan, launch, known)
    if reason:
        show(f"{label} failed: {reason}")
        launch_record.amend(out / "logs", label, status="failed", reason=reason)
    return int(bool(reason))
