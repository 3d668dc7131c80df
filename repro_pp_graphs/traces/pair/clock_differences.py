"""How far the clocks of two ranks can be apart, as the equal lags of all edges say.

A lag is the receiver's lead and what a message took or waited. Along chains of ranks these add up,
and bound the clocks of ranks whose own lags say nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from repro_pp_graphs.traces.pair.clock_bounds import Bounds, chained
from repro_pp_graphs.traces.pair.equal_lags import AGREE_NS, Lag
from repro_pp_graphs.traces.rank_trace import Backend

# A recv may end so much later than its send (NCCL over sockets) without any clock being wrong.
LATENCY_NS = 300_000
# Chains of lags that disagree by more contradict each other.
CONTRADICTION_NS = 100_000
# How far two ranks' clocks may be apart: of two hosts what NTP leaves, of one where nothing says
# that they agree. A message that takes as long is not a prompt one.
HOSTS_APART_NS = 2_000_000
ONE_HOST_APART_NS = 1_000_000

Ends = tuple[int, int]  # an edge: sending and receiving rank
Lags = Mapping[Ends, Sequence[Lag]]  # of the channels of each edge that have equal lags


class ClockRange(NamedTuple):
    """Where `clock of the receiver - clock of the sender` can lie, ns."""

    low_ns: int
    high_ns: int

    @property
    def impossible(self) -> bool:
        """Whether the lags behind it contradict each other."""
        return self.low_ns > self.high_ns + CONTRADICTION_NS


EQUAL_CLOCKS = ClockRange(0, 0)


class EdgeClocks(NamedTuple):
    """The clocks of an edge's ranks: in general, and where events are missing on the edge."""

    general: ClockRange
    events_missing: ClockRange


class Differences(NamedTuple):
    """What all lags together say of the ranks' clocks."""

    known: dict[Ends, ClockRange]  # of each two ranks that lags connect, in either direction
    all_agree: bool  # every lag fits clocks that agree
    some_differ: bool  # a lag rules out that all agree: a recv seems to end before its send


def apart_ns(one_host: bool | None) -> int:
    """How far two ranks' clocks may be apart where nothing bounds them; None: hosts not known."""
    return HOSTS_APART_NS if one_host is False else ONE_HOST_APART_NS


def differences(lags: Lags) -> Differences:
    """The possible clock difference of each two ranks; whether every lag fits equal clocks; whether
    some lag rules them out.

    A lag that several offsets could explain counts where it fits equal clocks, as long as the
    others then say of all ranks that their clocks are equal.
    """
    every = [lag for rows in lags.values() for lag in rows]
    if all(lag.agrees for lag in every):
        return Differences(dict.fromkeys(lags, EQUAL_CLOCKS), all_agree=True, some_differ=False)
    sure = {ends: [lag for lag in rows if lag.sure] for ends, rows in lags.items()}
    if any(lag.sure and lag.lag_ns < -AGREE_NS for lag in every):
        return Differences(_ranges(sure), all_agree=False, some_differ=True)
    agreeing = {
        ends: [lag for lag in rows if lag.sure or lag.agrees] for ends, rows in lags.items()
    }
    known = _ranges(agreeing)
    if not all(agreeing[ends] or known.get(ends) == EQUAL_CLOCKS for ends in lags):
        known = _ranges(sure)
    return Differences(known, all_agree=False, some_differ=False)


def of_lag(lag: Lag) -> ClockRange:
    """Clock differences that explain a lag: the receiver's lead plus travel or waiting time."""
    if lag.agrees:
        return EQUAL_CLOCKS
    if lag.lag_ns > 0 and (lag.lag_ns <= LATENCY_NS or not lag.varied):
        return ClockRange(0, lag.lag_ns)
    return ClockRange(lag.lag_ns - LATENCY_NS, lag.lag_ns)


def _ranges(lags: Lags) -> dict[Ends, ClockRange]:
    most: Bounds = {}
    for (a, b), rows in lags.items():
        for low_ns, high_ns in map(of_lag, rows):
            most[a, b] = min(most.get((a, b), high_ns), high_ns)
            most[b, a] = min(most.get((b, a), -low_ns), -low_ns)
    most = chained(most, {rank for ends in lags for rank in ends})
    return {
        (a, b): ClockRange(-int(most[b, a]), int(high_ns))
        for (a, b), high_ns in most.items()
        if a != b and (b, a) in most
    }


def clocks_of(
    found: Differences, ends: Ends, backend: Backend, one_host: bool | None
) -> EdgeClocks:
    """The clocks of one edge's ranks; `one_host`: None where the files do not say."""
    if backend == "gloo" and not found.some_differ and one_host is not False:
        return EdgeClocks(EQUAL_CLOCKS, EQUAL_CLOCKS)  # the host's: times of GPUs are converted
    if ends in found.known:
        return EdgeClocks(found.known[ends], found.known[ends])
    free = ClockRange(-apart_ns(one_host), apart_ns(one_host))
    if one_host and not found.some_differ:
        return EdgeClocks(EQUAL_CLOCKS, EQUAL_CLOCKS)
    if one_host is None and found.all_agree:
        return EdgeClocks(EQUAL_CLOCKS, free)
    return EdgeClocks(free, free)
