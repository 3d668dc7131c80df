"""python -m repro_pp_graphs COMMAND ...: the commands, one module each."""

from __future__ import annotations

import importlib
import sys

# command -> (module with `main(argv) -> exit status`, one line for the overview)
COMMANDS = {
    "analyze": ("repro_pp_graphs.traces.analyze_cli", "explain the ranks' traces of one case"),
    "merge": ("repro_pp_graphs.traces.merge_cli", "one Chrome trace for ui.perfetto.dev"),
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
        print(f"repro_pp_graphs: no command '{argv[0]}': one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[argv[0]][0])
    return int(module.main(argv[1:]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
