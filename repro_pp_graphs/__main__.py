"""python -m repro_pp_graphs COMMAND ...: the commands, one module each."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

# command -> (module with `main(argv) -> exit status`, one line for the overview)
COMMANDS = {
    "analyze": ("repro_pp_graphs.traces.analyze_cli", "explain the ranks' traces of one case"),
    "merge": ("repro_pp_graphs.traces.merge_cli", "one Chrome trace for ui.perfetto.dev"),
    "open": ("repro_pp_graphs.traces.open_cli", "show a trace in ui.perfetto.dev"),
    "plan": ("repro_pp_graphs.run.plan_cli", "what run_repro.sh will do, checked (used by it)"),
    "wait-ready": ("repro_pp_graphs.run.wait_ready", "wait until a server answers (run_repro.sh)"),
    "profile": ("repro_pp_graphs.run.profile_pass", "collect every rank's trace (run_repro.sh)"),
    "check-arm": ("repro_pp_graphs.run.check_arm", "did the graphs run as claimed (run_repro.sh)"),
    "status": ("repro_pp_graphs.run.status", "record how a launch ended (run_repro.sh)"),
    "settle": ("repro_pp_graphs.run.settle", "port and GPU memory free again (run_repro.sh)"),
    "probe": ("repro_pp_graphs.probe.probe_cli", "the mechanism of #10865, without sglang"),
    "summary": ("repro_pp_graphs.report.summary_cli", "rewrite summary.json, print the table"),
}


def overview() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = [f"  {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items()]
    head = "usage: python -m repro_pp_graphs COMMAND [options]   (COMMAND --help for each)"
    return "\n".join([head, "", *rows])


def main(argv: list[str]) -> int:
    """Run one command; returns its exit status, 2 for an unknown one."""
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0 if argv else 2
    if argv[0] not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"repro_pp_graphs: no command '{argv[0]}': one of {known}", file=sys.stderr)
        return 2
    try:
        module = importlib.import_module(COMMANDS[argv[0]][0])
    except ModuleNotFoundError as error:
        return _in_made_environment(argv, str(error.name))
    return int(module.main(argv[1:]))


def _in_made_environment(argv: list[str], missing: str) -> int:
    """Run the command in the environment that run_repro.sh made; 2 where there is none."""
    root = Path(__file__).resolve().parents[1]
    for python in (root / ".venv-gpu/bin/python", root / ".venv-cpu/bin/python"):
        if python.exists() and Path(sys.prefix) != python.parents[1]:
            os.environ["PYTHONPATH"] = os.pathsep.join(
                [str(root), os.environ.get("PYTHONPATH", "")]
            )
            os.execv(python, [str(python), "-m", "repro_pp_graphs", *argv])
    print(
        f"repro_pp_graphs: {sys.executable} has no module '{missing}': pip install {missing}, or "
        "use the Python that has sglang",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
