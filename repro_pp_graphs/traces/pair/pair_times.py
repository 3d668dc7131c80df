"""What the times of an edge's pairs say: who waited for whom, and how long the transfer took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro_pp_graphs.traces.pair.edge import Edge, sent_ns
from repro_pp_graphs.traces.quantiles import Floats


@dataclass(frozen=True, slots=True)
class PairTimes:
    """Columns over the pairs of an edge, us; by the definitions in docs/traces.md."""

    transfer: Floats
    shorter: Floats
    send_wait: Floats
    recv_wait: Floats
    lag: Floats
    buffered: int


def pair_times(edge: Edge) -> PairTimes:
    """Waits and transfer of every pair; a send that ends before its recv starts was buffered.

    A gloo send lasts until the sender waits for it: it counts as over when its recv is.
    """
    rows = [(s.start_ns, sent_ns(s, r), r.start_ns, r.end_ns) for s, r in edge.paired()]
    times = np.array(rows, dtype=np.int64).reshape(-1, 4)
    s_start, s_end, r_start, r_end = times.T
    return PairTimes(
        transfer=(np.maximum(s_end, r_end) - np.maximum(s_start, r_start)) / 1000,
        shorter=np.minimum(s_end - s_start, r_end - r_start) / 1000,
        send_wait=np.maximum(0, r_start - s_start) / 1000,
        recv_wait=np.maximum(0, s_start - r_start) / 1000,
        lag=(r_end - s_end) / 1000,
        buffered=int(np.sum(s_end < r_start)),
    )
