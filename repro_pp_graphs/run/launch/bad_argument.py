"""An argument, or a variable, that a server of the run refused as it started."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs import launch_record
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.run_record import Launch, Plan


def refused(logs: Path, plan: Plan) -> dict[str, str]:
    """The arguments that servers refused since the run was last called, each with the launch whose
    server did so first."""
    found: dict[str, str] = {}
    for launch in plan.launches:
        try:
            known = launch_record.load(logs, launch.label)
        except (OSError, BadFile):
            continue
        ours = known and (known.run_id, known.session) == (plan.run_id, plan.session)
        if known and ours and known.bad_argument:
            found.setdefault(known.bad_argument, launch.label)
    return found


def obstacle(logs: Path, plan: Plan, launch: Launch) -> str:
    """Why a launch would die as another one did, with the next step; empty where none has."""
    for argument, label in refused(logs, plan).items():
        if argument in launch.arguments and label != launch.label:
            return (
                f"the server of {label} refused {argument}, which this case has too: mend it in "
                "server_args_*.txt, and start over without --resume"
            )
    return ""
