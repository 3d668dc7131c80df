"""python -m repro_pp_graphs analyze: where a decode step's time goes, from the ranks' traces."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.files import write_json
from repro_pp_graphs.terminal import complain
from repro_pp_graphs.traces.commands import paths as cli
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.report import lines
from repro_pp_graphs.traces.facts import Analyses, Analysis, document

COMMAND = "analyze"
DESCRIPTION = "Pair sends with recvs across ranks; say where a decode step's time goes."
EXAMPLES = """examples:
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs --json A.json

exit status: 0 analysed (warnings listed); 1 nothing could be read; 2 usage
"""


def main(argv: list[str]) -> int:
    """Exit status 0 analysed (warnings listed), 1 nothing could be read or written, 2 usage."""
    made = cli.parser(COMMAND, "[--json FILE]", DESCRIPTION, EXAMPLES)
    made.add_argument("--json", type=Path, metavar="FILE", help="write the analysis as JSON")
    options = made.parse_args(argv)
    cases = cli.cases_at(COMMAND, options.paths)
    if cases is None:
        return 2
    read = cli.with_ranks(cases)
    if not read:
        cli.warn(COMMAND, cases)
        return cli.nothing_read(COMMAND)
    facts = [analyze(case) for case in read]
    print(in_words(facts), end="")
    if options.json:
        try:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.json, document(together(facts)))
        except OSError as error:
            complain(COMMAND, f"--json {options.json}: cannot be written ({error.strerror})")
            return 1
    return 0


def in_words(found: list[Analysis]) -> str:
    """The analyses as they are printed, one after another."""
    return "\n\n".join("\n".join(lines(each)) for each in found) + "\n"


def together(found: list[Analysis]) -> Analysis | Analyses:
    """One case's analysis, or several by their names."""
    if len(found) == 1:
        return found[0]
    return Analyses(cases={each.case: each for each in found})
