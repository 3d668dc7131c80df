"""python -m repro_pp_graphs merge: the ranks of one case, or of two, in one view."""

from __future__ import annotations

import argparse
import re
import sys
from concurrent import futures

from repro_pp_graphs.terminal import complain, file_beside_text, wrapped
from repro_pp_graphs.traces.commands import paths as cli
from repro_pp_graphs.traces.explain.steps import window
from repro_pp_graphs.traces.merge import view
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions, decode_start, shifts
from repro_pp_graphs.traces.pair.host_clocks import by_host
from repro_pp_graphs.traces.path.whole_analysis import studied

COMMAND = "merge"
DESCRIPTION = "Write one Chrome trace of all ranks for ui.perfetto.dev."
EXAMPLES = """examples:
  all ranks of a case in one view
    python -m repro_pp_graphs merge trace/CASE_A_decode_graphs -o A.json
  of 64 ranks those of two stages, for 200 ms
    python -m repro_pp_graphs merge trace/CASE_A -o A.json \\
      --ranks 0,7 --window 0-200
  two cases in one view, their decode starts aligned
    python -m repro_pp_graphs merge trace/CASE_A trace/CASE_B -o A_vs_B.json.gz

exit status: 0 written (warnings on stderr); 1 nothing could be read; 2 usage
"""
KILLED = (
    "a process that was writing a rank has been killed (too little memory?): free some, or merge "
    "fewer ranks"
)


def main(argv: list[str]) -> int:
    """Exit status 0 written (warnings on stderr), 1 nothing could be read, 2 usage."""
    made = cli.parser(COMMAND, "-o FILE", DESCRIPTION, EXAMPLES)
    made.add_argument(
        "-o",
        "--output",
        type=file_beside_text,
        required=True,
        metavar="FILE",
        help="the merged trace: .json, or .json.gz to compress it",
    )
    made.add_argument(
        "--ranks",
        type=_ranks,
        default=frozenset(),
        metavar="LIST",
        help="PP ranks to show, as 0,3-5, or as 3.1 one TP rank of one (default: all)",
    )
    made.add_argument(
        "--window",
        type=_window,
        metavar="BEGIN-END",
        help="ms to show, counted from the first decode step of all ranks (default: all)",
    )
    made.add_argument(
        "--limit",
        type=float,
        default=view.LIMIT_BYTES / 1e6,
        metavar="MB",
        help="of JSON: a longer time is cut to about as much (default: %(default).0f, for a "
        "browser; 0: no limit)",
    )
    options = made.parse_args(argv)
    if options.output.is_dir():
        made.error(f"-o {options.output}: a folder; name a file")
    found = cli.cases_at(COMMAND, options.paths)
    if found is None:
        return 2
    every = list(found)
    cli.warn(COMMAND, every)
    cases = [case for case in every if case.ranks]
    if not cases:
        return cli.nothing_read(COMMAND, options.paths)
    left_out = ""
    try:
        # of several hosts first: it may move ranks in time
        ready = [studied(case) if len(by_host(case)) > 1 else case for case in cases]
        begin_ns = decode_start(cases[0]) or window(cases[0])[0]
        span = options.window and tuple(begin_ns + round(ms * 1e6) for ms in options.window)
        asked = view.View(options.ranks, span)
        if not any(asked.shows(rank) for case in cases for rank in case.ranks):
            complain(COMMAND, "--ranks: none of them has a trace here: name some that have")
            return 2
        shown, left_out = view.fitting(cases, asked, begin_ns, round(options.limit * 1e6))
        events = merge(cases, shifts(cases), Additions(ready), options.output, shown)
    except OSError as error:
        complain("merge", f"cannot write {options.output} ({error.strerror}): name another -o")
        return 1
    except futures.BrokenExecutor:
        complain("merge", KILLED)
        return 1
    if left_out:
        print("\n".join(wrapped(left_out, "merge: ")), file=sys.stderr)
    ranks = sum(shown.shows(rank) for case in cases for rank in case.ranks)
    print(f"{options.output}: {events} events of {ranks} ranks; open it at https://ui.perfetto.dev")
    return 0


def _ranks(text: str) -> frozenset[tuple[int, int | None]]:
    """A value of --ranks: (PP, TP) each, or (PP, None) for all TP ranks of a PP rank."""
    found: set[tuple[int, int | None]] = set()
    for part in text.split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5})|\.(\d{1,5}))?", part)
        if not match:
            raise argparse.ArgumentTypeError(
                f"{text}: name PP ranks as 0,3-5, or 3.1 for a TP rank"
            )
        first, last, tp = match.groups()
        every = range(int(first), int(last or first) + 1)
        found |= {(pp, int(tp) if tp else None) for pp in every}
    return frozenset(found)


def _window(text: str) -> tuple[float, float]:
    """A value of --window: its begin and end, ms."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text)
    if not match or float(match[2]) <= float(match[1]):
        raise argparse.ArgumentTypeError(f"{text}: give begin and end in ms, as 0-200")
    return float(match[1]), float(match[2])
