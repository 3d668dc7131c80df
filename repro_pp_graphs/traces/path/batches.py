"""Which launches on PP0 begin a decode step, and which work on every rank is of the same batch."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.explain.host import anchors
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.steps import named
from repro_pp_graphs.traces.path.graph import Kind
from repro_pp_graphs.traces.path.rank_line import RankLine, Ring
from repro_pp_graphs.traces.rank_trace import RUN_SPANS

Ints = npt.NDArray[np.int64]

# A batch with fewer kernels than this share of the usual number was launched before the trace.
WHOLE = 0.5


@dataclass(slots=True)
class Batches:
    """The batches of a case, numbered on each rank by what they send.

    `launch`: of each of PP0's batches the moment of its launch, -1 where it is not known;
    `of_group`: of each rank the batch that each of its groups of GPU work is of; `same`: of each
    of PP0's batches its number on every rank, -1 where it could not be followed there;
    `decode`: whether it is one; `sent_ns`: when what it gave was sent.
    """

    launch: list[int]
    of_group: list[Ints]
    same: list[list[int]]
    decode: list[bool]
    sent_ns: list[int]


def batches_of(ring: Ring) -> Batches:
    """The batches that PP0 launches; adds the moments of their launches to the graph."""
    size = len(ring.ranks)
    sent = [anchors(line.host, size) for line in ring.ranks]
    of_group = [
        np.array([m.start_ns for m in messages], dtype=np.int64).searchsorted(line.groups.posted)
        for line, messages in zip(ring.ranks, sent, strict=True)
    ]
    same = [[number] for number in range(len(sent[0]))]
    for at in range(1, size):
        follows = _follows(ring.ranks[at], sent[at - 1], sent[at])
        for numbers in same:
            numbers.append(follows.get(numbers[-1], -1))
    return Batches(
        launch=_launches(ring, of_group[0], len(sent[0])),
        of_group=of_group,
        same=same,
        decode=[not message.prefill for message in sent[0]],
        sent_ns=[message.start_ns for message in sent[0]],
    )


def _follows(line: RankLine, theirs: list[Message], ours: list[Message]) -> dict[int, int]:
    """Which batch of a rank received what a batch of the rank before it had sent."""
    sender = {
        id(op): number
        for number, message in enumerate(theirs)
        for part in message.operations
        for op in part.p2p
    }
    starts = [message.start_ns for message in ours]
    found: dict[int, int] = {}
    for message in line.host.of("hidden", "recv"):
        for part in message.operations:
            for op in part.p2p:
                number = sender.get(id(line.other.get(id(op))))
                # what an exchange brings is run for a later one
                place = bisect_right if message.exchange else bisect_left
                batch = place(starts, message.start_ns)
                if number is not None and batch < len(starts):
                    found.setdefault(number, batch)
    return found


def _launches(ring: Ring, of_group: Ints, count: int) -> list[int]:
    """The moment when PP0 launches each batch: its graph, else the first kernel of the stretch of
    its host in which it launches most; without a GPU when its host begins to run it."""
    groups = ring.ranks[0].groups
    if not len(groups):
        return _runs(ring, count)
    stretches, number = np.unique(groups.stretch, return_inverse=True)
    items = np.bincount(number.reshape(-1), groups.items, len(stretches)).astype(np.int64)
    weight = items[number.reshape(-1)] + np.where(groups.graph, items.sum(), 0)
    found = [-1] * count
    order = np.lexsort((-groups.posted, weight, of_group))
    for group in order.tolist():  # of a batch the last one counts
        batch = int(of_group[group])
        if batch < count:
            found[batch] = group
    usual = (
        np.median(weight[[group for group in found if group >= 0]])
        if any(group >= 0 for group in found)
        else 0
    )
    return [
        _launch(ring, group) if group >= 0 and weight[group] >= WHOLE * usual else -1
        for group in found
    ]


def _runs(ring: Ring, count: int) -> list[int]:
    """The moment when PP0's host begins to run each batch, as sglang's annotations have it."""
    line = ring.ranks[0]
    sent = [message.start_ns for message in anchors(line.host, len(ring.ranks))]
    found = [-1] * count
    for span in named(line.host.rank, RUN_SPANS):  # of a batch the last one counts
        batch = bisect_left(sent, span.start_ns)
        stretch = int(line.line.ns.searchsorted(span.start_ns, side="right")) - 1
        if batch < count and stretch >= 0:
            found[batch] = _moment(ring, stretch, span.start_ns)
    return found


def _launch(ring: Ring, group: int) -> int:
    """A moment for the first launch of a group."""
    line = ring.ranks[0]
    stretch = int(line.groups.stretch[group])
    return -1 if stretch < 0 else _moment(ring, stretch, int(line.groups.posted[group]))


def _moment(ring: Ring, stretch: int, ns: int) -> int:
    """A moment inside of a stretch of PP0's host."""
    graph, line = ring.graph, ring.ranks[0]
    begin = line.host_at[stretch]
    offset = ns - int(line.line.ns[stretch])
    moment = graph.moment(0, graph.time[begin] + offset)
    graph.after(moment, begin, Kind.HOST, offset, stretch)
    return moment
