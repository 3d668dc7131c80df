"""The graph of moments of a whole case: the ranks' hosts and GPUs, and the messages between."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.operations import together
from repro_pp_graphs.traces.path.gpu_groups import groups_of, items_of, kernels_in
from repro_pp_graphs.traces.path.gpu_work import across_streams, compute, operations
from repro_pp_graphs.traces.path.graph import Graph, Kind
from repro_pp_graphs.traces.path.host_line import host_line
from repro_pp_graphs.traces.path.host_time import host_rows
from repro_pp_graphs.traces.path.host_waits import host_waits, peer_begins
from repro_pp_graphs.traces.path.partners import partners_of
from repro_pp_graphs.traces.path.rank_line import RankLine, Ring


def build(hosts: list[Host], ahead_ns: list[int], window_ns: tuple[int, int]) -> Ring:
    """The graph of what the ranks do in a time, ns of the first one's clock; `ahead_ns`: how far
    each rank's clock is ahead of that."""
    graph = Graph()
    ranks = []
    for index, (host, ahead) in enumerate(zip(hosts, ahead_ns, strict=True)):
        window = window_ns[0] + ahead, window_ns[1] + ahead
        ranks.append(_rank(graph, index, host, ahead, window))
    for line, other in zip(ranks, partners_of(hosts), strict=True):
        line.other = other
    owners = {id(op): line for line in ranks for op in line.ops}
    for line in ranks:
        _messages(graph, line, owners)
    for line in ranks:
        host_waits(graph, line, owners)
    return Ring(graph, ranks)


def _rank(graph: Graph, index: int, host: Host, ahead: int, window: tuple[int, int]) -> RankLine:
    """One rank in a time, ns of its own clock."""
    ops = [op for op in host.rank.p2p if window[0] <= op.start_ns <= window[1]]
    line = host_line(host, ops, window)
    calls = np.array(host.rank.launches, dtype=np.int64).reshape(-1, 3)
    items, launch_ns = items_of(kernels_in(host.rank.kernels, window), calls)
    groups = groups_of(items, launch_ns, line.ns)
    found = RankLine(index, host, ahead, ops, line, groups, host_rows(host, groups))
    _host_moments(graph, found)
    compute(graph, found)
    operations(graph, found)
    across_streams(graph, found)
    return found


def _host_moments(graph: Graph, line: RankLine) -> None:
    """The host's moments, each after the one before; what a wait is for comes later."""
    before = -1
    for number, moment in enumerate(line.line.moments):
        here = graph.moment(line.index, moment.ns - line.ahead_ns)
        line.host_at.append(here)
        if moment.op is not None:
            line.op_begins[id(moment.op)] = here
        if before >= 0:
            took = graph.time[here] - graph.time[before]
            returns = moment.kind == "back"
            if returns:
                line.calls[here] = len(graph.src)
            kind = Kind.HOST
            if returns and moment.wait:
                kind = Kind.GLOO_CALL if moment.wait.for_peer else Kind.CUDA_CALL
            graph.after(here, before, kind, took, number - 1)
        before = here


def _messages(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
    """Ends of NCCL operations: where both ends are there, and as long as the transfer took; of a
    batch, whose operations are one kernel, where both ends of all of them are there."""
    for ops in together([op for op in line.ops if op.backend == "nccl"]):
        begin, over = line.op_begins[id(ops[0])], line.op_ends[id(ops[0])]
        took = graph.time[over] - graph.time[begin]
        peers = [peer_begins(line, op, owners) for op in ops]
        if None in peers:
            graph.after(over, begin, Kind.ALONE, took)
            continue
        waited = {
            peer
            for op, peer in zip(ops, peers, strict=True)
            if peer is not None and not (op.kind == "send" and graph.time[peer] >= graph.time[over])
        }
        if not waited:
            graph.after(over, begin, Kind.MESSAGE, took)
            continue
        took = graph.time[over] - max(graph.time[at] for at in (begin, *waited))
        for at in (begin, *sorted(waited)):
            graph.after(over, at, Kind.TRANSFER, max(took, 0))
