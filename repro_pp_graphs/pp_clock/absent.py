"""Why a launch has no figures of its clock, or not all of them, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from repro_pp_graphs.pp_clock.clock_record import Rank
from repro_pp_graphs.pp_clock.rows import NO_WORD, NOT_STARTED


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
    if turns := sum(rank.decode_batches.values()):
        return (
            f"none of the {turns} decode turns of the measured window is like those around it: "
            "each has a prefill beside it, or a place in the loop that was just emptied or filled"
        )
    many = f"{rank.rows} row{'s' if rank.rows > 1 else ''}"
    rows = f"though a rank wrote {many}" if rank.rows else "as a rank wrote no row"
    return f"no decode turn of the measured window was timed, {rows}"


def nothing_left(said: Mapping[str, str]) -> str:
    """One sentence on a launch of which no rank left rows; `said`: by rank, from its log."""
    whys = list(dict.fromkeys(said.values()))
    if not whys:
        return "no rank left rows, and the server's log has no word of why: did its PP loop begin?"
    return f"no rank left rows: the clock did not start: {'; '.join(whys)}"
