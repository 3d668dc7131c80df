"""python -m repro_pp_graphs compare: two runs side by side, or why they cannot be compared."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.report import source, two_runs
from repro_pp_graphs.report.number_words import count
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables.report_metrics import values
from repro_pp_graphs.terminal import Parser, complain, wrapped

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
    made.add_argument(
        "dirs", nargs=2, type=Path, metavar="DIR", help="what --out named; . for a run without it"
    )
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
    print("\n".join([*two_runs.lines(one, other), *copied(one, other)]))
    return 0


def copied(one: Source, other: Source) -> list[str]:
    """Launches that are in both runs, as where one folder is a copy of the other: nothing was
    measured twice."""
    of_one, of_other = (
        {
            (each.summary.case, each.summary.round, *sorted(measured.items()))
            for each in run.launches
            if (measured := values(each))
        }
        for run in (one, other)
    )
    same = len(of_one & of_other)
    if not same:
        return []
    return wrapped(
        f"! {count(same, 'launch')} of run 1, which has {len(of_one)}, and of run 2, which has "
        f"{len(of_other)}, have the same figures to the last digit: they are copies, not measured "
        "twice, and say nothing of how two runs differ."
    )
