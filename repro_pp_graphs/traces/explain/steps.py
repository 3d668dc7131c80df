"""Steps of a rank: its batches, its graph launches with their kernels, its use of the GPU."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import GpuFacts, RankFacts, Ring
from repro_pp_graphs.traces.quantiles import median
from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Case, RankTrace, Span
from repro_pp_graphs.traces.time_sets import Intervals, clip, intervals, merged, total

STEP = re.compile(r"step\[(\w+)(?: bs=(\d+))?")
LOOP_SPANS = ("recv_requests", "scheduler.recv_requests")
LEAST_BATCHES = 3  # whole ones, to say how many kernels a batch has
UNPOSTED = 0.01  # of their kernels; 0 in every real trace whose launches were not taken out
# Python that does the same whatever the sends and the graphs are: how fast a host is.
PYTHON_SPANS = ("get_next_batch_to_run", "scheduler.get_next_batch_to_run")


@dataclass(frozen=True, slots=True)
class GpuWork:
    """A rank's GPU time as disjoint sets.

    `graph`: kernels that graph launches started; `compute`: all kernels but P2P; `busy`: those and
    copies; `p2p`: P2P kernels. `extents` is no set: from first to last kernel of every graph
    launch, by start. `graph_kernels`: of the graph that most launches are of, each launch's kernels
    in their order, ns: launches x kernels x 2.
    """

    graph: Intervals
    extents: Intervals
    compute: Intervals
    busy: Intervals
    p2p: Intervals
    graph_kernels: npt.NDArray[np.int64]


def gpu_work(rank: RankTrace) -> GpuWork:
    """Kernels that share one correlation were started by one call: those of a graph launch.

    The call itself is not needed for that, but for a graph of a single kernel.
    """
    kernels = rank.kernels
    order = np.argsort(kernels.correlation, kind="stable")
    ids, first, counts = np.unique(
        kernels.correlation[order], return_index=True, return_counts=True
    )
    launched = np.sort(np.array([-1, *(corr for _, _, corr in rank.launches)], dtype=np.int64))
    is_launched = launched[launched.searchsorted(ids, side="right") - 1] == ids
    is_graph = (ids > 0) & ((counts > 1) | is_launched)
    of_graph = [
        kernels.times[order[low : low + count]]
        for low, count in zip(first[is_graph], counts[is_graph], strict=True)
    ]
    extents = intervals((times[:, 0].min(), times[:, 1].max()) for times in of_graph)
    return GpuWork(
        graph=merged(np.concatenate([intervals([]), *of_graph])),
        extents=extents[np.argsort(extents[:, 0], kind="stable")],
        compute=merged(kernels.times[~kernels.is_copy]),
        busy=merged(kernels.times),
        p2p=merged(rank.p2p_kernels),
        graph_kernels=_alike(of_graph),
    )


def _alike(launches: list[Intervals]) -> npt.NDArray[np.int64]:
    """The launches with as many kernels as most of them have, as one array."""
    most = Counter(map(len, launches)).most_common(1)
    same = [times for times in launches if most and len(times) == most[0][0]]
    return np.array(same, dtype=np.int64).reshape(len(same), most[0][0] if most else 0, 2)


def named(rank: RankTrace, names: tuple[str, ...]) -> list[Span]:
    """Spans of the first of the names that occurs."""
    for name in names:
        if found := [span for span in rank.spans if span.name == name]:
            return found
    return []


def rank_facts(
    rank: RankTrace,
    work: GpuWork,
    window_ns: tuple[int, int],
    sent_ns: list[int],
    tokens: list[int],
) -> RankFacts:
    """A rank's use of the window, and its steps: by forward mode, decode steps by batch size.

    `sent_ns` and `tokens` are what its messages show: when what each batch gave was sent, and of
    how many sequences each was; they stand in where the trace has no annotations of batches.
    """
    has_gpu = bool(len(rank.kernels.times) or len(rank.p2p_kernels))
    is_known = window_ns[1] > window_ns[0] and not rank.gpu_unknown
    busy, p2p = shares(rank, work, window_ns, has_gpu) if is_known else NO_SHARES
    marks = [match for span in rank.spans if (match := STEP.match(span.name))]
    sizes = Counter(match[2] for match in marks if match[1] == "DECODE" and match[2])
    sizes = sizes or Counter(str(size) for size in tokens)
    extents = np.diff(work.extents)[:, 0]
    ran = len(named(rank, RUN_SPANS)) or len(sent_ns)
    python = np.array([span.end_ns - span.start_ns for span in named(rank, PYTHON_SPANS)])
    return RankFacts(
        busy_fraction=None if busy is None else round(busy, 4),
        p2p_fraction=None if p2p is None else round(p2p, 4),
        idle_fraction=None if busy is None or p2p is None else round(1 - busy - p2p, 4),
        basis=None if busy is None else "gpu" if has_gpu else "host",
        batches=ran or None,
        kernels_a_batch=_kernels_a_batch(rank, sent_ns),
        modes=dict(Counter(match[1] for match in marks)),
        decode_batch_sizes=dict(sorted(sizes.items(), key=lambda item: int(item[0]))),
        graph_launches=len(rank.launches),
        graph_us=round(median(extents) / 1000, 3) if len(extents) else None,
        next_batch_us=round(median(python) / 1000, 3) if len(python) else None,
    )


def _kernels_a_batch(rank: RankTrace, sent_ns: list[int]) -> float | None:
    """The median of how many compute kernels the host launches from one batch to the next, as those
    of the batches that the trace cuts are not whole. None where fewer than LEAST_BATCHES are, or
    the launches of more than UNPOSTED of the kernels in between are not in the trace."""
    begins = sent_ns or [span.start_ns for span in named(rank, RUN_SPANS)]
    if len(begins) <= LEAST_BATCHES:
        return None
    computes, starts = ~rank.kernels.is_copy, rank.kernels.times[:, 0]
    between = computes & (starts > begins[1]) & (starts < begins[-1])
    if (rank.kernels.posted[between] < 0).sum() > UNPOSTED * between.sum():
        return None
    posted = np.sort(rank.kernels.posted[computes])
    counts = np.diff(posted.searchsorted(np.array(begins, dtype=np.int64)))
    return float(np.median(counts)) or None


def decode_spans(rank: RankTrace) -> list[Span]:
    """Decode steps on the host: `step[DECODE ...]`, else batches, else graph launches."""
    marked = [
        span for span in rank.spans if (match := STEP.match(span.name)) and match[1] == "DECODE"
    ]
    launches = [Span("graph launch", start, end) for start, end, _ in rank.launches]
    return marked or named(rank, RUN_SPANS) or launches


def micro_batches(case: Case) -> int | None:
    """Micro-batches under way in the ring: the share of the loop's slots that ran a batch.

    The scheduler's loop has a slot for each PP rank; None without its annotations.
    """
    shares = [
        len(named(rank, RUN_SPANS)) / loops
        for rank in case.ranks
        if (loops := len(named(rank, LOOP_SPANS)))
    ]
    if not shares:
        return None
    return max(1, min(case.pp_size, round(median(np.array(shares)) * case.pp_size)))


def window(case: Case) -> tuple[int, int]:
    """The time in which every rank was recorded, ns; (0, 0) when there is none."""
    spans = [extent for rank in case.ranks if (extent := rank.extent())]
    if not spans:
        return 0, 0
    start, end = max(low for low, _ in spans), min(high for _, high in spans)
    return (start, end) if end > start else (0, 0)


NO_SHARES = (None, None)


def shares(
    rank: RankTrace, work: GpuWork, window_ns: tuple[int, int], has_gpu: bool
) -> tuple[float, float]:
    """Busy and P2P share of a window; the rest of it the rank is idle.

    P2P counts only while nothing else runs. Without a GPU, running a batch counts as busy and
    waiting in gloo as P2P.
    """
    start, end = window_ns
    if has_gpu:
        busy, p2p = work.busy, work.p2p
    else:
        busy = merged(intervals((s.start_ns, s.end_ns) for s in named(rank, RUN_SPANS)))
        p2p = merged(intervals((op.start_ns, op.end_ns) for op in rank.p2p if op.kind == "recv"))
    length = end - start
    busy, p2p = clip(busy, start, end), clip(p2p, start, end)
    busy_share = total(busy) / length
    return busy_share, total(merged(np.concatenate([busy, p2p]))) / length - busy_share


def bubble(
    case: Case, rows: dict[str, RankFacts], m: int | None, gpus: list[GpuFacts] | None = None
) -> Ring:
    """Share of the time in which a GPU computes nothing, the mean of the GPUs; against the ideal.

    `rows` by rank label; `gpus`: those of several ranks, whose time counts once. Where it cannot be
    told whether ranks share one, or one's use is not known, there is no such share. With m
    micro-batches (None: not known) in a ring of p equal stages, a GPU each, a stage works at most
    m/p of the time.
    """
    gpus = gpus or []
    known = all(gpu.shared for gpu in gpus)
    sharing = {label for gpu in gpus for label in gpu.ranks}
    shares = [row.busy_fraction for label, row in rows.items() if label not in sharing]
    every = [*shares, *(gpu.busy_fraction for gpu in gpus)]
    busy = [share for share in every if share is not None]
    busy = busy if len(busy) == len(every) else []
    return Ring(
        micro_batches=m,
        bubble_fraction=round(1 - float(np.mean(busy)), 4) if busy and known else None,
        ideal_bubble_fraction=round(max(0.0, 1 - m / case.pp_size), 4) if m else None,
    )
