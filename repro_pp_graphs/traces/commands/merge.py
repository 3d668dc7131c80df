"""python -m repro_pp_graphs merge: the ranks of one case, or of two, in one view."""

from __future__ import annotations

import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from repro_pp_graphs.traces.commands import paths as cli
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions, shifts
from repro_pp_graphs.traces.pair.host_clocks import by_host
from repro_pp_graphs.traces.path.explained import studied

COMMAND = "merge"
DESCRIPTION = "Write one Chrome trace of all ranks for ui.perfetto.dev."
EXAMPLES = """examples:
  all ranks of a case in one view
    python -m repro_pp_graphs merge trace/CASE_A_decode_graphs -o A.json
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
        type=Path,
        required=True,
        metavar="FILE",
        help="the merged trace: .json, or .json.gz to compress it",
    )
    options = made.parse_args(argv)
    found = cli.cases_at(COMMAND, options.paths)
    if found is None:
        return 2
    every = list(found)
    cli.warn(COMMAND, every)
    cases = [case for case in every if case.ranks]
    if not cases:
        return cli.nothing_read(COMMAND)
    try:
        # of several hosts first: it may move ranks in time
        ready = [studied(case) if len(by_host(case)) > 1 else case for case in cases]
        events = merge(cases, shifts(cases), Additions(ready), options.output)
    except OSError as error:
        print(f"merge: cannot write {options.output}: {error}", file=sys.stderr)
        return 1
    except BrokenProcessPool:
        print(f"merge: {KILLED}", file=sys.stderr)
        return 1
    ranks = sum(len(case.ranks) for case in cases)
    print(f"{options.output}: {events} events of {ranks} ranks; open it at https://ui.perfetto.dev")
    return 0
