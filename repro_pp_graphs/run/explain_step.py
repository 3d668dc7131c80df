"""Of a launch's traces, read once: one trace of all ranks, and where a decode step's time goes."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs import launch_record, record
from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.run import own_traces, results, step_options
from repro_pp_graphs.terminal import wrapped
from repro_pp_graphs.traces.commands.explain import CannotExplainError, explain_case


def note(logs: Path, texts: list[str]) -> None:
    """Add remarks to merge.log. Raises OSError."""
    with (logs / "merge.log").open("a", encoding="utf-8") as file:
        file.writelines(f"{text}\n" for text in texts)


def explain(out: Path, label: str) -> str:
    """Write merged trace, analysis and slices of a launch, and remarks on its traces; why that
    could not be done, or an empty text. Raises OSError where the disk does not take it."""
    logs = out / "logs"
    merged = out / results.merged(record.load(logs).launch(label))
    as_json, as_text = (logs / f"{label}_analysis.{kind}" for kind in ("json", "txt"))
    slices = logs / f"{label}_timeline.json"
    try:
        found = explain_case(out / "trace" / label, merged, as_json, as_text, slices)
    except (CannotExplainError, FileNotFoundError) as error:
        note(logs, [f"{label}: {error}"])
        return f"the traces could not be read; see {logs}/merge.log"
    counted = f"{merged.name}: {found.events} events of {found.ranks} ranks"
    note(logs, [*(f"{label}: warning: {text}" for text in found.warnings), counted])
    return ""


def main(argv: list[str]) -> int:
    """explain OUT LABEL: 0 explained; 1 where the launch's traces are not what its profile saw, or
    could not be read."""
    parser = step_options.of_launch("explain", __doc__)
    options = parser.parse_args(argv)
    out, label = options.out, options.label
    known = launch_record.load(out / "logs", label) or LaunchRecord("running")
    line, reason = own_traces.claim(out, label, known)
    if line:
        print("\n".join(wrapped(line, "  ")))
        launch_record.amend(out / "logs", label, [line])
    reason = reason or explain(out, label)
    if reason:
        print("\n".join(wrapped(f"{label} failed: {reason}", "  ")))
        launch_record.amend(out / "logs", label, status="failed", reason=reason)
    return int(bool(reason))
