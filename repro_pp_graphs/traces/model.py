"""What is kept of one rank's trace, and of a case's. All times are ns since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.time_sets import Intervals, intervals

Backend = Literal["nccl", "gloo"]


class P2POp(msgspec.Struct, gc=False):
    """One send or recv: an NCCL kernel on the GPU, or a gloo operation on the host.

    `peer` is a global rank; elements and dtype are None where the trace is silent; `posted_ns` is
    when the host launched it, None where nothing in the trace tells; messages keep their order only
    within a `channel` (process group); `lane` is the event's pid and tid in its file.
    """

    kind: Literal["send", "recv"]
    peer: int
    elements: int | None
    dtype: str | None
    start_ns: int
    end_ns: int
    backend: Backend
    posted_ns: int | None
    channel: str = ""
    lane: tuple[int | float | str | None, int | float | str | None] = (None, None)


class Span(msgspec.Struct, gc=False):
    """A named interval on the host; correlation where it is a CUDA call."""

    name: str
    start_ns: int
    end_ns: int
    correlation: int = -1


@dataclass(slots=True)
class Kernels:
    """GPU work other than P2P, by start: kernels, copies and sets.

    `posted` is when the host's call began that launched it, ns, -1 where that call is not in the
    trace; `stream` a number for each stream of the rank (0, 1, ...), in no order.
    """

    times: Intervals
    correlation: npt.NDArray[np.int64]
    is_copy: npt.NDArray[np.bool_]
    posted: npt.NDArray[np.int64]
    stream: npt.NDArray[np.int32]

    @classmethod
    def none(cls) -> Kernels:
        none = np.empty(0, dtype=np.int64)
        return cls(intervals([]), none, none.astype(np.bool_), none, none.astype(np.int32))


@dataclass(slots=True)
class RankTrace:
    """One rank's facts.

    `launches` are the host's cudaGraphLaunch calls with their correlation; `calls` the main
    thread's CUDA calls that took 50 us or more, and its copies; `syncs` the shorter
    ones that only wait for the GPU; `uploads` the copies from pageable memory, bytes by correlation
    (-1: not known); `spans` the main thread's annotations;
    `sends` and `recvs` the host's c10d operators, `nccl_marks` its annotations of NCCL operations
    (`nccl:send 1->0`); `operators` when the main thread was inside a host operator;
    `launched_share` of its kernels' launches, how many calls were recorded (None without kernels);
    `p2p_kernels` all P2P kernels, known peer or not; `sound`: the file is valid JSON to its end and
    nothing was left out; `times_us` the first and last possible ts in it, `left_out_ns` ts and
    length of further events that cannot be; `rank_told`: name or distributedInfo say which rank it
    is; `gpu_only`: the profiler recorded no CPU activities.
    """

    path: str
    pp: int
    tp: int
    rank: int
    host: str = ""
    base_ns: int = 0
    world_size: int | None = None
    events: int = 0
    kernels: Kernels = field(default_factory=Kernels.none)
    p2p_kernels: Intervals = field(default_factory=lambda: intervals([]))
    p2p: list[P2POp] = field(default_factory=list)
    unlabelled_p2p: int = 0
    spans: list[Span] = field(default_factory=list)
    launches: list[tuple[int, int, int]] = field(default_factory=list)
    calls: list[Span] = field(default_factory=list)
    syncs: list[Span] = field(default_factory=list)
    uploads: dict[int, int] = field(default_factory=dict)
    sends: list[Span] = field(default_factory=list)
    recvs: list[Span] = field(default_factory=list)
    nccl_marks: list[Span] = field(default_factory=list)
    operators: Intervals = field(default_factory=lambda: intervals([]))
    launched_share: float | None = None
    problems: list[str] = field(default_factory=list)
    sound: bool = False
    times_us: tuple[float, float] | None = None
    left_out_ns: frozenset[tuple[int, int]] = frozenset()
    tp_size: int = 1
    rank_told: bool = True
    gpu_only: bool = False


@dataclass(slots=True)
class Case:
    """The ranks of one profile, by (pp, tp), and what is wrong with them."""

    name: str
    ranks: list[RankTrace]
    pp_size: int
    tp_size: int
    warnings: list[str] = field(default_factory=list)

    def label(self, rank: RankTrace) -> str:
        """`3`, with tensor parallelism `3.1`: PP rank, TP rank."""
        return f"{rank.pp}.{rank.tp}" if self.tp_size > 1 else str(rank.pp)
