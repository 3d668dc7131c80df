"""Before a launch: nothing of another origin may lie where its results will be."""

from __future__ import annotations

import time
from pathlib import Path

from repro_pp_graphs import files, launch_record, run_record
from repro_pp_graphs.launch_record import GpuCounters, LaunchRecord
from repro_pp_graphs.run import step_options
from repro_pp_graphs.run.folder import inputs, previous, results
from repro_pp_graphs.run.launch import bad_argument
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import gpu_counters
from repro_pp_graphs.terminal import show

SCRIPTS = "_command.sh"  # written with the plan


def obstacle(out: Path, plan: Plan, root: Path, label: str) -> str:
    """Why a launch may not start, with the next step; empty where it may."""
    if changed := inputs.changed(plan, root):
        return (
            f"{', '.join(changed)} changed after the run was planned: put the content back and go "
            "on with --resume, or start over without it"
        )
    if full := files.low_space(out / "logs", out / "trace"):
        return f"{full}: free some, then go on with --resume"
    return bad_argument.obstacle(out / "logs", plan, plan.launch(label))


def begin(out: Path, plan: Plan, label: str) -> LaunchRecord:
    """Clear the way of a launch; how its record begins. Raises OSError."""
    names = results.claimed(plan.launch(label), plan)
    line = previous.clear(out, [name for name in names if not name.endswith(SCRIPTS)])
    if line:
        show(line)
    return LaunchRecord(
        status="running",
        run_id=plan.run_id,
        session=plan.session,
        began=time.strftime(previous.STAMP),
        warnings=[line] if line else [],
    )


def ask_attached(launch: Launch, found: LaunchRecord) -> str:
    """Record what a server that is already running says of itself, and what it cannot show; why
    it cannot be measured any more, or an empty text."""
    if launch.attached is None:
        return ""
    from repro_pp_graphs.server import running  # noqa: PLC0415 - imports an HTTP client
    from repro_pp_graphs.server.http import resolved  # noqa: PLC0415

    found.warnings = [*(found.warnings or []), *launch.attached.limits]
    try:
        found.server_info = resolved(running.info_of(launch.base_url, launch.attached.local))
    except running.UnusableError as error:
        return str(error)
    return ""


def prepare(logs: Path, plan: Plan, label: str) -> GpuCounters | None:
    """Take the disk room that the launch's end will need; what the GPUs count, where there are
    some. Raises OSError."""
    files.hold_reserve(logs)
    if plan.engine == "sglang":
        # the client writes its result over this: there is room for it, should the disk fill up
        files.hold_room(results.client_draft(logs, label), results.room_for(plan))
    if plan.mode == "cpu" or plan.attached:
        return None
    return GpuCounters(before=gpu_counters.read(list(plan.gpu_used_mib)))


def main(argv: list[str]) -> int:
    """begin OUT LABEL: 0 where the launch may start, 1 where it may not."""
    parser = step_options.of_launch("begin", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="where prompts.txt is")
    options = parser.parse_args(argv)
    logs, label = options.out / "logs", options.label
    plan = run_record.load(logs)
    reason = obstacle(options.out, plan, options.root, label)
    found = begin(options.out, plan, label)
    reason = reason or ask_attached(plan.launch(label), found)
    launch_record.begin(logs, label, found)
    if not reason:
        if counters := prepare(logs, plan, label):
            launch_record.amend(logs, label, gpu_counters=counters)
        return 0
    reason = f"{launch_record.NOT_BEGUN}: {reason}"
    show(reason)
    launch_record.amend(logs, label, status="failed", reason=reason)
    return 1
