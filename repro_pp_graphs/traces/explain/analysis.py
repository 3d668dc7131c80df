"""The facts of one case as the JSON contract has them."""

from __future__ import annotations

from typing import Any

import msgspec

from repro_pp_graphs.traces.explain.host import anchors, host_of, token_counts
from repro_pp_graphs.traces.explain.prefill import mark_prefill
from repro_pp_graphs.traces.explain.ring import DEPTH, Step, decode_step
from repro_pp_graphs.traces.explain.seen import recorded_by_all
from repro_pp_graphs.traces.explain.sends import manner
from repro_pp_graphs.traces.explain.steps import bubble, gpu_work, micro_batches, shares, steps
from repro_pp_graphs.traces.explain.token_return import token_return
from repro_pp_graphs.traces.explain.turn import turns
from repro_pp_graphs.traces.explain.words import delivery_known
from repro_pp_graphs.traces.model import Case
from repro_pp_graphs.traces.pair.clocks import Bounds, bounds, interval, intervals
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.pair.edges import edges_of, pair_times
from repro_pp_graphs.traces.quantiles import spread


def analyze(case: Case) -> dict[str, Any]:
    """The analysis of one case; keys and units are in docs/traces.md."""
    edges = edges_of(case)
    hosts = sorted({rank.host for rank in case.ranks if rank.host})
    numbers = [rank.rank for rank in case.ranks]
    most = bounds(edges, numbers)
    nccl = [_edge(case, edge, most) for edge in edges if edge.backend == "nccl"]
    gloo = [_edge(case, edge, most) for edge in edges if edge.backend == "gloo"]
    # without a GPU gloo carries the tensors; with one, their sizes and the requests
    on_gpu = bool(nccl) or any(rank.unlabelled_p2p for rank in case.ranks)
    work = [gpu_work(rank) for rank in case.ranks]
    hosts_of = [
        host_of(rank, its, edges, case.pp_size) for rank, its in zip(case.ranks, work, strict=True)
    ]
    mark_prefill(hosts_of, case.pp_size)
    start, end = recorded_by_all(case, hosts_of)
    last = [host for host in hosts_of if host.rank.pp == case.pp_size - 1]
    sizes = token_counts(last[0]) if last else []  # every rank runs the same batches
    rows = {
        case.label(host.rank): {
            **shares(host.rank, host.work, start, end),
            **steps(host.rank, host.work, len(anchors(host, case.pp_size)), sizes),
        }
        for host in hosts_of
    }
    step = decode_step(case, hosts_of)
    # with a deeper loop, annotations do not tell how many slots it has
    known = None if step == DEPTH else micro_batches(case)
    under_way = step.micro_batches if isinstance(step, Step) else known
    found, unknown = turns(case, hosts_of)
    facts = {
        "schema": 1,
        "case": case.name,
        "pp_size": case.pp_size,
        "tp_size": case.tp_size,
        "window_us": (end - start) / 1000,
        "hosts": hosts,
        "p2p": nccl if on_gpu else gloo,
        "p2p_gloo": gloo if on_gpu else [],
        "p2p_without_metadata": {
            case.label(rank): rank.unlabelled_p2p for rank in case.ranks if rank.unlabelled_p2p
        },
        "clocks": intervals(most, numbers),
        "gpu_only": bool(case.ranks) and all(rank.gpu_only for rank in case.ranks),
        "sends": manner(last[0]) if last and case.pp_size > 1 else "unknown",
        "decode_step": msgspec.to_builtins(step) if isinstance(step, Step) else None,
        "decode_step_unknown": "" if isinstance(step, Step) else step,
        "turns": msgspec.to_builtins(found),
        "turns_unknown": unknown,
        "token_return": token_return(case, hosts_of, edges),
        "graph_launches": {case.label(rank): len(rank.launches) for rank in case.ranks},
        "ranks": rows,
        "ring": bubble(case, list(rows.values()), under_way),
        "warnings": [*case.warnings, *_doubts(case, edges)],
    }
    if facts["token_return"]:
        facts["token_return"]["delivery_known"] = delivery_known(facts)
    return facts


def _edge(case: Case, edge: Edge, most: Bounds) -> dict[str, Any]:
    """One edge; `offset` and `unpairable` are of its channel with most pairs."""
    times = pair_times(edge)
    counts = {
        "sends": sum(len(channel.sends) for channel in edge.channels),
        "recvs": sum(len(channel.recvs) for channel in edge.channels),
    }
    pairs = len(times.lag)
    return {
        "src": edge.src_rank // case.tp_size,
        "dst": edge.dst_rank // case.tp_size,
        "tp": edge.src_rank % case.tp_size,
        "backend": edge.backend,
        **counts,
        "offset": edge.largest.pairing.offset,
        "pairs": pairs,
        "unmatched_sends": counts["sends"] - pairs,
        "unmatched_recvs": counts["recvs"] - pairs,
        "unpairable": edge.largest.pairing.reason or None,
        "channels": [
            {
                "group": channel.name,
                "sends": len(channel.sends),
                "recvs": len(channel.recvs),
                "offset": channel.pairing.offset,
                "pairs": len(channel.pairing.pairs),
                "clock_ahead_us": channel.pairing.clock_ns / 1000,
            }
            for channel in edge.channels
        ],
        "buffered": times.buffered,
        "transfer_us": spread(times.transfer),
        "shorter_us": spread(times.shorter),
        "send_wait_us": spread(times.send_wait),
        "recv_wait_us": spread(times.recv_wait),
        "lag_us": spread(times.lag),
        "clock_us": interval(most, edge.src_rank, edge.dst_rank),
    }


def _doubts(case: Case, edges: list[Edge]) -> list[str]:
    """What the pairing could not settle, one line each."""
    found = [
        f"{edge.backend} rank {edge.src_rank} -> {edge.dst_rank}: {len(channel.sends)} sends and "
        f"{len(channel.recvs)} recvs not paired: {channel.pairing.reason}"
        for edge in edges
        for channel in edge.channels
        if channel.pairing.reason and edge.src and edge.dst
    ]
    found += [
        f"{edge.backend} rank {edge.src_rank} -> {edge.dst_rank}: the receiver's clock seems "
        f"{channel.pairing.clock_ns / 1000:.0f} us ahead: pairs allow for it, times do not"
        for edge in edges
        for channel in edge.channels
        if channel.pairing.clock_ns
    ]
    found += [
        f"PP{case.label(rank)}: {rank.unlabelled_p2p} P2P kernels carry no peer "
        "(inside a graph, or batch_isend_irecv): not paired"
        for rank in case.ranks
        if rank.unlabelled_p2p and not rank.gpu_only
    ]
    return found
