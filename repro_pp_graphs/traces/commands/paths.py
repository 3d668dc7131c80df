"""What the commands that read cases have in common: their paths, and cases read from them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from repro_pp_graphs.terminal import Parser, complain
from repro_pp_graphs.traces.model import Case
from repro_pp_graphs.traces.read.cases import cases_of, read_case


def parser(command: str, options: str, description: str, examples: str) -> Parser:
    """A parser that takes the PATHs of cases."""
    made = Parser(command, f"{options} PATH [PATH ...]", description, examples)
    made.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a case's folder of per-rank traces, or the files",
    )
    return made


NOTHING_READ = (
    "no trace could be read: give a folder of the ranks' own *.trace.json.gz, as trace/<label>/"
)


def read_cases(paths: list[Path]) -> list[Case]:
    """Every case at the paths. Raises FileNotFoundError naming a path that does not exist.

    The only case of a folder goes by the folder's name: sglang names its files by the time.
    """
    found = cases_of(paths)
    if len(found) == len(paths) == 1 and paths[0].is_dir():
        found = {paths[0].resolve().name: members for members in found.values()}
    return [read_case(name, members) for name, members in found.items()]


def cases_at(command: str, paths: list[Path]) -> list[Case] | None:
    """Every case at the paths; None, and a line on stderr, where a path does not exist."""
    try:
        return read_cases(paths)
    except FileNotFoundError as error:
        print(f"{command}: no such file or folder: {error}", file=sys.stderr)
        return None


def with_ranks(cases: list[Case]) -> list[Case]:
    """The cases of which something could be read; the first has the warnings of the others too."""
    kept = [case for case in cases if case.ranks]
    lost = [text for case in cases if not case.ranks for text in case.warnings]
    return [replace(case, warnings=case.warnings + lost * (case is kept[0])) for case in kept]


def nothing_read(command: str) -> int:
    """Say that no trace could be read; the exit status for it."""
    complain(command, NOTHING_READ)
    return 1


def warn(command: str, cases: list[Case]) -> None:
    for text in [text for case in cases for text in case.warnings]:
        print(f"{command}: warning: {text}", file=sys.stderr)
