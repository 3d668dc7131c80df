"""python -m repro_pp_graphs analyze: where a decode step's time goes, from the ranks' traces."""

from __future__ import annotations

import argparse
from pathlib import Path

from repro_pp_graphs.files import write_json
from repro_pp_graphs.terminal import complain
from repro_pp_graphs.traces.commands import paths as cli
from repro_pp_graphs.traces.explain import side_by_side
from repro_pp_graphs.traces.explain.report import lines
from repro_pp_graphs.traces.facts import Analyses, Analysis, document
from repro_pp_graphs.traces.path.explained import explained
from repro_pp_graphs.traces.path.what_if import CATEGORIES, Change, change_of

COMMAND = "analyze"
DESCRIPTION = "Pair sends with recvs across ranks; say where a decode step's time goes."
EXAMPLES = """examples:
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs --json A.json
  python -m repro_pp_graphs analyze trace/CASE_A --what-if transfer=0.5
  python -m repro_pp_graphs analyze trace    every case in it, and side by side

exit status: 0 analysed (warnings listed); 1 nothing could be read; 2 usage
"""


def main(argv: list[str]) -> int:
    """Exit status 0 analysed (warnings listed), 1 nothing could be read or written, 2 usage."""
    made = cli.parser(COMMAND, "[options]", DESCRIPTION, EXAMPLES)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the analysis as JSON")
    made.add_argument(
        "--what-if",
        type=_what_if,
        action="append",
        default=[],
        metavar="WHAT=FACTOR",
        help=f"how long a decode step would be if this took so many times as long ("
        f"{', '.join(CATEGORIES)}; may be given again): see docs/ring_path.md",
    )
    options = made.parse_args(argv)
    cases = cli.cases_at(COMMAND, options.paths)
    if cases is None:
        return 2
    facts: list[Analysis] = []
    for case in cases:
        if case.ranks:
            facts.append(explained(case, asked=dict(options.what_if)))
            print("\n" * (len(facts) > 1) + in_words(facts[-1:]), end="")
        else:
            cli.warn(COMMAND, [case])
    if not facts:
        return cli.nothing_read(COMMAND)
    if len(facts) > 1:
        print("\n".join(["", *side_by_side.lines(facts)]))
    if options.json:
        try:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.json, document(together(facts)))
        except OSError as error:
            complain(COMMAND, f"--json {options.json}: cannot be written ({error.strerror})")
            return 1
    return 0


def _what_if(text: str) -> tuple[str, Change]:
    """A value of --what-if as its name in the tables, and the change."""
    category, _, factor = text.partition("=")
    try:
        return text, change_of(category, float(factor))
    except ValueError as error:
        known = category in CATEGORIES and "give" not in str(error)
        reason = f"{text}: give a number, as {category}=0.5" if known else str(error)
        raise argparse.ArgumentTypeError(reason) from None


def in_words(found: list[Analysis]) -> str:
    """The analyses as they are printed, one after another."""
    return "\n\n".join("\n".join(lines(each)) for each in found) + "\n"


def together(found: list[Analysis]) -> Analysis | Analyses:
    """One case's analysis, or several by their names."""
    if len(found) == 1:
        return found[0]
    return Analyses(cases={each.case: each for each in found})
