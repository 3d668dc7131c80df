"""How far the ranks' clocks can be apart, from causality alone.

Call e_r what rank r's clock is ahead of true time. A recv on b of what a sent cannot end before the
send starts, so e_b - e_a <= end(recv) - start(send) for every pair: the least of them bounds the
difference from above. Chains of ranks add up (shortest paths), and the way back around the ring
bounds it from below. What a single time is good for (SLACK_NS) is allowed for.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.edges import SLACK_NS, Edge

Floats = npt.NDArray[np.float64]


def bounds(edges: list[Edge], ranks: list[int]) -> Floats:
    """Matrix over ranks: [a, b] is the most b's clock can be ahead of a's, us; inf: no path."""
    at = {rank: index for index, rank in enumerate(ranks)}
    most = np.full((len(ranks), len(ranks)), np.inf)
    np.fill_diagonal(most, 0.0)
    for edge in edges:
        slack = SLACK_NS[edge.backend]
        delays = [(recv.end_ns - send.start_ns + slack) / 1000 for send, recv in edge.paired()]
        if delays:
            a, b = at[edge.src_rank], at[edge.dst_rank]
            most[a, b] = min(most[a, b], *delays)
    for via in range(len(ranks)):
        most = np.minimum(most, most[:, via : via + 1] + most[via : via + 1, :])
    return most


def intervals(edges: list[Edge], ranks: list[int]) -> list[dict[str, float | int | None]]:
    """For each two ranks the interval (us) in which `clock of b - clock of a` can lie."""
    most = bounds(edges, ranks)
    found = []
    for i, a in enumerate(ranks):
        for j in range(i + 1, len(ranks)):
            low, high = -most[j, i], most[i, j]
            found.append(
                {
                    "a": a,
                    "b": ranks[j],
                    "low_us": round(float(low), 3) if np.isfinite(low) else None,
                    "high_us": round(float(high), 3) if np.isfinite(high) else None,
                }
            )
    return found


def contradiction(edges: list[Edge], ranks: list[int]) -> list[int]:
    """Ranks on a cycle of pairs that no setting of the clocks allows; empty when all is well."""
    most = bounds(edges, ranks)
    return [rank for index, rank in enumerate(ranks) if most[index, index] < 0]
