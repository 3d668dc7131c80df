"""Which ranks share a GPU, and what all of them do on it together.

A rank's file has a number for its GPU as its process counts them: with CUDA_VISIBLE_DEVICES every
process may have a GPU of its own that is its number 0. So ranks of one host whose GPUs have the
same number may share one. They do where the run's record says so, and where the kernels show it:
those of a decode graph take much longer while the other rank's run than while they do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import GpuFacts
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.steps import GpuWork
from repro_pp_graphs.traces.quantiles import Floats
from repro_pp_graphs.traces.rank_trace import Case, RankTrace
from repro_pp_graphs.traces.time_sets import (
    Intervals,
    clip,
    intervals,
    lengths_before,
    merged,
    total,
)

# So many times as long a decode graph's kernels take beside another rank's on the same GPU (median
# over the kernels of a graph). On two H100s under MPS: 2.5 to 4.2 of two ranks that share one, 1.5
# at most of two that do not; with a GPU for each rank 1.00.
SLOWED = 2.0
# Of the time of a kernel, how much the other's must run for it to count as beside, or at most as
# alone; how many of each kernel there must be; of how many kernels of a graph.
BESIDE, ALONE, LEAST, KERNELS = 0.9, 0.1, 3, 10
RECORDED = "the run's record says so"


@dataclass(frozen=True, slots=True)
class SharedGpu:
    """A GPU that several ranks share (`known`), or may share; `why`: how that is known.

    `number`: of the GPU, as in the ranks' files; empty where only the run's record tells.
    """

    hosts: tuple[Host, ...]
    number: str
    known: bool
    why: str
    missing: int = 0  # of its ranks, those without a trace

    @property
    def seen(self) -> bool:
        """Whether all that is done on it is known, if its ranks share it."""
        return not self.missing and not any(host.rank.gpu_unknown for host in self.hosts)

    def compute(self) -> Intervals:
        """When a compute kernel of any of its ranks runs, as a set."""
        return _all(host.work.compute for host in self.hosts)


def _all(sets: Iterable[Intervals]) -> Intervals:
    return merged(np.concatenate([intervals([]), *sets]))


def device_of(rank: RankTrace) -> tuple[str, str] | None:
    """The host and the number of the GPU that a rank's work ran on; None where it is not known."""
    return (rank.host, rank.gpu) if rank.gpu else None


def shared_gpus(case: Case, hosts: Sequence[Host]) -> list[SharedGpu]:
    """The GPUs of more than one rank, known or possible; empty where each rank has its own."""
    on_gpu = [host for host in hosts if len(host.work.busy)]
    if case.placed is not None:
        gpus = case.placed.gpus
        told: dict[int, list[Host]] = {}
        for host in on_gpu if gpus else ():
            told.setdefault(host.rank.rank % gpus, []).append(host)
        ranks = range(case.pp_size * case.tp_size)
        there = Counter(rank % gpus for rank in ranks) if gpus else Counter()
        return [
            SharedGpu(tuple(found), _number(found), True, RECORDED, there[gpu] - len(found))
            for gpu, found in told.items()
            if there[gpu] > 1
        ]
    alike: dict[tuple[str, str], list[Host]] = {}
    for host in on_gpu:
        if place := device_of(host.rank):
            alike.setdefault(place, []).append(host)
    several = [_judged(found, number) for (_, number), found in alike.items() if len(found) > 1]
    # a file that does not say how many there are names those to which it sends
    peers = [op.peer for rank in case.ranks for op in rank.p2p]
    wanted = max(case.pp_size * case.tp_size, *(peer + 1 for peer in peers), 0)
    if len(case.ranks) >= wanted:
        return several
    # a rank that seems to be alone may be with one that has no trace, where some share or its
    # process sees fewer GPUs than there are ranks
    alone = [(number, found[0]) for (_, number), found in alike.items() if len(found) == 1]
    return several + [
        SharedGpu((host,), number, False, "", 1)
        for number, host in alone
        if several or host.rank.gpus_seen < wanted
    ]


def _number(hosts: Sequence[Host]) -> str:
    places = {device_of(host.rank) for host in hosts}
    place = places.pop() if len(places) == 1 else None
    return place[1] if place else ""


def _judged(hosts: list[Host], number: str) -> SharedGpu:
    """Ranks whose GPUs have the same number: whether their kernels show that it is one."""
    slowed: list[float] = []
    group = {id(hosts[0])}
    pairs = list(combinations(hosts, 2))
    for _ in hosts:  # whoever slows one of the group down is of it
        before = len(group)
        for one, other in pairs:
            if (id(one) in group) != (id(other) in group):
                times = min(slower(one.work, other.work), slower(other.work, one.work))
                if times >= SLOWED:
                    group |= {id(one), id(other)}
                    slowed.append(times)
        if len(group) == before:
            break
    if len(group) < len(hosts):
        return SharedGpu(tuple(hosts), number, False, "")
    why = (
        f"a decode graph's kernels take {min(slowed):.1f} times as long while the other's run "
        "(median)"
    )
    return SharedGpu(tuple(hosts), number, True, why)


def slower(work: GpuWork, beside: GpuWork) -> float:
    """How many times as long the kernels of a rank's decode graphs take while another's run: the
    median over the kernels of a graph; 1 where too few of them ran both beside the other's and
    alone."""
    times = work.graph_kernels
    if not times.size:
        return 1.0
    spent = times[..., 1] - times[..., 0]
    flat = times.reshape(-1, 2)
    there = lengths_before(beside.compute, flat[:, 1]) - lengths_before(beside.compute, flat[:, 0])
    share = there.reshape(spent.shape) / np.maximum(spent, 1)
    along, alone = share >= BESIDE, share <= ALONE
    enough = np.minimum(along.sum(axis=0), alone.sum(axis=0)) >= LEAST
    if enough.sum() < KERNELS:
        return 1.0
    spent, along, alone = spent[:, enough], along[:, enough], alone[:, enough]
    ratios = _medians(spent, along) / np.maximum(_medians(spent, alone), 1)
    return float(np.median(ratios))


def _medians(values: npt.NDArray[np.int64], chosen: npt.NDArray[np.bool_]) -> Floats:
    """The median of the chosen values of each column, which has some."""
    ranked = np.sort(np.where(chosen, values, np.iinfo(np.int64).max), axis=0)
    counts, columns = chosen.sum(axis=0), np.arange(values.shape[1])
    found: Floats = (ranked[(counts - 1) // 2, columns] + ranked[counts // 2, columns]) / 2
    return found


def facts_of(case: Case, found: SharedGpu, window_ns: tuple[int, int]) -> GpuFacts:
    """What all of its ranks do together on a GPU in a time; if they do not share it, what would be
    so if they did."""
    busy = _all(host.work.busy for host in found.hosts)
    both = _all([busy, *(host.work.p2p for host in found.hosts)])
    length = window_ns[1] - window_ns[0]
    shares: tuple[float, float] | None = None
    if length > 0 and found.seen:
        in_use = total(clip(busy, *window_ns)) / length
        shares = in_use, total(clip(both, *window_ns)) / length - in_use
    return GpuFacts(
        number=found.number,
        ranks=[case.label(host.rank) for host in found.hosts],
        shared=True if found.known else None,
        why=found.why + f" ({found.missing} more without a trace)" * bool(found.missing),
        busy_fraction=round(shares[0], 4) if shares else None,
        p2p_fraction=round(shares[1], 4) if shares else None,
        idle_fraction=round(1 - sum(shares), 4) if shares else None,
    )
