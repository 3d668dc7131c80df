"""How far the ranks' clocks can be apart: from causality, and from operations that end together.

Call e_r what rank r's clock is ahead of true time. A recv on b of what a sent cannot end before the
send starts, so e_b - e_a <= end(recv) - start(send) for every pair: the least of them bounds the
difference from above. Chains of ranks add up (shortest paths), and the way back around the ring
bounds it from below. What a single time is good for (SLACK_NS) is allowed for.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from typing import NamedTuple

from repro_pp_graphs.traces.facts import ClockBounds, RankClocks
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.pair.equal_lags import AGREE_NS, Witness
from repro_pp_graphs.traces.pair.queues import SLACK_NS

# A recv may end so much later than its send (NCCL over sockets) without any clock being wrong.
LATENCY_NS = 300_000

# Chains of lags that disagree by more contradict each other.
CONTRADICTION_NS = 100_000

# (a, b) -> the most that rank b's clock can be ahead of rank a's; absent where no chain leads.
Bounds = dict[tuple[int, int], float]


class Apart(NamedTuple):
    """Where `clock of b - clock of a` can lie, ns."""

    low_ns: int
    high_ns: int

    @property
    def impossible(self) -> bool:
        """Whether what was told of the clocks contradicts itself."""
        return self.low_ns > self.high_ns + CONTRADICTION_NS


ON_ONE_CLOCK = Apart(0, 0)
# What the channels of an edge (from, to) tell.
Heard = dict[tuple[int, int], list[Witness]]


def bounds(edges: list[Edge], ranks: list[int]) -> Bounds:
    """The shortest paths over the ranks, each edge as long as its promptest pair's delay, us."""
    most: Bounds = {}
    for edge in edges:
        slack = SLACK_NS[edge.backend]
        delays = [(recv.end_ns - send.start_ns + slack) / 1000 for send, recv in edge.paired()]
        if delays:
            key = edge.src_rank, edge.dst_rank
            most[key] = min(most.get(key, float("inf")), *delays)
    return _chained(most, ranks)


def _chained(most: Bounds, ranks: Iterable[int]) -> Bounds:
    for via, a, b in product(ranks, repeat=3):
        if (a, via) in most and (via, b) in most:
            way = most[a, via] + most[via, b]
            most[a, b] = min(most.get((a, b), float("inf")), way)
    return most


def interval(most: Bounds, a: int, b: int) -> ClockBounds:
    """Where `clock of b - clock of a` can lie, us; None where nothing bounds it."""
    low, high = most.get((b, a)), most.get((a, b))
    return ClockBounds(
        low_us=None if low is None else round(-low, 3),
        high_us=None if high is None else round(high, 3),
    )


def intervals(most: Bounds, ranks: list[int]) -> list[RankClocks]:
    """The interval of each two ranks."""
    found = [(a, b, interval(most, a, b)) for a, b in combinations(ranks, 2)]
    return [RankClocks(a=a, b=b, low_us=at.low_us, high_us=at.high_us) for a, b, at in found]


def told(heard: Heard) -> tuple[dict[tuple[int, int], Apart], bool, bool]:
    """What lags tell of the clocks of every two ranks, along chains of ranks too.

    Then whether nothing speaks against clocks that agree: every lag is that of such, or one that
    several offsets could explain between ranks of which other lags tell that they agree. And
    whether something denies it: a recv seems to end before its send.
    """
    every = [each for rows in heard.values() for each in rows]
    if all(each.agrees for each in every):
        return dict.fromkeys(heard, ON_ONE_CLOCK), True, False
    sure = {ends: [each for each in rows if each.sure] for ends, rows in heard.items()}
    if any(each.sure and each.lag_ns < -AGREE_NS for each in every):
        return _known(sure), False, True
    agreeing = {
        ends: [each for each in rows if each.sure or each.agrees] for ends, rows in heard.items()
    }
    known = _known(agreeing)
    if all(agreeing[ends] or known.get(ends) == ON_ONE_CLOCK for ends in heard):
        return known, False, False
    return _known(sure), False, False


def _known(heard: Heard) -> dict[tuple[int, int], Apart]:
    most: Bounds = {}
    for (a, b), rows in heard.items():
        for each in rows:
            low_ns, high_ns = behind(each)
            most[a, b] = min(most.get((a, b), high_ns), high_ns)
            most[b, a] = min(most.get((b, a), -low_ns), -low_ns)
    _chained(most, {rank for ends in heard for rank in ends})
    return {
        (a, b): Apart(-int(most[b, a]), int(high_ns))
        for (a, b), high_ns in most.items()
        if a != b and (b, a) in most
    }


def behind(witness: Witness) -> Apart:
    """The clocks behind a lag: it is the receiver's lead and what a message took, or waited."""
    lag_ns = witness.lag_ns
    if witness.agrees:
        return ON_ONE_CLOCK
    if lag_ns > 0 and (lag_ns <= LATENCY_NS or not witness.varied):
        return Apart(0, lag_ns)
    return Apart(lag_ns - LATENCY_NS, lag_ns)
