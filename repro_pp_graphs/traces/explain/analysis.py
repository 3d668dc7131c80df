"""The facts of one case, put together: see traces/analysis_record.py for what each of them is."""

from __future__ import annotations

from typing import Any

import numpy as np

from repro_pp_graphs.traces.analysis_record import (
    Analysis,
    ChannelFacts,
    DecodeStep,
    EdgeFacts,
    NumberedPairs,
    RankFacts,
)
from repro_pp_graphs.traces.explain.coverage import recorded_by_all
from repro_pp_graphs.traces.explain.gpus import facts_of, shared_gpus
from repro_pp_graphs.traces.explain.host import Host, anchors, hidden_size, host_of, token_counts
from repro_pp_graphs.traces.explain.prefill import mark_prefill
from repro_pp_graphs.traces.explain.send_behaviour import manner
from repro_pp_graphs.traces.explain.step_time import DEPTH, LATE, decode_step
from repro_pp_graphs.traces.explain.steps import bubble, gpu_work, micro_batches, rank_facts
from repro_pp_graphs.traces.explain.token_return import token_return
from repro_pp_graphs.traces.explain.turn import turns
from repro_pp_graphs.traces.explain.words import clock_doubt_us
from repro_pp_graphs.traces.pair.clock_bounds import Bounds, between, bounds, of_all_pairs
from repro_pp_graphs.traces.pair.edge import Edge, sent_ns, without_pairs
from repro_pp_graphs.traces.pair.edges import NOT_TOGETHER
from repro_pp_graphs.traces.pair.host_clocks import aligned_edges, host_clocks, same_host
from repro_pp_graphs.traces.quantiles import spread_if_any
from repro_pp_graphs.traces.rank_trace import Case


def analyze(
    case: Case, edges: list[Edge] | None = None, hosts: list[Host] | None = None
) -> Analysis:
    """The analysis of one case, without the critical path (path/whole_analysis.py adds it);
    `edges` and `hosts` are those that `paired_hosts` found, where they are there."""
    if edges is None or hosts is None:
        edges, hosts = paired_hosts(case)
    numbers = [rank.rank for rank in case.ranks]
    most = bounds(edges, numbers, same_host(case))
    facts = [_edge(case, edge, most, _operators_of_all(case)) for edge in edges]
    nccl = [edge for edge in facts if edge.backend == "nccl"]
    gloo = [edge for edge in facts if edge.backend == "gloo"]
    # without a GPU gloo carries the tensors; with one, their sizes and the requests
    on_gpu = bool(nccl) or any(rank.unlabelled_p2p for rank in case.ranks)
    start, end = recorded_by_all(case, hosts)
    last = [host for host in hosts if host.rank.pp == case.pp_size - 1]
    ranks = _ranks(case, hosts, (start, end))
    step = decode_step(case, hosts)
    # with a deeper loop, annotations do not show how many slots it has
    known = None if step == DEPTH else micro_batches(case)
    under_way = step.micro_batches if isinstance(step, DecodeStep) else known
    found, unknown = turns(case, hosts)
    gpus = [facts_of(case, gpu, (start, end)) for gpu in shared_gpus(case, hosts)]
    names = sorted({rank.host for rank in case.ranks if rank.host})
    clocks = of_all_pairs(most, numbers)
    return Analysis(
        case=case.name,
        pp_size=case.pp_size,
        tp_size=case.tp_size,
        window_us=(end - start) / 1000,
        hosts=names,
        gpu_models=sorted({rank.gpu_model for rank in case.ranks if rank.gpu_model}),
        hidden_size=hidden_size(hosts),
        p2p=nccl if on_gpu else gloo,
        p2p_gloo=gloo if on_gpu else [],
        p2p_without_metadata={
            case.label(rank): rank.unlabelled_p2p for rank in case.ranks if rank.unlabelled_p2p
        },
        clocks=clocks,
        host_clocks=host_clocks(case, edges),
        gpu_only=bool(case.ranks) and all(rank.gpu_only for rank in case.ranks),
        sends=manner(last[0]) if last and case.pp_size > 1 else "unknown",
        decode_step=step if isinstance(step, DecodeStep) else None,
        decode_step_unknown="" if isinstance(step, DecodeStep) else step,
        turns=found,
        turns_unknown=unknown,
        token_return=token_return(case, hosts, edges, clock_doubt_us(clocks, names)),
        graph_launches={case.label(rank): len(rank.launches) for rank in case.ranks},
        ranks=ranks,
        shared_gpus=gpus,
        ring=bubble(case, ranks, under_way, gpus),
        warnings=[*case.warnings, *_doubts(case, edges)],
    )


def paired_hosts(case: Case) -> tuple[list[Edge], list[Host]]:
    """The case's edges, paired, and its hosts explained with them.

    Where the pairs contradict what the ranks' loops can do, as with clocks apart, none is kept.
    """
    edges = aligned_edges(case)
    hosts = hosts_of(case, edges)
    step = decode_step(case, hosts)
    if isinstance(step, DecodeStep) or not step.startswith(LATE):
        return edges, hosts
    edges = [without_pairs(edge, step) for edge in edges]
    return edges, hosts_of(case, edges)


def hosts_of(case: Case, edges: list[Edge]) -> list[Host]:
    """Every rank's host, the messages of its prefill batches marked."""
    hosts = [host_of(rank, gpu_work(rank), edges, case.pp_size) for rank in case.ranks]
    mark_prefill(hosts, case.pp_size)
    for gpu in shared_gpus(case, hosts):
        together = gpu.compute() if gpu.known and gpu.seen else None
        for host in gpu.hosts:
            host.shares = True
            host.beside = [other for other in gpu.hosts if other is not host]
            host.compute_of_all = together
    return hosts


def _ranks(case: Case, hosts: list[Host], window_ns: tuple[int, int]) -> dict[str, RankFacts]:
    """Each rank's use of the window and its steps, by its label."""
    last = [host for host in hosts if host.rank.pp == case.pp_size - 1]
    sizes = token_counts(last[0]) if last else []  # every rank runs the same batches
    found = {}
    for host in hosts:
        # which messages a batch gave is known of a rank whose place in the ring is
        sent, of_each = [each.start_ns for each in anchors(host, case.pp_size)], sizes
        if not host.rank.rank_known:
            sent, of_each = [], []
        found[case.label(host.rank)] = rank_facts(host.rank, host.work, window_ns, sent, of_each)
    return found


def _edge(case: Case, edge: Edge, most: Bounds, window_ns: tuple[int, int]) -> EdgeFacts:
    """One edge; `offset` and `unpairable` are of its channel with most pairs."""
    sends = sum(len(channel.sends) for channel in edge.channels)
    recvs = sum(len(channel.recvs) for channel in edge.channels)
    pairs = sum(len(channel.pairing.pairs) for channel in edge.channels)
    return EdgeFacts(
        src=edge.src_rank // case.tp_size,
        dst=edge.dst_rank // case.tp_size,
        tp=edge.src_rank % case.tp_size,
        backend=edge.backend,
        sends=sends,
        recvs=recvs,
        offset=edge.largest.pairing.offset,
        pairs=pairs,
        unmatched_sends=sends - pairs,
        unmatched_recvs=recvs - pairs,
        unpairable=edge.largest.pairing.reason or None,
        channels=[
            ChannelFacts(
                group=channel.name,
                sends=len(channel.sends),
                recvs=len(channel.recvs),
                offset=channel.pairing.offset,
                pairs=len(channel.pairing.pairs),
                clock_ahead_us=channel.pairing.clock_ns / 1000,
            )
            for channel in edge.channels
        ],
        clock_us=between(most, edge.src_rank, edge.dst_rank),
        by_number=_by_number(edge),
        **_times(edge, window_ns),
    )


def _operators_of_all(case: Case) -> tuple[int, int]:
    """The time in which every rank's host ran recorded operators, ns; (0, 0) where that of one is
    not known."""
    known = [(int(o[0, 0]), int(o[-1, 1])) for rank in case.ranks if len(o := rank.operators)]
    if len(known) < len(case.ranks) or not known:
        return 0, 0
    return max(begin for begin, _ in known), min(end for _, end in known)


def _times(edge: Edge, window_ns: tuple[int, int]) -> dict[str, Any]:
    """Who waited for whom, and the transfers (docs/traces.md), as fields of EdgeFacts.

    Over the pairs of which both ends began while every rank was recorded, where there are such: a
    rank that begins or stops to record may keep the other one waiting for seconds. A send that ends
    before its recv starts was buffered; a gloo send lasts until the sender waits for it: it counts
    as over when its recv is.
    """
    rows = [(s.start_ns, sent_ns(s, r), r.start_ns, r.end_ns) for s, r in edge.paired()]
    times = np.array(rows, dtype=np.int64).reshape(-1, 4)
    begun = times[:, [0, 2]]
    inside = ((begun >= window_ns[0]) & (begun <= window_ns[1])).all(axis=1)
    s_start, s_end, r_start, r_end = times[inside if inside.any() else slice(None)].T
    spans_ns = {
        "transfer_us": np.maximum(s_end, r_end) - np.maximum(s_start, r_start),
        "shorter_us": np.minimum(s_end - s_start, r_end - r_start),
        "send_wait_us": np.maximum(0, r_start - s_start),
        "recv_wait_us": np.maximum(0, s_start - r_start),
        "lag_us": r_end - s_end,
    }
    spreads = {name: spread_if_any(ns / 1000) for name, ns in spans_ns.items()}
    return {"buffered": int(np.sum(s_end < r_start)), **spreads}


def _of_all(reason: str) -> bool:
    """Whether why a channel is not paired has a line of its own for all of them."""
    return reason == NOT_TOGETHER or reason.startswith(LATE)


def _none_paired(case: Case, edges: list[Edge]) -> list[str]:
    """That ranks were recorded one after the other, or that no pairs fit the ranks' loops."""
    reasons = {channel.pairing.reason for edge in edges for channel in edge.channels}
    found = [f"no messages are paired: {reason}" for reason in reasons if reason.startswith(LATE)]
    if NOT_TOGETHER not in reasons:
        return found
    begins = [(rank.extent() or (0, 0))[0] for rank in case.ranks]
    apart_s = (max(begins) - min(begins)) / 1e9
    return [
        f"the ranks' files were not recorded at the same time (they begin {apart_s:.1f} s apart): "
        "they are of different profiles, of hosts whose clocks differ, or cut short. Nothing is "
        "said of times between ranks; analyse the files of one profile together"
    ]


def _by_number(edge: Edge) -> NumberedPairs | None:
    """The edge's agreement of numbers with order and times; None where a channel lacks it."""
    found = [channel.agreement for channel in edge.channels if channel.pairing.pairs]
    known = [each for each in found if each]
    if not known or len(known) < len(found):
        return None
    return NumberedPairs(*(sum(column) for column in zip(*known, strict=True)))


def _doubts(case: Case, edges: list[Edge]) -> list[str]:
    """What the pairing could not settle, one line each."""
    found = _none_paired(case, edges)
    found += [
        f"{edge.backend} rank {edge.src_rank} -> {edge.dst_rank}: {len(channel.sends)} sends and "
        f"{len(channel.recvs)} recvs not paired: {channel.pairing.reason}"
        for edge in edges
        for channel in edge.channels
        if edge.src and edge.dst and channel.pairing.reason and not _of_all(channel.pairing.reason)
    ]
    found += [
        f"{edge.backend} rank {edge.src_rank} -> {edge.dst_rank}: the receiver's clock seems "
        f"{channel.pairing.clock_ns / 1000:.0f} us ahead: corrected when pairing, not in the times"
        for edge in edges
        for channel in edge.channels
        if channel.pairing.clock_ns
    ]
    found += [
        f"{edge.backend} rank {edge.src_rank} -> {edge.dst_rank}: messages are paired by their "
        f"numbers, which is exact; without numbers {channel.agreement.other} of them would have "
        "been paired otherwise (no figure is in doubt)"
        for edge in edges
        for channel in edge.channels
        if channel.agreement and channel.agreement.other
    ]
    found += [
        f"PP{case.label(rank)}: {rank.unlabelled_p2p} P2P kernels do not say who "
        "their peer is (inside a graph, or of a batch_isend_irecv that is not whole in the trace): "
        "not paired"
        for rank in case.ranks
        if rank.unlabelled_p2p and not rank.gpu_only
    ]
    return found
