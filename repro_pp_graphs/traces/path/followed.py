"""A case's decode steps, followed from a launch on PP0 round the ring to the next one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from repro_pp_graphs.traces.analysis_record import DecodeStep
from repro_pp_graphs.traces.explain.coverage import enough, recorded_by_all, unseen
from repro_pp_graphs.traces.explain.gpus import SharedGpu, shared_gpus
from repro_pp_graphs.traces.explain.host import Host, anchors
from repro_pp_graphs.traces.explain.step_time import decode_step
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.path.batches import Batches, batches_of
from repro_pp_graphs.traces.path.clock_leads import CannotTell, ahead
from repro_pp_graphs.traces.path.graph import Timing
from repro_pp_graphs.traces.path.parts import Part, parts_of
from repro_pp_graphs.traces.path.rank_line import Ring
from repro_pp_graphs.traces.path.ring_graph import build
from repro_pp_graphs.traces.path.silence import silent_ns
from repro_pp_graphs.traces.path.walk import Walker, clipped
from repro_pp_graphs.traces.rank_trace import Case, RankTrace

# Of a time, how much may be unexplained, or come out otherwise when it is computed again.
GOOD_ENOUGH = 0.05
# So many batches of PP0 are followed at most: the cost does not grow with longer traces.
MOST = 256
# Of the steps' time, for how much a host may do nothing that the trace shows.
SILENT = 0.1


@dataclass(slots=True)
class Followed:
    """A case's graph with the steps that could be followed in it: of each PP0's batch and the next
    one of its micro-batch; `parts`: what their time is made of."""

    ring: Ring
    timing: Timing
    batches: Batches
    steps: list[tuple[int, int]]
    steps_there: int
    left_out: Counter[str]
    micro_batches: int
    batches_there: int
    gpus: list[SharedGpu]  # of several ranks
    parts: list[Part] = field(default_factory=list)


def followed(case: Case, hosts: list[Host], edges: list[Edge]) -> Followed:
    """The graph of a case, its steps and their parts.

    Raises CannotTell, whose text says why, where there are no steps to follow, or so much is
    missing from the trace that their parts may be wrong.
    """
    ranks = sorted((h for h in hosts if h.rank.tp == 0), key=lambda host: host.rank.pp)
    if case.pp_size < 2:
        raise CannotTell("there is one PP rank, and no ring")
    if [host.rank.pp for host in ranks] != list(range(case.pp_size)):
        raise CannotTell("not every rank has a trace")
    on_gpu = any(len(host.rank.kernels.times) for host in ranks)
    for host in ranks:
        if on_gpu and not len(host.rank.kernels.times):
            raise CannotTell("the trace has no GPU kernels")
        if unlabelled := _unlabelled(host.rank):
            raise CannotTell(f"{unlabelled} of PP{host.rank.pp}'s P2P kernels carry no peer")
        if not len(host.rank.operators):
            raise CannotTell("the trace has no operators of the host")
        if reason := unseen(host.rank):
            raise CannotTell(reason)
    step = decode_step(case, hosts)
    if not isinstance(step, DecodeStep):
        raise CannotTell(step)
    recorded = recorded_by_all(case, hosts)
    window, batches_there = _middle(ranks[0], case.pp_size, recorded)
    ring = build(ranks, ahead(ranks, edges), window)
    batches = batches_of(ring)
    try:
        timing = ring.graph.settled()
    except ValueError as error:
        raise CannotTell(f"what waits for what contradicts itself ({error})") from None
    found = Followed(
        ring,
        timing,
        batches,
        [],
        0,
        Counter(),
        step.micro_batches,
        batches_there,
        shared_gpus(case, hosts),
    )
    _steps(found, (max(recorded[0], window[0]), min(recorded[1], window[1])))
    if not enough(len(found.steps), found.steps_there):
        why = "".join(f": {reason}" for reason, _ in found.left_out.most_common(1))
        raise CannotTell(
            f"{len(found.steps)} of {found.steps_there} decode steps can be followed{why}"
        )
    found.parts = _checked_parts(found)
    return found


def _unlabelled(rank: RankTrace) -> int:
    """How many P2P kernels name no peer, but for those before all that do: they may have been asked
    for before the recording."""
    starts = {op.start_ns for op in rank.p2p if op.backend == "nccl"}
    if not rank.unlabelled_p2p or not starts:
        return rank.unlabelled_p2p
    before = int(rank.p2p_kernels[:, 0].searchsorted(min(starts)))
    return max(rank.unlabelled_p2p - before, 0)


def _middle(first: Host, pp_size: int, recorded: tuple[int, int]) -> tuple[tuple[int, int], int]:
    """The time to follow steps in: all that there is, or MOST batches in the middle of what every
    rank recorded; and how many batches PP0 has there."""
    sent = [m.start_ns for m in anchors(first, pp_size) if recorded[0] <= m.start_ns <= recorded[1]]
    if len(sent) <= MOST:
        return (0, np.iinfo(np.int64).max // 2), len(sent)
    low = (len(sent) - MOST) // 2
    return (sent[low], sent[low + MOST]), len(sent)


def _steps(found: Followed, window: tuple[int, int]) -> None:
    """Find the steps between whose launches every rank was recorded."""
    batches, time, m = found.batches, found.timing.time, found.micro_batches
    for batch in range(len(batches.launch) - m):
        begin, over = batches.launch[batch], batches.launch[batch + m]
        if not window[0] <= batches.sent_ns[batch] <= batches.sent_ns[batch + m] <= window[1]:
            continue
        if begin < 0 or over < 0:
            found.left_out["a launch on PP0 is not in the trace"] += 1
        elif (
            time[begin] < window[0]
            or time[over] > window[1]
            or not (batches.decode[batch] and batches.decode[batch + m])
        ):
            continue
        elif -1 in batches.same[batch]:
            found.left_out["a message of it is not paired"] += 1
        else:
            found.steps.append((batch, batch + m))
            continue
        found.steps_there += 1
    found.steps_there += len(found.steps)


def _checked_parts(found: Followed) -> list[Part]:
    """The parts of every step.

    Raises CannotTell where so much is missing from the trace that they may be wrong.
    """
    first, last = found.batches.launch[found.steps[0][0]], found.batches.launch[found.steps[-1][1]]
    begin, over = int(found.timing.time[first]), int(found.timing.time[last])
    for line in found.ring.ranks:
        inside = [
            op
            for op in line.ops
            if op.backend == "nccl" and begin <= op.start_ns - line.ahead_ns <= over
        ]
        alone = sum(id(op) not in line.other for op in inside)
        if alone > GOOD_ENOUGH * len(inside):
            raise CannotTell(
                f"{alone} of {len(inside)} NCCL operations of PP{line.host.rank.pp} are not paired"
            )
    parts = all_parts(found)
    whole = sum(part.end_ns - part.start_ns for part in parts)
    for line, silent in zip(found.ring.ranks, silent_ns(found.ring.ranks, parts), strict=True):
        if silent > SILENT * whole:
            raise CannotTell(
                f"for {silent / whole:.0%} of the step PP{line.host.rank.pp}'s host is in nothing "
                "that its trace shows: either a call in which it waits is missing there, or "
                "other processes had its core"
            )
    return parts


def all_parts(found: Followed) -> list[Part]:
    """The parts of every step: of one path, from the last launch back to the first, what lies
    between the step's two launches."""
    time, launch = found.timing.time, found.batches.launch
    first, last = launch[found.steps[0][0]], launch[found.steps[-1][1]]
    path = Walker(found.timing).pieces(last, int(time[first]))[::-1]
    ends = [piece.end_ns for piece in path]
    parts: list[Part] = []
    for step, (batch, after) in enumerate(found.steps):
        begin, over = int(time[launch[batch]]), int(time[launch[after]])
        low, high = bisect_right(ends, begin), bisect_left(ends, over)
        inside = [clipped(piece, begin, over) for piece in path[low : high + 1]]
        parts += parts_of(found.ring, found.batches, step, batch, inside)
    return parts
