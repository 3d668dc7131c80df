"""python -m repro_pp_graphs compare: two runs side by side, or why they cannot be compared."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.report import source, two_runs
from repro_pp_graphs.terminal import Parser, complain

COMMAND = "compare"
EXAMPLES = """examples:
  python -m repro_pp_graphs compare results/monday results/tuesday

exit status: 0 compared; 1 they cannot be, with the reasons; 2 usage
"""


def main(argv: list[str]) -> int:
    """Exit status 0 compared, 1 the runs cannot be compared or read, 2 usage."""
    made = Parser(
        COMMAND,
        "DIR1 DIR2",
        "Put two runs side by side: another day, another release, another machine. Runs of "
        "another load, model, number of ranks or kind are refused.",
        EXAMPLES,
    )
    made.add_argument("dirs", nargs=2, type=Path, metavar="DIR", help="what --out named")
    options = made.parse_args(argv)
    if lacking := [folder for folder in options.dirs if not folder.is_dir()]:
        complain(COMMAND, f"{lacking[0]} is no folder; name the folders of two runs")
        return 2
    try:
        one, other = (source.read(folder) for folder in options.dirs)
    except (BadFile, OSError) as error:
        complain(COMMAND, f"{error}; name the folders of two runs")
        return 1
    reasons = two_runs.against(one, other)
    if reasons:
        complain(COMMAND, f"these cannot be compared: {'; '.join(reasons)}")
        return 1
    print("\n".join(two_runs.lines(one, other)))
    return 0
