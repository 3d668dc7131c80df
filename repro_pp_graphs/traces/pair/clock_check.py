"""The pairs of a channel that hold whatever its ranks' clocks are, within what is possible."""

from __future__ import annotations

from dataclasses import replace

from repro_pp_graphs.traces.pair.clock_differences import (
    EQUAL_CLOCKS,
    ClockRange,
    EdgeClocks,
    of_lag,
)
from repro_pp_graphs.traces.pair.edge import Pairing
from repro_pp_graphs.traces.pair.equal_lags import Lag, Reading
from repro_pp_graphs.traces.pair.offset import best_run
from repro_pp_graphs.traces.pair.pairing import pair_queues
from repro_pp_graphs.traces.pair.queues import SLACK_NS, Queues, Run


def pairs_that_hold(
    queues: Queues, reading: Reading, clocks: EdgeClocks, prompt_ns: int
) -> Pairing:
    """The channel's own reading, or another one where its clocks are not possible, without what
    does not hold whatever the clocks are.

    A pair stays when at neither end of the possible clocks (and so nowhere in between) another
    offset fits at which at least one message is received within `prompt_ns`; where events are
    missing, only when it is found at both ends.
    """
    found, lag = reading
    if not found.pairs:
        return found
    if clocks.general.impossible:
        return Pairing.none("the lags of the edges contradict each other")
    sure = lag is not None and lag.sure
    if lag and lag.sure:
        possible = of_lag(lag)
        pairs = _late_enough(queues, found.pairs, lag) if possible.low_ns > 0 else found.pairs
    else:
        possible = clocks.general if _is_whole(queues, found) else clocks.events_missing
        if not possible.low_ns <= found.clock_ns <= possible.high_ns:
            found = pair_queues(queues, possible.low_ns)
        pairs = found.pairs
    whole = _is_whole(queues, found)
    for ahead_ns in possible if possible != EQUAL_CLOCKS else ():
        other = best_run(queues.with_clock_ahead(ahead_ns)).run
        differs = other is not None and other.offset != found.offset
        if other is None or (differs and _promptest_ns(queues, other) - ahead_ns > prompt_ns):
            continue
        if differs and not sure:
            return Pairing.none(_both_fit(found, other, possible))
        if not whole:
            agreed = set(pair_queues(queues, ahead_ns).pairs)
            pairs = [each for each in pairs if each in agreed]
    if not pairs:
        return Pairing.none("events are missing, and no pair holds whatever the clocks are")
    return replace(found, pairs=pairs)


def _late_enough(queues: Queues, pairs: list[tuple[int, int]], lag: Lag) -> list[tuple[int, int]]:
    """Pairs without those whose recv ends too soon to be that of its send, with the receiver's
    clock ahead as a sure lag says."""
    soonest_ns = lag.lag_ns - 2 * SLACK_NS["nccl"]
    return [
        (i, j) for i, j in pairs if queues.received_ns[j] - queues.send_earliest_ns[i] >= soonest_ns
    ]


def _both_fit(found: Pairing, other: Run, possible: ClockRange) -> str:
    return (
        f"offsets {found.offset} and {other.offset} both fit: the receiver's clock may be "
        f"{possible.low_ns / 1000:.0f} to {possible.high_ns / 1000:.0f} us ahead"
    )


def _promptest_ns(queues: Queues, run: Run) -> int:
    """The shortest time in a run from a send's start to its recv's end."""
    recvs = slice(run.first + run.offset, run.last + run.offset)
    return int(queues.delay(slice(run.first, run.last), recvs).min())


def _is_whole(queues: Queues, pairing: Pairing) -> bool:
    """Whether all that face each other at one offset are pairs: no event is missing."""
    facing, _ = queues.facing(pairing.offset or 0)
    return pairing.run == (pairing.offset, facing.start, facing.stop)
