"""Before a launch: nothing of another origin may lie where its results will be."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from repro_pp_graphs import files
from repro_pp_graphs.run import inputs, previous, record, results
from repro_pp_graphs.run.record import Plan
from repro_pp_graphs.server import gpu_counters
from repro_pp_graphs.terminal import wrapped

SCRIPTS = "_command.sh"  # written with the plan
LEAST_ROOM = 1 << 16
EVENT_BYTES = 64  # at most, of a token's arrival in client.json, with its share of the rest


def client_draft(logs: Path, label: str) -> Path:
    """Where client_benchmark.py writes its result until it is whole."""
    return logs / f"{label}_client.json.part"


def clear(out: Path, names: list[str], whose: str = "launch") -> str:
    """Move files of other origin aside; a line that names them, or an empty one."""
    there = previous.existing(out, names)
    if not there:
        return ""
    kept = previous.move_aside(out, there, "other")
    more = f" and {len(there) - 3} more" if len(there) > 3 else ""
    return f"not of this {whose}: {', '.join(there[:3])}{more}; moved to {kept}"


def obstacle(out: Path, plan: Plan, root: Path) -> str:
    """Why a launch may not start, with the next step; empty where it may."""
    if changed := inputs.changed(plan, root):
        return (
            f"{', '.join(changed)} changed after the run was planned: put the content back and go "
            "on with --resume, or start over without it"
        )
    full = files.low_space(out / "logs", out / "trace")
    return f"{full}: free some, then go on with --resume" if full else ""


def begin(out: Path, plan: Plan, label: str) -> None:
    """Clear the way of a launch and begin its record. Raises OSError."""
    logs = out / "logs"
    names = results.claimed(plan.launch(label), plan)
    line = clear(out, [name for name in names if not name.endswith(SCRIPTS)])
    record.save_facts(
        logs,
        label,
        status="running",
        run_id=plan.run_id,
        session=plan.session,
        began=time.strftime(previous.STAMP),
        warnings=[line] if line else [],
    )
    if line:
        print("\n".join(wrapped(line, "  ")))


def prepare(logs: Path, plan: Plan, label: str) -> None:
    """Take the disk room that the launch's end will need; read the GPUs. Raises OSError."""
    files.hold_reserve(logs)
    if plan.engine == "sglang":
        # the client writes its result over this: there is room for it, should the disk fill up
        room = max(plan.batch * plan.max_new_tokens * EVENT_BYTES, LEAST_ROOM)
        files.hold_room(client_draft(logs, label), room)
    if plan.mode != "cpu":
        before = gpu_counters.read(list(plan.gpu_used_mib))
        record.save_facts(logs, label, gpu_counters={"before": before})


def main(argv: list[str]) -> int:
    """begin OUT LABEL: 0 where the launch may start, 1 where it may not."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs begin", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("label")
    parser.add_argument("--root", type=Path, required=True, help="where prompts.txt is")
    options = parser.parse_args(argv)
    logs = options.out / "logs"
    plan = record.load(logs)
    reason = obstacle(options.out, plan, options.root)
    begin(options.out, plan, options.label)
    if not reason:
        prepare(logs, plan, options.label)
        return 0
    print("\n".join(wrapped(f"not begun: {reason}", "  ")))
    record.save_facts(logs, options.label, status="failed", reason=f"not begun: {reason}")
    return 1
