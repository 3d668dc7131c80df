"""The ring's edges: queues of sends and recvs, the lags in them, the ranks' clocks, the pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from repro_pp_graphs.traces.pair.clock_check import pairs_that_hold
from repro_pp_graphs.traces.pair.clock_differences import (
    EdgeClocks,
    apart_ns,
    clocks_of,
    differences,
)
from repro_pp_graphs.traces.pair.edge import Channel, Edge, Pairing
from repro_pp_graphs.traces.pair.equal_lags import Lag, Reading, read_alone
from repro_pp_graphs.traces.pair.numbered_pairs import number_pairs
from repro_pp_graphs.traces.pair.queues import SLACK_NS, Queues, queues_of
from repro_pp_graphs.traces.rank_trace import Backend, Case, P2POp, RankTrace

NOT_TOGETHER = "these ranks were not recorded at the same time"
# Of a channel's recvs, from which share on it counts as posted in batches.
BATCHED_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class OpenChannel:
    """The sends and recvs of one process group on an edge, not yet paired."""

    name: str
    sends: list[P2POp]
    recvs: list[P2POp]
    queues: Queues | None  # None where nothing can be paired
    reason: str = ""  # why it cannot

    @property
    def batched(self) -> bool:
        """Whether its operations are in kernels with others (batch_isend_irecv over NCCL)."""
        return any(op.batch for op in (*self.sends, *self.recvs))


@dataclass(frozen=True, slots=True)
class OpenEdge:
    """All P2P of one backend from one global rank to another, not yet paired."""

    backend: Backend
    src_rank: int
    dst_rank: int
    src: RankTrace | None
    dst: RankTrace | None
    channels: list[OpenChannel]

    @property
    def ends(self) -> tuple[int, int]:
        return self.src_rank, self.dst_rank

    @property
    def one_host(self) -> bool | None:
        """Whether the ranks run on the same host; None where their files name none."""
        hosts = [rank.host for rank in (self.src, self.dst) if rank and rank.host]
        return hosts[0] == hosts[1] if len(hosts) == 2 else None


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
    found = [_open(key, sends.get(key, []), recvs.get(key, []), ranks) for key in keys]
    numbered = [edge.one_host is False or not apart(edge.src, edge.dst) for edge in found]
    return [
        number_pairs(edge) if by_number else edge
        for edge, by_number in zip(pair_edges(found), numbered, strict=True)
    ]


def apart(one: RankTrace | None, other: RankTrace | None) -> bool:
    """Whether two ranks were not recorded at the same time, by their files: nothing of one can be
    held against the other, unless messages are numbered and clocks are of two hosts."""
    extents = [rank.extent() for rank in (one, other) if rank]
    known = [extent for extent in extents if extent]
    return len(known) == 2 and max(begin for begin, _ in known) >= min(end for _, end in known)


def pair_edges(edges: list[OpenEdge]) -> list[Edge]:
    """The edges paired: each channel by its own times, then as all lags together allow."""
    readings = [_readings(edge) for edge in edges]
    lags: dict[tuple[int, int], list[Lag]] = {}
    for edge, rows in zip(edges, readings, strict=True):
        if found := [reading.lag for reading in rows if reading.lag]:
            lags[edge.ends] = found
    known = differences(lags)
    return [
        _paired(edge, rows, clocks_of(known, edge.ends, edge.backend, edge.one_host))
        for edge, rows in zip(edges, readings, strict=True)
    ]


def _readings(edge: OpenEdge) -> list[Reading]:
    apart = apart_ns(edge.one_host)
    return [
        read_alone(each.queues, edge.backend, apart, each.batched)
        if each.queues
        else Reading(Pairing.none(each.reason))
        for each in edge.channels
    ]


def _paired(edge: OpenEdge, readings: list[Reading], clocks: EdgeClocks) -> Edge:
    prompt_ns = apart_ns(edge.one_host)
    channels = [
        Channel(
            each.name,
            each.sends,
            each.recvs,
            pairs_that_hold(each.queues, reading, clocks, prompt_ns)
            if each.queues
            else reading.pairing,
        )
        for each, reading in zip(edge.channels, readings, strict=True)
    ]
    return Edge(edge.backend, edge.src_rank, edge.dst_rank, edge.src, edge.dst, channels)


def _open(
    key: tuple[Backend, int, int],
    sends: list[P2POp],
    recvs: list[P2POp],
    ranks: dict[int, RankTrace],
) -> OpenEdge:
    """An edge with its operations by channel, and the queues of those that can be paired."""
    backend, src, dst = key
    absent = [f"no trace of rank {rank}" for rank in (src, dst) if rank not in ranks]
    absent += [NOT_TOGETHER] * apart(ranks.get(src), ranks.get(dst))
    channels = []
    for name in _channel_names(sends, recvs):
        ours = [op for op in sends if name in (None, op.channel)]
        theirs = [op for op in recvs if name in (None, op.channel)]
        reason = absent[0] if absent else _unpairable(ours, theirs, ranks[src], ranks[dst])
        queues = None if reason else queues_of(ours, theirs, SLACK_NS[backend])
        channels.append(OpenChannel(name or "", ours, theirs, queues, reason))
    return OpenEdge(backend, src, dst, ranks.get(src), ranks.get(dst), channels)


def _unpairable(
    sends: list[P2POp], recvs: list[P2POp], sender: RankTrace, receiver: RankTrace
) -> str:
    """Why a channel cannot be paired; empty where it can."""
    if not sends or not recvs:
        return "no recvs" if sends else "no sends"
    if sends[0].backend == "nccl" and (unknown := sender.gpu_unknown or receiver.gpu_unknown):
        return unknown  # as many may be missing on both sides: then order and times mislead
    if recvs[0].backend == "gloo" and _batched(recvs, receiver):
        return "posted in batches: when a recv was over is not known"
    return ""


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
