"""python -m repro_pp_graphs COMMAND ...: the commands, one module each."""

from __future__ import annotations

import importlib
import sys

# command -> (module with `main(argv) -> exit status`, one line for the overview)
COMMANDS = {
    "analyze": ("repro_pp_graphs.traces.analyze_cli", "explain the ranks' traces of one case"),
    "merge": ("repro_pp_graphs.traces.merge_cli", "one Chrome trace for ui.perfetto.dev"),
    "plan": ("repro_pp_graphs.run.plan_cli", "what run_repro.sh will do, checked (used by it)"),
    "wait-ready": ("repro_pp_graphs.run.wait_ready", "wait until a server answers (run_repro.sh)"),
    "profile": ("repro_pp_graphs.run.profile_pass", "collect every rank's trace (run_repro.sh)"),
    "check-arm": ("repro_pp_graphs.run.check_arm", "did the graphs run as claimed (run_repro.sh)"),
    "status": ("repro_pp_graphs.run.status", "record how a launch ended (run_repro.sh)"),
    "settle": ("repro_pp_graphs.run.settle", "port and GPU memory free again (run_repro.sh)"),
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
    module = importlib.import_module(COMMANDS[argv[0]][0])
    return int(module.main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
