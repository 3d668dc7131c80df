"""python -m repro_pp_graphs analyze: where a decode step's time goes, from the ranks' traces."""

from __future__ import annotations

import argparse
from functools import reduce

from repro_pp_graphs.files import write_json
from repro_pp_graphs.terminal import complain, file_beside_text
from repro_pp_graphs.traces.analysis_record import Analyses, Analysis, document
from repro_pp_graphs.traces.commands import case_pairs
from repro_pp_graphs.traces.commands import paths as cli
from repro_pp_graphs.traces.commands.measured import measured_tpot_ms, unprofiled
from repro_pp_graphs.traces.explain import side_by_side
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.step_path import distortion
from repro_pp_graphs.traces.explain.words import wrapped
from repro_pp_graphs.traces.path.what_if import CATEGORIES, REMEDIES, WHOLE, Change, change_of
from repro_pp_graphs.traces.path.whole_analysis import explained
from repro_pp_graphs.traces.rank_trace import Case

COMMAND = "analyze"
DESCRIPTION = "Pair sends with recvs across ranks; say where a decode step's time goes."
EXAMPLES = """examples:
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs
  python -m repro_pp_graphs analyze trace/CASE_A_decode_graphs --json A.json
  python -m repro_pp_graphs analyze trace/CASE_A --what-if transfer=0.5
  python -m repro_pp_graphs analyze trace/CASE_A --what-if send=0+host=0.7
  python -m repro_pp_graphs analyze tests/data/traces/sglang052_graphs_on
      one to try: sglang 0.5.2 on two H100s
  python -m repro_pp_graphs analyze ON OFF   two cases in words, and OFF against
      ON; with --tables, or a --what-if, also the tables of each
  python -m repro_pp_graphs analyze trace    every case in it, side by side, and
      those without graphs against those with, where names are alike but for
      that (sglang052_graphs_off, sglang052_graphs_on), else all against the
      first

exit status: 0 analysed (with warnings, and cases that are not comparable,
named); 1 nothing could be read; 2 usage
"""

EACH_ALONE = "\neach case's tables: analyze its folder alone, or --tables"


def main(argv: list[str]) -> int:
    """Exit status 0 analysed (warnings listed), 1 nothing could be read or written, 2 usage."""
    made = cli.parser(COMMAND, "[options]", DESCRIPTION, EXAMPLES)
    made.add_argument(
        "--json", type=file_beside_text, metavar="FILE", help="write the analysis as JSON"
    )
    made.add_argument(
        "--what-if",
        type=_what_if,
        action="append",
        default=[],
        metavar="WHAT[=F]",
        help=f"how long a decode step would be if this took so many times as long: "
        f"{' or '.join(f'{one}=0' for one in WHOLE)} (0 alone), "
        f"{', '.join(f'{one}=F' for one in CATEGORIES if one not in WHOLE)}; or, without a factor, "
        f"{', '.join(one for one in REMEDIES if one not in CATEGORIES)}. Several at once with +; "
        "may be given again; docs/ring_path.md has what each takes away",
    )
    made.add_argument(
        "--tables",
        action="store_true",
        help="of several cases each one's tables too, as for one alone; --what-if brings them",
    )
    options = made.parse_args(argv)
    cases = cli.cases_at(COMMAND, options.paths)
    if cases is None:
        return 2
    every = options.tables or bool(options.what_if)
    facts, held = [], ("", "")  # held: the first one's text, with tables if it stays the only one
    for case in cases:
        if not case.ranks:
            cli.warn(COMMAND, [case])
            continue
        facts.append(explained(case, dict(options.what_if)))
        if len(facts) == 1:
            held = in_words(case, facts[0]), in_words(case, facts[0], tables=every)
            continue
        if len(facts) == 2:
            print(held[1], end="")
        print("\n" + in_words(case, facts[-1], tables=every), end="")
    if not facts:
        return cli.nothing_read(COMMAND, options.paths)
    if len(facts) == 1:
        print(held[0], end="")
    else:
        beside = [*side_by_side.lines(facts), *case_pairs.not_alike(facts)]
        print("\n".join(["", *beside, *case_pairs.lines(facts), *[EACH_ALONE] * (not every)]))
    if options.json:
        try:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            write_json(options.json, document(together(facts)))
        except OSError as error:
            complain(COMMAND, f"--json {options.json}: cannot be written ({error.strerror})")
            return 1
    return 0


def _what_if(text: str) -> tuple[str, Change]:
    """A value of --what-if as its name in the tables, and the change: of several joined by `+` all
    at once."""
    return text, reduce(Change.and_also, map(_one, text.split("+")))


def _one(text: str) -> Change:
    category, _, factor = text.partition("=")
    if category in REMEDIES and category not in CATEGORIES:
        if category != text:
            raise argparse.ArgumentTypeError(f"{text}: give {category} without a factor")
        return REMEDIES[text]
    try:
        times = float(factor) if category in CATEGORIES else 1.0
    except ValueError:
        reason = f"{text}: give a number, as {category}=0"
        raise argparse.ArgumentTypeError(reason) from None
    try:
        return change_of(category, times)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def in_words(case: Case, found: Analysis, tables: bool = True) -> str:
    """The analysis of a case as it is printed; without tables what to make of it alone."""
    numbers = _distortion(case, found) if tables else []
    return "\n".join([*lines(found, tables), *numbers]) + "\n"


def _distortion(case: Case, found: Analysis) -> list[str]:
    """What the profiler adds to a step, where the traces are those of a run that measured TPOT."""
    tpot_ms = measured_tpot_ms(case) if found.ring_path else None
    if found.ring_path is None or not tpot_ms:
        return []
    return [
        "",
        *wrapped(distortion(found.ring_path, tpot_ms), ""),
        *_unprofiled(case, found),
    ]


def _unprofiled(case: Case, found: Analysis) -> list[str]:
    """How to ask for what-ifs of the pass without the profiler, where pp_clock timed it."""
    given = found.ring_path.what_if if found.ring_path else {}
    there = unprofiled(case) if given else None
    if there is None:
        return []
    text = (
        f"What-ifs of the pass without the profiler: there the hosts' own work takes "
        f"{there.host:.2f} times as long as here (by pp_clock), so --what-if "
        f"send=0+host={there.host:.2f}"
    )
    if "launch=0" in given:
        text += (
            f"; work other than launching {there.host_but_launches:.2f} times as long, so "
            f"--what-if launch=0+host={there.host_but_launches:.2f}"
        )
    return wrapped(
        f"{text}. Hold what they give against {there.step_ms:.2f} ms, a step of that pass by its "
        "slowest rank's turns (TPOT, which the client sees, has more in it). Estimates: "
        "docs/ring_path.md, Without the profiler.",
        "",
    )


def together(found: list[Analysis]) -> Analysis | Analyses:
    """One case's analysis, or several by their names."""
    if len(found) == 1:
        return found[0]
    return Analyses(cases={each.case: each for each in found})
