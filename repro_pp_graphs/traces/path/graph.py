"""Moments and what each has to wait for: measured once, timed again with other lengths.

A moment is when something on a rank begins, ends or is launched. Every dependency says: not before
that other moment, and so much later. A moment is reached when the last of its dependencies is
there: which one that was is the critical path, and with other lengths it may be another one.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Kind(IntEnum):
    """What lies between two moments of a dependency.

    `GRAPH`, `EAGER`: kernels of one launch of a graph, of a host's launches one by one; `RUN_UP`:
    the host's launching until the GPU last ran out of work, and the kernels after that; `HOST`: the
    host works; `LAUNCH`: from a call to the kernel's start on an idle GPU; `HANDOVER`: from one
    stream's work to what waits for it; `TRANSFER`: both ends of a message are there; `MESSAGE`: the
    same for one that is sent into a buffer; `ALONE`: a message whose other end is not paired;
    `SYNC`: from the GPU's end to the host's return; `GLOO`: from a peer's call to that;
    `CUDA_CALL`, `GLOO_CALL`: such a call by itself, with nothing to wait for.
    """

    GRAPH = 0
    EAGER = 1
    RUN_UP = 2
    HOST = 3
    LAUNCH = 4
    HANDOVER = 5
    TRANSFER = 6
    MESSAGE = 7
    ALONE = 8
    SYNC = 9
    GLOO = 10
    CUDA_CALL = 11
    GLOO_CALL = 12


# Of these a dependency's length is what it usually is on a rank. A launch or a handover that took
# this much longer than the shortest ones waited for something that is not known.
FITTED = (Kind.LAUNCH, Kind.HANDOVER, Kind.SYNC, Kind.GLOO)
WAITED_NS = {Kind.LAUNCH: 100_000, Kind.HANDOVER: 20_000}


class Graph:
    """Moments with the times measured, ns, and dependencies between them.

    `rank` is the index of the rank that a moment is of; `ref` of a dependency what it is about (a
    group of kernels, a stretch of the host's thread), by its kind.
    """

    def __init__(self) -> None:
        self.time: list[int] = []
        self.rank: list[int] = []
        self.src: list[int] = []
        self.dst: list[int] = []
        self.weight: list[int] = []
        self.kind: list[int] = []
        self.ref: list[int] = []

    def moment(self, rank: int, ns: int) -> int:
        self.time.append(ns)
        self.rank.append(rank)
        return len(self.time) - 1

    def after(self, dst: int, src: int, kind: Kind, weight: int, ref: int = -1) -> None:
        """Let one moment wait for another, and `weight` ns more."""
        self.src.append(src)
        self.dst.append(dst)
        self.kind.append(kind)
        self.weight.append(weight)
        self.ref.append(ref)

    def settled(self) -> Timing:
        return Timing(self)


class Timing:
    """A graph whose dependencies are fitted to what was measured.

    `weight` is what each dependency takes, never so much that its moment would have been measured
    too early; `rest` of a moment what no dependency explains: the time from its last one to it.
    Raises ValueError where moments wait for each other in a circle.
    """

    def __init__(self, graph: Graph) -> None:
        self.time = np.array(graph.time, dtype=np.int64)
        self.rank = np.array(graph.rank, dtype=np.int64)
        order = np.argsort(np.array(graph.dst, dtype=np.int64), kind="stable")
        self.src = np.array(graph.src, dtype=np.int64)[order]
        self.dst = np.array(graph.dst, dtype=np.int64)[order]
        self.kind = np.array(graph.kind, dtype=np.int64)[order]
        self.ref = np.array(graph.ref, dtype=np.int64)[order]
        self.fitted = np.array(graph.weight, dtype=np.int64)[order]  # as the kinds have it
        longest = self.time[self.dst] - self.time[self.src]
        self.weight = np.minimum(self.fitted, longest)
        self.first = np.searchsorted(self.dst, np.arange(len(self.time) + 1))
        self.has_any = np.diff(self.first) > 0
        self._fit()
        self.weight = np.minimum(self.fitted, longest)
        ready = self.ready(self.time, self.weight)
        self.rest = np.where(self.has_any, self.time - ready, 0)
        self.order = self._order()

    def _fit(self) -> None:
        """Let what goes from one thing to the next take as long as it usually does on the rank; a
        message's launch is one thing, a group's another."""
        self.rest = np.where(self.has_any, self.time - self.ready(self.time, self.weight), 0)
        binding = self.binding()
        at = np.flatnonzero(binding >= 0)
        for kind, most_ns in WAITED_NS.items():
            at = at[(self.kind[binding[at]] != kind) | (self.rest[at] <= most_ns)]
        sorts = self.kind * 2 + ((self.kind == Kind.LAUNCH) & (self.ref < 0))
        ours, ranks, rests = sorts[binding[at]], self.rank[at], self.rest[at]
        for sort in (each for kind in FITTED for each in (2 * kind, 2 * kind + 1)):
            for rank in np.unique(ranks).tolist():
                found = np.sort(rests[(ours == sort) & (ranks == rank)])
                if len(found):
                    these = (sorts == sort) & (self.rank[self.dst] == rank)
                    self.fitted[these] += found[len(found) // 2]

    def ready(self, time: Ints, weight: Ints) -> Ints:
        """When the last dependency of each moment is there; its own time where it has none."""
        found = time.copy()
        some = np.flatnonzero(np.diff(self.first) > 0)
        if len(some):
            ends = time[self.src] + weight
            found[some] = np.maximum.reduceat(ends, self.first[some])
        return found

    def binding(self) -> Ints:
        """Of each moment the dependency that was there last; -1 where it has none."""
        slack = self.time[self.dst] - self.time[self.src] - self.weight
        # a call by itself last: where both end it, it is what it waits for
        order = np.lexsort((self.kind >= Kind.CUDA_CALL, slack, self.dst))
        found = np.full(len(self.time), -1, dtype=np.int64)
        some = np.flatnonzero(self.has_any)
        found[some] = order[self.first[some]]
        return found

    def _order(self) -> list[int]:
        """Moments in an order in which each comes after all that it waits for."""
        waiting = np.diff(self.first).tolist()
        by_src = np.argsort(self.src, kind="stable")
        starts = np.searchsorted(self.src[by_src], np.arange(len(self.time) + 1)).tolist()
        following = self.dst[by_src].tolist()
        found = [at for at, number in enumerate(waiting) if not number]
        for at in found:  # grows while it is read
            for later in following[starts[at] : starts[at + 1]]:
                waiting[later] -= 1
                if not waiting[later]:
                    found.append(later)
        if len(found) < len(waiting):
            raise ValueError(f"{len(waiting) - len(found)} moments wait for each other in a circle")
        return found

    def retimed(self, weight: Ints, rest: Ints) -> Ints:
        """When each moment is reached with these weights, ns; without dependencies as measured."""
        time = self.time.tolist()
        src, first = self.src.tolist(), self.first.tolist()
        weights, rests = weight.tolist(), rest.tolist()
        for at in self.order:
            low, high = first[at], first[at + 1]
            if high - low == 1:
                time[at] = time[src[low]] + weights[low] + rests[at]
            elif high > low:
                time[at] = rests[at] + max(
                    [time[src[edge]] + weights[edge] for edge in range(low, high)]
                )
        return np.array(time, dtype=np.int64)
