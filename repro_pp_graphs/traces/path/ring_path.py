"""What a decode step waits for, from a launch on PP0 round the ring to the next one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import DecodeStep, PathCategory, PathPart, RingPath
from repro_pp_graphs.traces.explain.coverage import LEAST, enough, recorded_by_all, unseen
from repro_pp_graphs.traces.explain.gpus import SharedGpu, shared_gpus
from repro_pp_graphs.traces.explain.host import Host, anchors
from repro_pp_graphs.traces.explain.step_time import decode_step
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.path.batches import Batches, batches_of
from repro_pp_graphs.traces.path.clock_leads import CannotTell, ahead
from repro_pp_graphs.traces.path.graph import Kind, Timing
from repro_pp_graphs.traces.path.parts import CATEGORIES, Part, Sums, parts_of
from repro_pp_graphs.traces.path.rank_line import Ring
from repro_pp_graphs.traces.path.ring_graph import build
from repro_pp_graphs.traces.path.silence import silent_ns
from repro_pp_graphs.traces.path.walk import Walker, clipped
from repro_pp_graphs.traces.path.what_if import NOT_OF_A_BATCH, REMEDIES, Change, WhatIf, change_of
from repro_pp_graphs.traces.quantiles import spread
from repro_pp_graphs.traces.rank_trace import Case, RankTrace

Ints = npt.NDArray[np.int64]

# Timed again from usual latencies alone a step must come out this near to what was measured.
GOOD_ENOUGH = 0.05
SHARED = "ranks share a GPU: another may use what one saves"
MAY_SHARE = (
    "in the traces the GPU of several ranks has the same number; where they share one, another "
    "rank may use what one saves"
)
# So many batches of PP0 are followed at most: the cost does not grow with longer traces.
MOST = 256
# Of the steps' time, for how much a host may do nothing that the trace shows.
SILENT = 0.1
# Of the steps, how many at the begin are not counted when a change has to settle.
SETTLES = 0.25
# What is timed again for every case: categories that take no time at all.
ALWAYS_ASKED = ("send", "sync", "launch", "transfer")


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


def ring_path(case: Case, found: Followed, asked: dict[str, Change] | None = None) -> RingPath:
    """What the decode steps of a case wait for; `asked`: further changes to time it again with, by
    the names they have in `what_if`."""
    sums = Sums(found.ring, found.parts, len(found.steps))
    number = len(found.steps)
    us = sums.steps / 1000
    wholes = us.sum(axis=1)
    categories: dict[PathCategory, PathPart] = {
        name: PathPart(round(float(us[:, at].mean()), 3), _error(us[:, at], found.micro_batches))
        for at, name in enumerate(CATEGORIES)
    }
    labels = [case.label(line.host.rank) for line in found.ring.ranks]
    host = {f"PP{labels[at]} {name}": ns for (at, name), ns in sums.host.items()}
    on_path = {(part.step, part.rank) for part in found.parts if part.category == "graph"}
    not_known = sum(categories[name].mean for name in ("peer_late", "unexplained"))
    steady, again, predicted, unknown = _what_if(found, asked or {}, not_known)
    return RingPath(
        steps=number,
        steps_there=found.steps_there,
        left_out=dict(found.left_out),
        batches_there=found.batches_there,
        micro_batches=found.micro_batches,
        step_us=spread(wholes),
        step_error=_error(wholes, found.micro_batches),
        categories=categories,
        ranks={
            label: {
                name: round(float(ns) / 1000 / number, 3)
                for name, ns in zip(CATEGORIES, row.tolist(), strict=True)
                if ns
            }
            for label, row in zip(labels, sums.ranks, strict=True)
        },
        graph_steps={
            label: sum(rank == line.index for _, rank in on_path)
            for label, line in zip(labels, found.ring.ranks, strict=True)
        },
        host={
            name: round(ns / 1000 / number, 3)
            for name, ns in sorted(host.items(), key=lambda item: -item[1])
        },
        steady_us=steady,
        retimed_us=again,
        what_if=predicted,
        what_if_unknown=unknown,
    )


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


def _error(values: npt.NDArray[np.float64], overlapping: int) -> float | None:
    """The standard error of a mean over steps of which so many lie beside one another."""
    independent = len(values) // overlapping
    if independent < LEAST:
        return None
    return round(float(np.std(values, ddof=1)) / float(np.sqrt(independent)), 3)


def _what_if(
    found: Followed, asked: dict[str, Change], not_known_us: float
) -> tuple[float, float, dict[str, float], str]:
    """The steady step, the same timed again from usual latencies, and with each change, us; why
    there are none of these. `not_known_us`: of a step, what is unexplained."""
    timing = found.timing
    steady = _Steady(found)
    measured = steady.step_us(timing.time)
    again = steady.step_us(timing.retimed(timing.fitted, np.zeros_like(timing.rest)))
    if found.gpus:
        known = any(gpu.known for gpu in found.gpus)
        return measured, again, {}, SHARED if known else MAY_SHARE
    if reason := _waits_of_unknown_end(found):
        return measured, again, {}, reason
    if not_known_us > GOOD_ENOUGH * measured:
        return measured, again, {}, f"{not_known_us / measured:.0%} of the step is not explained"
    if abs(again - measured) > GOOD_ENOUGH * measured:
        off = (
            "a check fails: the decode steps after the first quarter took "
            f"{measured / 1000:.2f} ms, and come out as {again / 1000:.2f} ms when they are "
            "computed again from usual latencies with nothing changed"
        )
        return measured, again, {}, off
    changes = {f"{name}=0": change_of(name, 0) for name in ALWAYS_ASKED}
    changes |= {name: change for name, change in REMEDIES.items() if name != "send"} | asked
    if _in_a_batch(found):
        changes = {name: each for name, each in changes.items() if name not in NOT_OF_A_BATCH}
    what_if = WhatIf(found.ring, timing)
    times = {name: steady.step_us(what_if.retimed(change)) for name, change in changes.items()}
    return measured, again, times, ""


def _in_a_batch(found: Followed) -> bool:
    """Whether the last rank's token ids go in one batch with what it receives."""
    sent = found.ring.ranks[-1].host.of("tokens", "send")
    return any(message.exchange for message in sent)


def _waits_of_unknown_end(found: Followed) -> str:
    """Whose messages wait for long for another end that is not paired: what would end these waits
    earlier is not known. Empty: nobody's."""
    timing, launch = found.timing, found.batches.launch
    begin, over = (int(timing.time[launch[at]]) for at in (found.steps[0][0], found.steps[-1][1]))
    ends = timing.time[timing.dst]
    alone = (timing.kind == Kind.ALONE) & (ends > begin) & (ends <= over)
    for line in found.ring.ranks:
        waited = int(timing.weight[alone & (timing.rank[timing.dst] == line.index)].sum())
        share = waited / (over - begin)
        if share > GOOD_ENOUGH:
            return (
                f"for {share:.0%} of the time PP{line.host.rank.pp} is in messages whose other end "
                "is not paired"
            )
    return ""


def steady_batches(batches: list[int], micro_batches: int) -> tuple[int, int]:
    """Of two batches or more the first and the last one that a steady step is measured between."""
    settled = min(int(SETTLES * len(batches)) + micro_batches, len(batches) - 2)
    return batches[max(settled, 0)], batches[-1]


class _Steady:
    """The step once a change has settled: by the slowest of PP0's launches and of the ends of each
    rank's batches. A host that nothing holds launches ahead of what its GPU can do."""

    def __init__(self, found: Followed) -> None:
        ordered = [batch for batch, _ in found.steps]
        self.first, self.last = steady_batches(ordered, found.micro_batches)
        self.per_step = found.micro_batches / (self.last - self.first) / 1000
        batches, ring = found.batches, found.ring
        self.pairs = [(batches.launch[self.first], batches.launch[self.last])]
        for line in ring.ranks:
            number = line.index
            ends = [
                self._end(
                    line.group_ends, batches.of_group[number], batches.same[at][number], found
                )
                for at in (self.first, self.last)
            ]
            if ends[0] >= 0 and ends[1] >= 0:
                self.pairs.append((ends[0], ends[1]))

    @staticmethod
    def _end(ends: list[int], of_group: Ints, batch: int, found: Followed) -> int:
        """The moment when the last work of a batch's longest group is over."""
        groups = np.flatnonzero(of_group == batch)
        if not len(groups):
            return -1
        time = found.timing.time
        begins = time[np.array(ends)[groups]]
        return int(np.array(ends)[groups[np.argmax(begins)]])

    def step_us(self, time: Ints) -> float:
        """A step's mean length with the moments at these times, us."""
        spans = [int(time[over] - time[begin]) for begin, over in self.pairs]
        return round(max(spans) * self.per_step, 3)
