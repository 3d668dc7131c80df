"""How far the ranks' clocks can be apart, from the pairs: a recv cannot end before its send starts.

Call e_r what rank r's clock is ahead of true time. Then e_b - e_a <= end(recv) - start(send) for
every pair of a send on a and its recv on b: the least of them bounds the difference from above.
Chains of ranks add up (shortest paths), and the way back around the ring bounds it from below. What
a single time is good for (SLACK_NS) is allowed for.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product

from repro_pp_graphs.traces.analysis_record import ClockBounds, RankClocks
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.pair.queues import SLACK_NS

# (a, b) -> the most that rank b's clock can be ahead of rank a's; absent where no chain leads.
Bounds = dict[tuple[int, int], float]


def bounds(
    edges: list[Edge], ranks: list[int], one_clock: Iterable[tuple[int, int]] = ()
) -> Bounds:
    """The shortest paths over the ranks, each edge as long as its promptest pair's delay, us;
    `one_clock`: ranks whose host is the same, where there are several."""
    most: Bounds = dict.fromkeys(one_clock, SLACK_NS["nccl"] / 1000)
    for edge in edges:
        slack = SLACK_NS[edge.backend]
        delays = [(recv.end_ns - send.start_ns + slack) / 1000 for send, recv in edge.paired()]
        if delays:
            key = edge.src_rank, edge.dst_rank
            most[key] = min(most.get(key, float("inf")), *delays)
    return chained(most, ranks)


def chained(most: Bounds, ranks: Iterable[int]) -> Bounds:
    """The bounds that follow along chains of ranks: shortest paths."""
    found = dict(most)
    for via, a, b in product(ranks, repeat=3):
        if (a, via) in found and (via, b) in found:
            way = found[a, via] + found[via, b]
            found[a, b] = min(found.get((a, b), float("inf")), way)
    return found


def between(most: Bounds, a: int, b: int) -> ClockBounds:
    """Where `clock of b - clock of a` can lie, us; None where nothing bounds it."""
    low, high = most.get((b, a)), most.get((a, b))
    return ClockBounds(
        low_us=None if low is None else round(-low, 3),
        high_us=None if high is None else round(high, 3),
    )


def of_all_pairs(most: Bounds, ranks: list[int]) -> list[RankClocks]:
    """The bounds of each two ranks."""
    found = [(a, b, between(most, a, b)) for a, b in combinations(ranks, 2)]
    return [RankClocks(a=a, b=b, low_us=at.low_us, high_us=at.high_us) for a, b, at in found]
