"""Bad input through the real commands: each fault, how it is injected, and what must be said.

`python tests/faults.py` prints the table (Markdown); test_faults.py holds every row of it: one
sentence, the stated exit status, no traceback, nothing raw on the terminal, nothing left.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from fake_sglang.harness import at_once
from fault_commands import Fault
from fault_injection import Outcome, inject, objections, place
from faults_of_client import CLIENT_FAULTS
from faults_of_commands import COMMAND_FAULTS
from faults_of_run import RUN_FAULTS
from faults_of_streams import STREAM_FAULTS

FAULTS = [*RUN_FAULTS, *STREAM_FAULTS, *CLIENT_FAULTS, *COMMAND_FAULTS]


def outcomes(chosen: list[Fault]) -> list[tuple[Fault, Outcome]]:
    """Each fault injected, several at a time, in a folder that any user may enter."""
    with place() as base:

        def job(number: int) -> Callable[[], Outcome]:
            return lambda: inject(chosen[number], base / str(number))

        found = at_once({number: job(number) for number in range(len(chosen))})
    return [(fault, found[number]) for number, fault in enumerate(chosen)]


def main() -> int:
    """Print the table; 1 where an outcome is objected to."""
    wanted = [fault for fault in FAULTS if not sys.argv[1:] or re.search(sys.argv[1], fault.what)]
    bad = 0
    print("| fault | how injected | outcome | exit | left |\n|---|---|---|---|---|")
    for fault, outcome in outcomes(wanted):
        found = objections(fault, outcome)
        bad += bool(found)
        left = ", ".join(outcome.left) or "nothing"
        cells = [fault.what, f"`{fault.command}`", outcome.said[:160], str(outcome.status), left]
        row = " | ".join(cell.replace("|", "\\|") for cell in cells)
        row = ascii(f"| {row} |")[1:-1] + (f"  <-- {'; '.join(found)}" if found else "")
        print(row, flush=True)
    print(f"\n{len(wanted)} faults, {bad} objected to", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
