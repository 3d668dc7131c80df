"""The names of the arguments that a release of sglang takes, for plans made before it is installed.

USAGE   python requirements/arguments.py PYTHON...     (interpreters, each with its sglang)
WRITES  arguments/VERSION.txt beside this file, a name a line
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from repro_pp_graphs.server import shim_names  # noqa: E402 - of this checkout
from repro_pp_graphs.server.release import installed  # noqa: E402 - of this checkout


def main(pythons: list[str]) -> int:
    """Ask each; returns the exit status."""
    for python in pythons:
        try:
            found = installed.probe(python, shim_names.for_cpu({}))
        except installed.ProbeError as error:
            print(f"arguments.py: {error}", file=sys.stderr)
            return 1
        path = HERE / "arguments" / f"{found.version}.txt"
        path.write_text("".join(f"{name}\n" for name in sorted(found.flags)), encoding="utf-8")
        print(f"{path.name}: {len(found.flags)} names")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
