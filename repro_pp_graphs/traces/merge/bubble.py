"""The counter of a rank's bubble: the share of time in which its GPU computes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.steps import named
from repro_pp_graphs.traces.explain.words import names_of
from repro_pp_graphs.traces.merge.track import Event, Track
from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Case
from repro_pp_graphs.traces.time_sets import Intervals, intervals, merged

BUBBLE_BINS = 1000
SHORTEST_BIN_NS = 100_000


def _busy(host: Host) -> Intervals:
    """When the rank computes: its GPU's work without P2P, where it is known to share the GPU that
    of all ranks there; without a GPU its batches."""
    rank = host.rank
    if not len(rank.kernels.times):
        return merged(intervals((span.start_ns, span.end_ns) for span in named(rank, RUN_SPANS)))
    beside = host.beside if host.compute_of_all is not None else []
    return merged(np.concatenate([each.work.busy for each in (host, *beside)]))


def _counted(host: Host, case: Case) -> str:
    """What the counter is of: the bubble, of a GPU of several ranks; or of a rank's own kernels,
    where it cannot be told whether its GPU runs another's meanwhile."""
    if not host.shares:
        return "bubble"
    if host.compute_of_all is None:
        return "no own kernels"
    return f"bubble of its GPU (with {names_of([case.label(each.rank) for each in host.beside])})"


def bubbles(track: Track, host: Host, case: Case) -> Iterator[Event]:
    """A counter of the share of time (%) in which the rank's GPU computes nothing, bin by bin."""
    busy = _busy(host)
    if not len(busy):
        return
    start, end = int(busy[0, 0]), int(busy[-1, 1])
    width = max(SHORTEST_BIN_NS, (end - start) // BUBBLE_BINS)
    # Time busy up to each bin's edge, by interpolation between the edges of the busy intervals.
    done = np.concatenate(([0], np.cumsum(busy[:, 1] - busy[:, 0])))
    marks = np.arange(start, end + width, width)
    at = np.searchsorted(busy[:, 0], marks, side="right")
    last = np.maximum(at - 1, 0)
    until = done[at] - np.maximum(0, busy[last, 1] - marks)
    idle = np.round(100 * (1 - np.diff(until) / width), 1)
    last_share = -1.0
    name = f"{track.placed.part.names.title} · {_counted(host, case)}"
    # a counter keeps its last value for ever: at the end of what was recorded it goes to 0
    for mark, share in zip(marks.tolist(), [*idle.tolist(), 0.0], strict=True):
        if share == last_share:
            continue
        last_share = share
        yield {
            "ph": "C",
            "name": name,
            "pid": track.pid,
            "tid": 0,
            "ts": track.us(mark),
            "args": {"%": share},
        }
