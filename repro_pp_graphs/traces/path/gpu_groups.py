"""A rank's GPU work in groups that the host launched in one go, each one link of a chain.

Kernels of a stream run one after another, each not before its launch. So a group ends when its work
is done from its start on, or when it is done from the last kernel on that came late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.rank_trace import Kernels

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Two kernels of a stream follow each other in this time where nothing keeps the second.
NEXT_NS = 2_000
# A kernel this much later than its launch and the one before it waited for something else.
LATE_NS = 20_000
# A kernel begins this long after its launch at most, where nothing keeps it; a graph so long after
# the end of the call. Where all graphs begin later, all may have waited for something: then they
# are taken to begin at the end of their calls, which none does much before (docs/ring_path.md).
LAUNCHES_NS = 20_000
GRAPH_LAUNCHES_NS = 15_000
NEVER = np.iinfo(np.int64).min // 4


@dataclass(slots=True)
class Groups:
    """Groups by stream and start; columns of one number a group, times in ns.

    `stretch`: the host's stretch (between two moments of it) that launched it; `posted`, `last`:
    its first and last launch; `work`: what it takes from its start where nothing comes late;
    `late`: from the begin of the host's stretch to its end by its latecomer (NEVER: it has none),
    of which `tail` is work, from the latecomer on; `launch`: from its first launch to its start
    where nothing keeps it; `items`: how many kernels and copies. `launch_ns`: `launch` of a kernel.
    """

    stream: Ints
    stretch: Ints
    start: Ints
    end: Ints
    posted: Ints
    last: Ints
    graph: Bools
    work: Ints
    late: Ints
    tail: Ints
    items: Ints
    launch: Ints
    launch_ns: int
    source: Items

    def __len__(self) -> int:
        return len(self.start)


@dataclass(slots=True)
class Items:
    """Kernels and copies by stream and start, a graph's as one; times in ns."""

    stream: Ints
    start: Ints
    end: Ints
    posted: Ints
    graph: Bools
    launch: Ints
    takes: Ints
    first: Ints

    def late(self, offsets: Ints, launch: Ints, takes: Ints) -> tuple[Ints, Ints]:
        """For each group how long after its stretch's begin it ends by its latecomer, and of that
        its work; with launches at these offsets from there, and what launches and work take."""
        if not len(self.first):
            return self.first, self.first
        before = np.cumsum(takes) - takes
        came = offsets + launch - before
        came[self.first] = NEVER
        latest = np.maximum.reduceat(came, self.first)
        last = np.append(self.first[1:], len(self.start)) - 1
        whole = before[last] + takes[last]
        number = np.repeat(np.arange(len(self.first)), np.diff(np.append(self.first, len(came))))
        is_latest = came == latest[number]
        at = np.maximum.reduceat(np.where(is_latest, np.arange(len(came)), -1), self.first)
        found = np.where(latest > NEVER // 2, latest + whole, NEVER)
        return found, whole - before[at]


def _graphs_as_one(kernels: Kernels, launched: Ints) -> list[Ints]:
    """Columns stream, start, end, posted, graph of kernels, each graph launch being one."""
    ids, back, counts = np.unique(kernels.correlation, return_inverse=True, return_counts=True)
    back = back.reshape(-1)
    is_graph = (ids > 0) & ((counts > 1) | np.isin(ids, launched))
    of_graph = is_graph[back]
    start, end = kernels.times[:, 0], kernels.times[:, 1]
    alone = ~of_graph
    columns = [kernels.stream.astype(np.int64), start, end, kernels.posted]
    plain = [column[alone] for column in columns]
    at = np.flatnonzero(of_graph)
    if not len(at):
        return [*plain, np.zeros(len(plain[0]), dtype=np.int64)]
    at = at[np.argsort(back[at], kind="stable")]
    edges = np.flatnonzero(np.diff(back[at], prepend=-1) != 0)
    # its stream is the one of its first kernel
    one = [
        columns[0][at][edges],
        np.minimum.reduceat(start[at], edges),
        np.maximum.reduceat(end[at], edges),
        columns[3][at][edges],
    ]
    joined = [np.concatenate(pair) for pair in zip(plain, one, strict=True)]
    flags = np.concatenate([np.zeros(len(plain[0])), np.ones(len(edges))]).astype(np.int64)
    return [*joined, flags]


def _filled(posted: Ints, stream: Ints) -> Ints:
    """Launch times, those not in the trace taken from the work before on the stream."""
    number = np.arange(len(posted))
    known = np.maximum.accumulate(np.where(posted >= 0, number, -1))
    same = (known >= 0) & (stream[known] == stream)
    return np.where(same, posted[known], -1)


def kernels_in(kernels: Kernels, window: tuple[int, int]) -> Kernels:
    """The kernels that begin in a time, ns."""
    low, high = kernels.times[:, 0].searchsorted(window).tolist()
    if low == 0 and high == len(kernels.times):
        return kernels
    part = slice(low, high)
    return Kernels(
        kernels.times[part],
        kernels.correlation[part],
        kernels.is_copy[part],
        kernels.posted[part],
        kernels.stream[part],
    )


def items_of(kernels: Kernels, launches: Ints) -> tuple[Items, int]:
    """A rank's GPU work by stream, and what a kernel takes from its launch to its begin, ns;
    `launches` are its graph launches: begin, end and correlation.
    """
    columns = _graphs_as_one(kernels, launches[:, 2])
    order = np.lexsort((columns[1], columns[0]))
    columns = [column[order] for column in columns]
    columns[3] = _filled(columns[3], columns[0])
    stream, start, end, posted, flags = (column[columns[3] >= 0] for column in columns)
    graph: Bools = flags > 0
    before = np.concatenate([[NEVER], end[:-1]])
    before[np.diff(stream, prepend=-1) != 0] = NEVER
    idle = start > before + NEXT_NS
    plain = shortest_launch((start - posted)[idle & (posted > before) & ~graph])
    most = np.where(graph, LAUNCHES_NS, plain)
    if len(launches):
        call = np.minimum(launches[:, 0].searchsorted(posted), len(launches) - 1)
        whole = graph & (launches[call, 0] == posted) & (launches[call, 1] > posted)
        length = np.where(whole, launches[call, 1] - posted, 1)
        # on an idle GPU a graph begins when its call has come so far
        shares = np.sort(((start - posted) / length)[whole & idle & (posted > before)])
        share = shares[len(shares) // 10] if len(shares) else 1.0
        if whole.any() and (share - 1) * np.median(length[whole]) > GRAPH_LAUNCHES_NS:
            share = 1.0
        prompt = np.rint(np.minimum(share * length, length + GRAPH_LAUNCHES_NS)).astype(np.int64)
        most = np.where(whole, prompt, most)
    launch = np.minimum(most, start - posted)
    takes = end - np.maximum(before, posted + launch)
    none = np.empty(0, dtype=np.int64)
    return Items(stream, start, end, posted, graph, launch, takes, none), plain


def shortest_launch(values: Ints) -> int:
    """What the shortest tenth of some launches takes, ns; LAUNCHES_NS where all may have waited."""
    shortest: list[int] = np.sort(values)[len(values) // 10 :][:1].tolist()
    return min([LAUNCHES_NS, *shortest])


def groups_of(items: Items, launch_ns: int, moments: Ints) -> Groups:
    """The groups of a rank's GPU work; `moments` are those of its host, sorted; `launch_ns` what a
    kernel's launch takes."""
    stretch = moments.searchsorted(items.posted, side="right") - 1
    number = np.arange(len(items.start))
    before = np.concatenate([[NEVER], items.end[:-1]])
    late = items.start - np.maximum(before, items.posted + items.launch) > LATE_NS
    after_graph = np.concatenate([[False], items.graph[:-1]])[: len(number)]
    opens = (
        (np.diff(items.stream, prepend=-1) != 0)
        | (np.diff(stretch, prepend=-2) != 0)
        | items.graph
        | after_graph
        | late
    )
    first = np.flatnonzero(opens)
    items.first = first
    items.takes[first] = items.end[first] - items.start[first]
    last = np.append(first[1:], len(number))[: len(first)] - 1
    begin = moments[np.maximum(stretch, 0)] if len(moments) else items.posted
    came, tail = items.late(items.posted - begin, items.launch, items.takes)
    before = np.cumsum(items.takes) - items.takes
    work = before[last] + items.takes[last] - before[first]
    return Groups(
        stream=items.stream[first],
        stretch=stretch[first],
        start=items.start[first],
        end=items.end[last],
        posted=items.posted[first],
        last=items.posted[last],
        graph=items.graph[first],
        work=work,
        late=came,
        tail=tail,
        items=last - first + 1,
        launch=items.launch[first],
        launch_ns=launch_ns,
        source=items,
    )
