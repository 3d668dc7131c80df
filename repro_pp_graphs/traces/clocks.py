"""How far the ranks' clocks can be apart, from causality alone.

Call e_r what rank r's clock is ahead of true time. A recv on b of what a sent cannot end before the
send starts, so e_b - e_a <= end(recv) - start(send) for every pair: the least of them bounds the
difference from above. Chains of ranks add up (shortest paths), and the way back around the ring
bounds it from below. What a single time is good for (SLACK_NS) is allowed for.
"""

from __future__ import annotations

from itertools import combinations

from repro_pp_graphs.traces.edges import SLACK_NS, Edge

# (a, b) -> the most that rank b's clock can be ahead of rank a's, us; absent where no chain leads.
Bounds = dict[tuple[int, int], float]


def bounds(edges: list[Edge], ranks: list[int]) -> Bounds:
    """The shortest paths over the ranks, each edge as long as its promptest pair's delay."""
    most: Bounds = {}
    for edge in edges:
        slack = SLACK_NS[edge.backend]
        delays = [(recv.end_ns - send.start_ns + slack) / 1000 for send, recv in edge.paired()]
        if delays:
            key = edge.src_rank, edge.dst_rank
            most[key] = min(most.get(key, float("inf")), *delays)
    for via in ranks:
        for a in ranks:
            for b in ranks:
                if (a, via) in most and (via, b) in most:
                    way = most[a, via] + most[via, b]
                    most[a, b] = min(most.get((a, b), float("inf")), way)
    return most


def interval(most: Bounds, a: int, b: int) -> dict[str, float | None]:
    """Where `clock of b - clock of a` can lie, us; None where nothing bounds it."""
    low, high = most.get((b, a)), most.get((a, b))
    return {
        "low_us": None if low is None else round(-low, 3),
        "high_us": None if high is None else round(high, 3),
    }


def intervals(most: Bounds, ranks: list[int]) -> list[dict[str, float | int | None]]:
    """The interval of each two ranks."""
    return [{"a": a, "b": b, **interval(most, a, b)} for a, b in combinations(ranks, 2)]
