"""python -m repro_pp_graphs analyze: where a decode step's time goes, from the ranks' traces."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from repro_pp_graphs.traces.analyze import analyze
from repro_pp_graphs.traces.folder import cases_of, read_case
from repro_pp_graphs.traces.table import lines

EXAMPLES = """examples:
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs --json A_analysis.json
"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m repro_pp_graphs analyze",
        epilog=EXAMPLES,
        description="Pair sends with recvs across ranks; say where a decode step's time goes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="a case's folder of per-rank traces, or the files",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write the analysis as JSON")
    return made


def main(argv: list[str]) -> int:
    """Exit status 0 analysed (warnings listed), 1 nothing could be read, 2 usage."""
    options = parser().parse_args(argv)
    try:
        cases = [read_case(name, members) for name, members in cases_of(options.paths).items()]
    except FileNotFoundError as error:
        print(f"analyze: no such file or folder: {error}", file=sys.stderr)
        return 2
    read = [case for case in cases if case.ranks]
    if not read:
        for text in [text for case in cases for text in case.warnings]:
            print(f"analyze: warning: {text}", file=sys.stderr)
        print("analyze: no trace could be read: give a folder of *.trace.json.gz", file=sys.stderr)
        return 1
    read[0].warnings += [text for case in cases if not case.ranks for text in case.warnings]
    facts = [analyze(case) for case in read]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_document(facts), indent=1) + "\n", encoding="utf-8")
    for case_facts in facts:
        print("\n".join(lines(case_facts)))
    return 0


def _document(facts: list[dict[str, Any]]) -> dict[str, Any]:
    """One case's analysis, or several under `cases`."""
    if len(facts) == 1:
        return facts[0]
    return {"schema": 1, "cases": {case_facts["case"]: case_facts for case_facts in facts}}
