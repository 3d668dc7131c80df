"""What a rank's host waits for, and when: its own GPU, a peer that is not there yet, a transfer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import numpy as np

from repro_pp_graphs.traces.analysis_record import Cause
from repro_pp_graphs.traces.cuda_calls import BLOCKED_US, call_kind
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.operations import operator_around, together
from repro_pp_graphs.traces.explain.steps import GpuWork
from repro_pp_graphs.traces.pair.edge import Edge, sent_ns
from repro_pp_graphs.traces.rank_trace import P2POp, RankTrace, Span
from repro_pp_graphs.traces.time_sets import Intervals, common, intervals, merged, outside

# A call that launches work and takes this long waits for room in the launch queue.
FULL_QUEUE_NS = 1_000_000
BLOCKED_NS = int(BLOCKED_US * 1000)

CAUSES: tuple[Cause, ...] = get_args(Cause)


def partners(rank: RankTrace, edges: list[Edge]) -> dict[int, P2POp]:
    """The other end of each paired send and recv of a rank, by the operation's id()."""
    found: dict[int, P2POp] = {}
    for edge in edges:
        if edge.src is rank:
            found.update((id(send), recv) for send, recv in edge.paired())
        if edge.dst is rank:
            found.update((id(recv), send) for send, recv in edge.paired())
    return found


def launches(call: Span) -> bool:
    """Whether a CUDA or HIP call launches kernels, or a graph."""
    return call_kind(call.name) in ("graph", "launch")


def blocking(call: Span) -> bool:
    """Whether a CUDA call of the host waits: launching takes long only where the queue is full."""
    least = FULL_QUEUE_NS if launches(call) else BLOCKED_NS
    return call.end_ns - call.start_ns >= least


def cuda_waits(rank: RankTrace, sends: list[Message], launching: bool = True) -> Intervals:
    """When the host is inside a CUDA call that blocks, as a set; `launching`: also one that
    launches.

    The copy that begins a send counts to the end of its operator, whichever call in it blocks.
    """
    found = [
        (call.start_ns, call.end_ns)
        for call in rank.calls
        if blocking(call) and (launching or not launches(call))
    ]
    for message in sends:
        if message.upload:
            _, over = operator_around(rank, message.upload.start_ns)
            end = max(over, message.upload.end_ns)
            if end - message.upload.start_ns >= BLOCKED_NS:
                found.append((message.upload.start_ns, end))
    return merged(intervals(found))


def gloo_waits(rank: RankTrace, ends: dict[int, int]) -> Intervals:
    """When the host is inside a gloo operation that it waits for, or waits for an earlier one, as a
    set."""
    inside = [(op.start_ns, ends[id(op)]) for op in rank.p2p if id(op) in ends]
    return merged(intervals([*inside, *((w.start_ns, w.end_ns) for w in rank.sent_waits)]))


def held_until_ns(batch: list[P2POp], peers: list[P2POp | None]) -> int:
    """When the last of the operations that a batch waits for starts, ns; a send whose receive
    starts after the batch's end went into a buffer."""
    first = batch[0]
    begun = [peer.start_ns for peer in peers if peer and peer.start_ns < first.end_ns]
    return max([first.start_ns, *begun])


def _flights(ops: list[P2POp], other: dict[int, P2POp]) -> Iterator[tuple[list[P2POp], int, int]]:
    """The paired operations, those of a batch together: when the last of their peers has started,
    and when they are over, ns. A batch of which one is not paired is left out."""
    for kernel in together(ops):
        op, peers = kernel[0], [other.get(id(op)) for op in kernel]
        peer = peers[0]
        if peer is None or None in peers:
            continue
        if len(kernel) > 1:
            yield kernel, held_until_ns(kernel, peers), op.end_ns
        else:
            send, recv = (op, peer) if op.kind == "send" else (peer, op)
            yield kernel, peer.start_ns, op.end_ns if op is recv else sent_ns(send, recv)


def flight(ops: list[P2POp], other: dict[int, P2POp]) -> tuple[Intervals, Intervals]:
    """While a paired operation is under way: before its peer's has started, and from then on.

    A batch is one kernel, which is over with the last of its operations: until the last of their
    peers has started it waits.
    """
    early: list[tuple[int, int]] = []
    moving: list[tuple[int, int]] = []
    for kernel, begun, over in _flights(ops, other):
        start = kernel[0].start_ns
        early.append((start, min(over, begun)))
        moving.append((max(start, begun), over))
    return merged(intervals(early)), merged(intervals(moving))


def _gloo_flight(
    rank: RankTrace, ends: dict[int, int], other: dict[int, P2POp]
) -> tuple[Intervals, Intervals]:
    """The same of gloo, for what the host waits for at each moment: the operation that it is in, or
    the earlier sends. Others that are under way meanwhile, as asynchronous sends are, hold nobody.
    `ends`: when the host is out of each operation that it waits in."""
    waited = [op for op in rank.p2p if op.backend == "gloo" and id(op) in ends]
    found = [
        (kernel[0].start_ns, max(ends[id(op)] for op in kernel), begun, over)
        for kernel, begun, over in _flights(waited, other)
    ]
    found += [
        (wait.start_ns, wait.end_ns, begun, wait.end_ns)  # what comes back after them is theirs
        for wait in rank.sent_waits
        for _, begun, _ in _flights(wait.sends, other)
    ]
    early = [(start, min(begun, over, end)) for start, end, begun, over in found]
    moving = [(max(start, begun), min(over, end)) for start, end, begun, over in found]
    return merged(intervals(early)), merged(intervals(moving))


def waits(
    rank: RankTrace,
    work: GpuWork,
    in_cuda: Intervals,
    in_gloo: Intervals,
    *,
    ends: dict[int, int],
    other: dict[int, P2POp],
) -> dict[Cause, Intervals]:
    """The host's waits by cause, disjoint sets; `ends` as of `gloo_waits`.

    In a CUDA call it waits for the rank's own GPU: a decode graph, other kernels, else an NCCL
    operation whose peer has not started or that is under way. In a gloo operation it waits for the
    peer, whatever the GPU does meanwhile.
    """
    nccl = [op for op in rank.p2p if op.backend == "nccl"]
    graph = merged(work.extents)
    in_gloo = outside(in_gloo, in_cuda)
    late, moving = flight(nccl, other)
    gloo_late, gloo_moving = _gloo_flight(rank, ends, other)
    found: dict[Cause, list[Intervals]] = {cause: [] for cause in CAUSES}
    of_cuda: dict[Cause, Intervals] = {
        "own_graph": graph,
        "own_compute": work.compute,
        "peer_late": late,
        "transfer": moving,
    }
    of_gloo: dict[Cause, Intervals] = {"peer_late": gloo_late, "transfer": gloo_moving}
    for span, claims in ((in_cuda, of_cuda), (in_gloo, of_gloo)):
        left = span
        for cause, claim in claims.items():
            found[cause].append(common(left, claim))
            left = outside(left, claim)
        found["otherwise"].append(left)
    return {cause: merged(np.concatenate(parts)) for cause, parts in found.items()}
