"""How much of what happened was recorded: what a conclusion may rest on."""

from __future__ import annotations

from repro_pp_graphs.traces.explain.host import Host, anchors
from repro_pp_graphs.traces.explain.operations import operator_around
from repro_pp_graphs.traces.explain.steps import named, window
from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Case, RankTrace

# Of the batches or steps there, what must be seen before anything is concluded; how many may be
# missing besides, at the edges of what was recorded; and the fewest that a mean is taken of.
ENOUGH = 0.9
EDGES = 2
LEAST = 3
# A missing batch makes two turns look like one: so few of them are allowed there.
ALMOST_ALL = 0.98


def enough(seen: int, there: int) -> bool:
    """Whether so many of the batches or steps there are seen that a conclusion can rest on them."""
    return seen >= max(LEAST, ENOUGH * there - EDGES)


def almost_all(seen: int, there: int) -> bool:
    """Whether so many batches were seen that the time from one to the next can be relied on."""
    return seen >= LEAST and there - seen <= max(EDGES, (1 - ALMOST_ALL) * there)


def recorded_by_all(case: Case, hosts: list[Host]) -> tuple[int, int]:
    """The time in which every rank was recorded, ns; (0, 0) where there is none.

    Ranks start and stop their profilers up to a turn of the ring apart, and a rank waits for those
    that write their files, for up to seconds. When a rank without a trace did so is not known, nor
    of one whose GPU work is not known, nor where clocks may be apart, as recordings are that begin
    or end by many batches apart: then as many batches as there are ranks are left out at both ends
    of every rank.
    """
    begin_ns, end_ns = window(case)
    if end_ns <= begin_ns or _edges_known(case, hosts, begin_ns, end_ns):
        return begin_ns, end_ns
    for host in hosts:
        moments = [message.start_ns for message in anchors(host, case.pp_size)]
        if len(moments) <= 2 * case.pp_size:
            return 0, 0
        begin_ns = max(begin_ns, moments[case.pp_size])
        end_ns = min(end_ns, moments[-case.pp_size])
    return (begin_ns, end_ns) if end_ns > begin_ns else (0, 0)


def _edges_known(case: Case, hosts: list[Host], begin_ns: int, end_ns: int) -> bool:
    """Whether the time that every rank was recorded shows when each began and stopped to record."""
    if len(case.ranks) < case.pp_size * case.tp_size:
        return False
    if any(host.rank.gpu_unknown for host in hosts):
        return False
    beyond = [
        sum(not begin_ns <= message.start_ns <= end_ns for message in anchors(host, case.pp_size))
        for host in hosts
    ]
    return max(beyond, default=0) <= 2 * case.pp_size + EDGES


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


def _sends_in_main_thread(rank: RankTrace) -> bool:
    """Whether gloo's operations lie in operators of the thread that is taken for the scheduler's.

    That is the one with most operators. Without c10d's operators nothing shows it.
    """
    moments = [op.start_ns for op in rank.p2p if op.backend == "gloo"]
    if not (rank.sends or rank.recvs) or not moments or not len(rank.operators):
        return True
    inside = sum(operator_around(rank, moment)[1] > moment for moment in moments)
    return inside >= 0.5 * len(moments)


def unseen(rank: RankTrace) -> str:
    """Why it cannot be known what a rank's host waits for; empty where it can."""
    if not _sends_in_main_thread(rank):
        return "another thread has more operators than the one that sends and receives"
    if rank.gpu_unknown:
        return rank.gpu_unknown
    on_gpu = bool(len(rank.p2p_kernels) or rank.launches)
    if rank.launched_share is None:
        return "the trace has no kernels of the rank but NCCL's" if on_gpu else ""
    if rank.launched_share < ENOUGH:
        return f"{1 - rank.launched_share:.0%} of the CUDA calls that launch kernels are missing"
    return ""
