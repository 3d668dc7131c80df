"""What is kept of one rank's trace, and of a case's. All times are ns since the Unix epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.time_sets import Intervals, intervals

Backend = Literal["nccl", "gloo"]
# of a batch, as sglang annotates it
RUN_SPANS = ("run_batch", "scheduler.run_batch")


class P2POp(msgspec.Struct, gc=False):
    """One send or recv: an NCCL kernel on the GPU, or a gloo operation on the host.

    Messages keep their order only within a channel.
    """

    kind: Literal["send", "recv"]
    peer: int  # global rank
    elements: int | None  # None: not in the trace
    dtype: str | None
    start_ns: int
    end_ns: int
    backend: Backend
    posted_ns: int | None  # when the host launched it; None where nothing in the trace shows it
    channel: str = ""  # its process group
    # pid and tid of the event in its file
    lane: tuple[int | float | str | None, int | float | str | None] = (None, None)
    number: int = 0  # counts the messages from rank to rank in a group from 1 (pp_clock); 0: none
    group: str = ""  # of these numbers
    # of a batch_isend_irecv: which one of the rank's, from 1 (0: of none); over NCCL its sends and
    # receives are one kernel with one begin and end, and it is known when the host asked for each
    batch: int = 0
    called_ns: int | None = None


class SentWait(msgspec.Struct, gc=False):
    """A time in which the host waits until earlier sends over gloo are done; ns.

    A trace has it only where pp_clock named the sends.
    """

    start_ns: int
    end_ns: int
    sends: list[P2POp]


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
    """What is kept of one rank's trace: who it is, its GPU work, its host's work, what is wrong."""

    path: str
    pp: int  # PP rank
    tp: int  # TP rank
    rank: int  # global: pp * tp_size + tp
    host: str = ""  # name of its machine, where the file has it
    base_ns: int = 0  # baseTimeNanoseconds: what has been added to its ts
    world_size: int | None = None
    events: int = 0  # in the file
    # the GPU
    kernels: Kernels = field(default_factory=Kernels.none)
    p2p_kernels: Intervals = field(default_factory=lambda: intervals([]))  # known peer or not
    p2p: list[P2POp] = field(default_factory=list)  # with a known peer; gloo's too, on the host
    sent_waits: list[SentWait] = field(default_factory=list)
    unlabelled_p2p: int = 0  # P2P kernels whose peers nothing in the trace names
    # the host's main thread
    spans: list[Span] = field(default_factory=list)  # annotations
    launches: list[tuple[int, int, int]] = field(default_factory=list)
    """cudaGraphLaunch calls: begin, end, correlation."""
    calls: list[Span] = field(default_factory=list)  # CUDA calls of 50 us or more, and copies
    syncs: list[Span] = field(default_factory=list)  # shorter ones that only wait for the GPU
    uploads: dict[int, int] = field(default_factory=dict)
    """Copies from pageable memory: bytes (-1: not known) by correlation."""
    sends: list[Span] = field(default_factory=list)  # c10d operators
    recvs: list[Span] = field(default_factory=list)
    nccl_marks: list[Span] = field(default_factory=list)  # annotations as `nccl:send 1->0`
    operators: Intervals = field(default_factory=lambda: intervals([]))  # inside any operator
    launched_share: float | None = None
    """Share of the kernels whose launch was recorded; None without kernels."""
    gpu_unknown: str = ""
    """Why it is not known when the rank's GPU works, though it has one; empty where it is."""
    # the file
    problems: list[str] = field(default_factory=list)
    times_us: tuple[float, float] | None = None  # first and last possible ts
    left_out_ns: frozenset[tuple[int, int]] = frozenset()
    """ts and length of further events that cannot be."""
    tp_size: int = 1
    rank_known: bool = True  # the file's name or distributedInfo says which rank it is
    gpu: str = ""  # number of the GPU that its work ran on, as its process counts; "": not known
    gpus_seen: int = 0  # by its process, as the file lists them; 0: it does not
    gpu_model: str = ""  # of the first of these
    gpu_only: bool = False  # the profiler recorded no CPU activities

    def extent(self) -> tuple[int, int] | None:
        """First start and last end of the rank's GPU work, without a GPU of its spans."""
        work = [times for times in (self.kernels.times, self.p2p_kernels) if len(times)]
        if work:
            return min(int(w[:, 0].min()) for w in work), max(int(w[:, 1].max()) for w in work)
        if self.spans:
            return self.spans[0].start_ns, max(span.end_ns for span in self.spans)
        return None


@dataclass(frozen=True, slots=True)
class Placement:
    """How a run put its ranks on GPUs, as its record says: over so many in turn; 0: one a rank."""

    gpus: int


@dataclass(slots=True)
class Case:
    """The ranks of one profile, by (pp, tp), and what is wrong with them."""

    name: str
    ranks: list[RankTrace]
    pp_size: int
    tp_size: int
    warnings: list[str] = field(default_factory=list)
    moved_us: dict[str, float] = field(default_factory=dict)
    """By host, what has been added to its ranks' recorded times (pair/host_clocks.py)."""
    placed: Placement | None = None
    """None: no record of a run says which GPUs its ranks are on."""

    def label(self, rank: RankTrace) -> str:
        """`3`, with tensor parallelism `3.1`: PP rank, TP rank."""
        return f"{rank.pp}.{rank.tp}" if self.tp_size > 1 else str(rank.pp)
