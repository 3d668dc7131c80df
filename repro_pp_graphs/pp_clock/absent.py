"""Why a launch has no figures of its clock, or not all: nothing is ever lacking without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repro_pp_graphs.server import log

if TYPE_CHECKING:  # the server need not have msgspec
    from repro_pp_graphs.pp_clock.model import Rank

NOT_STARTED = "not started"  # how a rank's `failed` begins, and the reason in the server's log
LOG_NOT_STARTED = "repro shim pp_clock: not started"
NO_WORD = "the server's log says why"


def from_log(text: str) -> dict[str, str]:
    """By rank (PP1, PP1 TP0) why its clock did not start, as far as a server's log says."""
    found = {}
    for line in log.lines(text):
        if line.prefixed and line.text.startswith(LOG_NOT_STARTED):
            why, _, _ = line.text.removeprefix(LOG_NOT_STARTED).partition("; ")
            found[line.rank] = why.strip(" ()") or NO_WORD
    return found


def of_rank(rank: Rank, started: bool, windowed: bool) -> str:
    """One sentence on a rank without figures of the measured window; empty for one that has them.

    `started`: its header says what it took hold of; `windowed`: a measured window is known.
    """
    if rank.failed.startswith(NOT_STARTED):
        return f"the clock did not start: {rank.failed.removeprefix(NOT_STARTED).strip(': ')}"
    if rank.failed:
        return f"the clock stopped: {rank.failed}"
    if not started and not rank.rows:
        return f"the clock did not start: {NO_WORD}"
    if not windowed or "decode" in rank.measured:
        return ""
    rows = f"though it wrote {rank.rows} rows" if rank.rows else "as it wrote no row"
    return f"no decode turn of the measured window was timed, {rows}"


def nothing_left(said: dict[str, str]) -> str:
    """One sentence on a launch of which no rank left rows; `said`: by rank, from its log."""
    whys = list(dict.fromkeys(said.values()))
    if not whys:
        return "no rank left rows, and the server's log has no word of why: did its PP loop begin?"
    return f"no rank left rows: the clock did not start: {'; '.join(whys)}"
