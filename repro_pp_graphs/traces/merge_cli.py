"""python -m repro_pp_graphs merge: the ranks of one case, or of two, in one view."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from repro_pp_graphs.traces.folder import cases_of, read_case
from repro_pp_graphs.traces.merge import merge
from repro_pp_graphs.traces.tracks import Additions, shifts

EXAMPLES = """examples:
  python -m repro_pp_graphs merge trace/CASE_A_decode_graphs -o A_chrome_trace.json
  python -m repro_pp_graphs merge trace/CASE_A trace/CASE_B -o A_vs_B_chrome_trace.json.gz
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m repro_pp_graphs merge",
        epilog=EXAMPLES,
        description="Write one Chrome trace of all ranks for ui.perfetto.dev.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a case's folder of per-rank traces, or the files",
    )
    made.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="the merged trace: .json, or .json.gz to compress it",
    )
    return made


def main(argv: list[str]) -> int:
    """Exit status 0 written (warnings on stderr), 1 nothing could be read, 2 usage."""
    options = parser().parse_args(argv)
    try:
        cases = [read_case(name, members) for name, members in cases_of(options.paths).items()]
    except FileNotFoundError as error:
        print(f"merge: no such file or folder: {error}", file=sys.stderr)
        return 2
    for case in cases:
        for text in case.warnings:
            print(f"merge: warning: {text}", file=sys.stderr)
    cases = [case for case in cases if case.ranks]
    if not cases:
        print("merge: no trace could be read: give a folder of *.trace.json.gz", file=sys.stderr)
        return 1
    try:
        events = merge(cases, shifts(cases), Additions(cases), options.output)
    except OSError as error:
        print(f"merge: cannot write {options.output}: {error}", file=sys.stderr)
        return 1
    ranks = sum(len(case.ranks) for case in cases)
    print(f"{options.output}: {events} events of {ranks} ranks; open it at https://ui.perfetto.dev")
    return 0
