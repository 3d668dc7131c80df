"""The ring's edges: their P2P operations paired, and what each pair's times say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.clock_shift import Witness
from repro_pp_graphs.traces.clocks import SLACK_NS
from repro_pp_graphs.traces.folder import Case
from repro_pp_graphs.traces.model import P2POp, RankTrace
from repro_pp_graphs.traces.pairing import Pairing, pair_queues
from repro_pp_graphs.traces.quantiles import median, quantile
from repro_pp_graphs.traces.queues import Queues, queues_of
from repro_pp_graphs.traces.settle import allow_for_clocks

Floats = npt.NDArray[np.float64]
# Of a channel's recvs, from which share on it counts as posted in batches.
BATCHED_SHARE = 0.2


@dataclass(slots=True)
class Channel:
    """The sends and recvs of one process group on an edge, each in its order, paired.

    `queues` are their columns, None where nothing can be paired; `witness` what lags tell.
    """

    name: str
    sends: list[P2POp]
    recvs: list[P2POp]
    pairing: Pairing
    queues: Queues | None = None
    witness: Witness | None = None

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
    def one_host(self) -> bool | None:
        """Whether the ranks run on the same host; None where their files name none."""
        hosts = [rank.host for rank in (self.src, self.dst) if rank and rank.host]
        return hosts[0] == hosts[1] if len(hosts) == 2 else None

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
    edges = [_edge(key, sends.get(key, []), recvs.get(key, []), ranks) for key in keys]
    allow_for_clocks(edges)
    return edges


def _edge(
    key: tuple[str, int, int],
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


def sent_ns(send: P2POp, recv: P2POp) -> int:
    """When a paired send was over."""
    return send.end_ns if send.backend == "nccl" else min(send.end_ns, recv.end_ns)


def spread(values: Floats) -> dict[str, float]:
    """Mean, median, 99th percentile and maximum (us), empty for no values."""
    if not len(values):
        return {}
    return {
        "mean": round(float(np.mean(values)), 3),
        "median": round(median(values), 3),
        "p99": round(quantile(values, 0.99), 3),
        "max": round(float(np.max(values)), 3),
    }
