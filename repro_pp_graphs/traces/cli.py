"""What the commands that read cases have in common: their paths, and cases read from them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repro_pp_graphs.traces.folder import Case, cases_of, read_case


def parser(command: str, description: str, examples: str) -> argparse.ArgumentParser:
    """A parser that takes the PATHs of cases."""
    made = argparse.ArgumentParser(
        prog=f"python -m repro_pp_graphs {command}",
        epilog=examples,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a case's folder of per-rank traces, or the files",
    )
    return made


def cases_at(command: str, paths: list[Path]) -> list[Case] | None:
    """Every case at the paths; None, and a line on stderr, where a path does not exist."""
    try:
        return [read_case(name, members) for name, members in cases_of(paths).items()]
    except FileNotFoundError as error:
        print(f"{command}: no such file or folder: {error}", file=sys.stderr)
        return None


def nothing_read(command: str) -> int:
    """Say that no trace could be read; the exit status for it."""
    print(
        f"{command}: no trace could be read: give a folder of the ranks' own "
        "*.trace.json.gz, as trace/<label>/",
        file=sys.stderr,
    )
    return 1


def warn(command: str, cases: list[Case]) -> None:
    for text in [text for case in cases for text in case.warnings]:
        print(f"{command}: warning: {text}", file=sys.stderr)
