"""The ring's edges: their P2P operations paired, and what each pair's times say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro_pp_graphs.traces.model import Backend, Case, P2POp, RankTrace
from repro_pp_graphs.traces.pair.clock_check import allow_for_clocks
from repro_pp_graphs.traces.pair.edge import Channel, Edge, Pairing, sent_ns
from repro_pp_graphs.traces.pair.pairing import pair_queues
from repro_pp_graphs.traces.pair.queues import SLACK_NS, queues_of
from repro_pp_graphs.traces.quantiles import Floats

# Of a channel's recvs, from which share on it counts as posted in batches.
BATCHED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class PairTimes:
    """Columns over the pairs of an edge, us; by the definitions in docs/traces.md."""

    transfer: Floats
    shorter: Floats
    send_wait: Floats
    recv_wait: Floats
    lag: Floats
    buffered: int


def edges_of(case: Case) -> list[Edge]:
    """Every edge that carries P2P, NCCL first, by sending rank."""
    ranks = {rank.rank: rank for rank in case.ranks}
    sends: dict[tuple[Backend, int, int], list[P2POp]] = {}
    recvs: dict[tuple[Backend, int, int], list[P2POp]] = {}
    for rank in case.ranks:
        for op in rank.p2p:
            if op.kind == "send":
                sends.setdefault((op.backend, rank.rank, op.peer), []).append(op)
            else:
                recvs.setdefault((op.backend, op.peer, rank.rank), []).append(op)
    keys = sorted({*sends, *recvs}, key=lambda key: (key[0] != "nccl", key[1:]))
    edges = [_edge(key, sends.get(key, []), recvs.get(key, []), ranks) for key in keys]
    allow_for_clocks(edges)
    return edges


def _edge(
    key: tuple[Backend, int, int],
    sends: list[P2POp],
    recvs: list[P2POp],
    ranks: dict[int, RankTrace],
) -> Edge:
    """An edge, its channels paired as if its ranks had one clock."""
    backend, src, dst = key
    absent = [rank for rank in (src, dst) if rank not in ranks]
    edge = Edge(backend, src, dst, ranks.get(src), ranks.get(dst), [])
    for name in _channel_names(sends, recvs):
        ours = [op for op in sends if name in (None, op.channel)]
        theirs = [op for op in recvs if name in (None, op.channel)]
        channel = Channel(name or "", ours, theirs, Pairing())
        edge.channels.append(channel)
        if absent:
            channel.pairing.reason = f"no trace of rank {absent[0]}"
        elif not ours or not theirs:
            channel.pairing.reason = "no recvs" if ours else "no sends"
        elif backend == "gloo" and _batched(theirs, ranks[dst]):
            channel.pairing.reason = "posted in batches: when a recv was over is not known"
        else:
            channel.queues = queues_of(ours, theirs, SLACK_NS[backend])
            channel.pairing = pair_queues(channel.queues)
    return edge


def _batched(recvs: list[P2POp], rank: RankTrace) -> bool:
    """Whether many recvs are posted before others and waited for later (batch_isend_irecv): a gloo
    recv's annotation ends when it is waited for, so its end says nothing of the transfer."""
    calls = np.array([span.start_ns for span in (*rank.sends, *rank.recvs)], dtype=np.int64)
    calls.sort()
    starts = np.array([op.start_ns for op in recvs], dtype=np.int64)
    ends = np.array([op.end_ns for op in recvs], dtype=np.int64)
    inside = calls.searchsorted(ends) - calls.searchsorted(starts, side="right")
    return float((inside > 0).mean()) > BATCHED_SHARE


def _channel_names(sends: list[P2POp], recvs: list[P2POp]) -> list[str | None]:
    """Channels both sides know; one for all (None) where the sides' names do not agree."""
    ours, theirs = {op.channel for op in sends}, {op.channel for op in recvs}
    agree = ours == theirs or not ours or not theirs
    return [*sorted(ours | theirs)] if agree else [None]


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
