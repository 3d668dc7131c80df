"""How much of what happened was recorded: what a conclusion may rest on."""

from __future__ import annotations

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.model import RankTrace
from repro_pp_graphs.traces.steps import RUN_SPANS, named

# Of the batches or steps there, what must be seen before anything is concluded; and how many may be
# missing besides, at the edges of what was recorded.
ENOUGH = 0.9
EDGES = 2
# A missing batch makes two turns look like one: so few of them are allowed there.
ALMOST_ALL = 0.98


def enough(seen: int, there: int) -> bool:
    """Whether so many of the batches or steps there are seen that a conclusion can rest on them."""
    return seen > 0 and seen >= ENOUGH * there - EDGES


def almost_all(seen: int, there: int) -> bool:
    """Whether so many batches were seen that the time from one to the next can be relied on."""
    return seen > 1 and there - seen <= max(EDGES, (1 - ALMOST_ALL) * there)


def batches_there(host: Host, begin_ns: int, end_ns: int) -> int:
    """Batches that a rank must have run in a time: the most that any kind of event shows.

    Its batches as annotated, its graph launches, and its messages: one of each sort a batch.
    """
    moments: list[list[int]] = [
        [span.start_ns for span in named(host.rank, RUN_SPANS)],
        [start for start, _, _ in host.rank.launches],
        host.work.extents[:, 0].tolist(),
        *(
            [message.start_ns for message in found]
            for (what, _), found in host.sorted_out.items()
            if what in ("tokens", "hidden")
        ),
    ]
    return max(sum(begin_ns <= moment <= end_ns for moment in each) for each in moments)


def unseen(rank: RankTrace) -> str:
    """Why what a rank's host waits for cannot be told; empty where it can."""
    on_gpu = bool(len(rank.p2p_kernels) or rank.launches)
    if rank.launched_share is None:
        return "the trace has no kernels of the rank but NCCL's" if on_gpu else ""
    if rank.launched_share < ENOUGH:
        return f"{1 - rank.launched_share:.0%} of the CUDA calls that launch kernels are missing"
    return ""
