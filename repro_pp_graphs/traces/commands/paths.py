"""What the commands that read cases have in common: their paths, and cases read from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import starmap
from pathlib import Path

from repro_pp_graphs.terminal import Parser, complain
from repro_pp_graphs.traces.rank_trace import Case
from repro_pp_graphs.traces.read.cases import (
    Members,
    cases_of,
    folders_of_traces,
    merged_at,
    read_case,
)


def parser(command: str, options: str, description: str, examples: str) -> Parser:
    """A parser that takes the PATHs of cases."""
    made = Parser(command, f"{options} PATH [PATH ...]", description, examples)
    made.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a case's folder of per-rank traces, the files, or a folder of such folders",
    )
    return made


NOTHING_READ = (
    "no trace could be read: give a folder of the ranks' own *.trace.json.gz, as trace/<label>/"
)


def members_of(paths: list[Path]) -> dict[str, Members]:
    """The files of every case at the paths, by its name. Raises FileNotFoundError naming a path
    that does not exist, OSError where one cannot be read.

    The only case of a folder goes by the folder's name: sglang names its files by the time.
    """
    places = [each for path in paths for each in folders_of_traces(path)]
    found = cases_of(places)
    if len(found) == len(places) == 1 and places[0].is_dir():
        return {places[0].resolve().name: members for members in found.values()}
    return found


def read_cases(paths: list[Path]) -> list[Case]:
    """Every case at the paths, read. Raises as members_of."""
    return [read_case(*each) for each in members_of(paths).items()]


def cases_at(command: str, paths: list[Path]) -> Iterator[Case] | None:
    """Every case at the paths, each read when it is asked for; None, and a line on stderr, where a
    path cannot be read."""
    try:
        return starmap(read_case, members_of(paths).items())
    except FileNotFoundError as error:
        complain(command, f"no such file or folder: {error}")
    except OSError as error:
        complain(command, f"{error.filename}: {error.strerror}; name a folder that you may read")
    return None


def with_ranks(cases: list[Case]) -> list[Case]:
    """The cases of which something could be read; the first has the warnings of the others too."""
    kept = [case for case in cases if case.ranks]
    lost = [text for case in cases if not case.ranks for text in case.warnings]
    return [replace(case, warnings=case.warnings + lost * (case is kept[0])) for case in kept]


def nothing_read(command: str, paths: list[Path]) -> int:
    """Say that no trace could be read, and of which files that is no wonder; the exit status."""
    inside = [at for path in paths if path.is_dir() for at in sorted(path.iterdir()) if at.is_dir()]
    if merged := [file for path in [*paths, *inside] for file in merged_at(path)]:
        complain(
            command,
            f"{merged[0]}: a trace of all ranks in one, to look at (python -m repro_pp_graphs open "
            "FILE); give the ranks' own *.trace.json.gz that it was made of (one to try: "
            "tests/data/traces/sglang052_graphs_on)",
        )
    else:
        complain(command, f"{', '.join(map(str, paths))}: {NOTHING_READ}")
    return 1


def warn(command: str, cases: list[Case]) -> None:
    for text in dict.fromkeys(text for case in cases for text in case.warnings):
        complain(command, f"warning: {text}")
