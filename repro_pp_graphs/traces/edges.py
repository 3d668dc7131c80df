"""The ring's edges: their P2P operations paired, and what each pair's times say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.folder import Case
from repro_pp_graphs.traces.model import P2POp, RankTrace
from repro_pp_graphs.traces.pairing import Pairing, pair
from repro_pp_graphs.traces.quantiles import median, quantile

Floats = npt.NDArray[np.float64]
# How far a recv may seem to end before its send starts: GPU times of two processes are converted
# each on its own, and gloo's annotation opens only after the message has been handed over.
BATCHED_SHARE = 0.2  # of a channel's recvs, from which on it counts as posted in batches
SLACK_NS = {"nccl": 10_000, "gloo": 50_000}

# How far the clocks of two hosts may be apart where nothing tells it.
HOSTS_APART_NS = 2_000_000


@dataclass(slots=True)
class Channel:
    """The sends and recvs of one process group on an edge, each in its order, paired."""

    name: str
    sends: list[P2POp]
    recvs: list[P2POp]
    pairing: Pairing

    def paired(self) -> list[tuple[P2POp, P2POp]]:
        return [(self.sends[i], self.recvs[j]) for i, j in self.pairing.pairs]


@dataclass(slots=True)
class Edge:
    """All P2P of one backend from one global rank to another; a rank without a trace is None."""

    backend: str
    src_rank: int
    dst_rank: int
    src: RankTrace | None
    dst: RankTrace | None
    channels: list[Channel]

    def paired(self) -> list[tuple[P2POp, P2POp]]:
        return [pair for channel in self.channels for pair in channel.paired()]

    @property
    def apart(self) -> bool:
        """Whether the ranks are known to run on different hosts."""
        hosts = {rank.host for rank in (self.src, self.dst) if rank and rank.host}
        return len(hosts) > 1

    @property
    def largest(self) -> Channel:
        """The channel with most pairs, among equals with most operations."""
        return max(self.channels, key=lambda c: (len(c.pairing.pairs), len(c.sends) + len(c.recvs)))


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
    sends: dict[tuple[str, int, int], list[P2POp]] = {}
    recvs: dict[tuple[str, int, int], list[P2POp]] = {}
    for rank in case.ranks:
        for op in rank.p2p:
            if op.kind == "send":
                sends.setdefault((op.backend, rank.rank, op.peer), []).append(op)
            else:
                recvs.setdefault((op.backend, op.peer, rank.rank), []).append(op)
    keys = sorted({*sends, *recvs}, key=lambda key: (key[0] != "nccl", key[1:]))
    found = {key: _edge(key, sends.get(key, []), recvs.get(key, []), ranks) for key in keys}
    known = _clocks_ahead(found.values())
    for key, edge in found.items():
        ahead_ns = known.get((edge.src_rank, edge.dst_rank))
        if edge.apart and ahead_ns is not None and any(c.pairing.reason for c in edge.channels):
            found[key] = _edge(key, sends.get(key, []), recvs.get(key, []), ranks, ahead_ns)
    return list(found.values())


def _clocks_ahead(edges: Iterable[Edge]) -> dict[tuple[int, int], int]:
    """How far rank b's clock is ahead of rank a's (ns), where lags tell it, also along chains."""
    known: dict[tuple[int, int], int] = {}
    for edge in edges:
        for channel in edge.channels:
            if channel.pairing.lag_ns is not None:
                known[edge.src_rank, edge.dst_rank] = channel.pairing.lag_ns
                known[edge.dst_rank, edge.src_rank] = -channel.pairing.lag_ns
    ranks = {rank for pair_of in known for rank in pair_of}
    for via, a, b in product(ranks, repeat=3):
        if (a, via) in known and (via, b) in known:
            known.setdefault((a, b), known[a, via] + known[via, b])
    return known


def _edge(
    key: tuple[str, int, int],
    sends: list[P2POp],
    recvs: list[P2POp],
    ranks: dict[int, RankTrace],
    ahead_ns: int | None = None,
) -> Edge:
    """An edge, its channels paired; `ahead_ns`: the receiver's clock as other edges tell it."""
    backend, src, dst = key
    absent = [rank for rank in (src, dst) if rank not in ranks]
    edge = Edge(backend, src, dst, ranks.get(src), ranks.get(dst), [])
    apart_ns = HOSTS_APART_NS if edge.apart and ahead_ns is None else 0
    for name in _channel_names(sends, recvs):
        ours = [op for op in sends if name in (None, op.channel)]
        theirs = [op for op in recvs if name in (None, op.channel)]
        pairing = (
            Pairing(reason=f"no trace of rank {absent[0]}")
            if absent
            else Pairing(reason="posted in batches: when a recv was over is not known")
            if backend == "gloo" and _batched(theirs, ranks[dst])
            else pair(ours, theirs, SLACK_NS[backend], ahead_ns=ahead_ns or 0, apart_ns=apart_ns)
        )
        edge.channels.append(Channel(name or "", ours, theirs, pairing))
    return edge


def _batched(recvs: list[P2POp], rank: RankTrace) -> bool:
    """Whether many recvs are posted before others and waited for later (batch_isend_irecv): a gloo
    recv's annotation ends when it is waited for, so its end says nothing of the transfer."""
    calls = np.array(sorted(span.start_ns for span in (*rank.sends, *rank.recvs)), dtype=np.int64)
    starts, ends = (
        np.array([getattr(op, name) for op in recvs], dtype=np.int64)
        for name in ("start_ns", "end_ns")
    )
    inside = np.searchsorted(calls, ends) - np.searchsorted(calls, starts, side="right")
    return bool(len(recvs)) and float(np.mean(inside > 0)) > BATCHED_SHARE


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


def sent_ns(send: P2POp, recv: P2POp) -> int:
    """When a paired send was over."""
    return send.end_ns if send.backend == "nccl" else min(send.end_ns, recv.end_ns)


def spread(values: Floats) -> dict[str, float]:
    """Median, 99th percentile and maximum (us), empty for no values."""
    if not len(values):
        return {}
    return {
        "median": round(median(values), 3),
        "p99": round(quantile(values, 0.99), 3),
        "max": round(float(np.max(values)), 3),
    }
