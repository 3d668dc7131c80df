"""What a server's log says of clocks that did not start."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.pp_clock.rows import LOG_NOT_STARTED, NO_WORD
from repro_pp_graphs.server.log.log_lines import lines, read_logs


def not_started(logs: Path, label: str) -> dict[str, str]:
    """By rank (PP1, PP1 TP0) why its clock did not start, as far as a launch's log says."""
    found = {}
    for line in lines(read_logs(logs / f"{label}_server.log")):
        if line.prefixed and line.text.startswith(LOG_NOT_STARTED):
            why, _, _ = line.text.removeprefix(LOG_NOT_STARTED).partition("; ")
            found[line.rank] = why.strip(" ()") or NO_WORD
    return found
