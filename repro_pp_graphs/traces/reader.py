"""One rank's trace file to a RankTrace: only the fields the analysis needs are decoded."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np

from repro_pp_graphs.traces.events import TraceFile, Value, mend
from repro_pp_graphs.traces.intervals import merged
from repro_pp_graphs.traces.labels import SIDES, Label, LaunchSite, P2PKernel, label_kernels
from repro_pp_graphs.traces.model import Kernels, P2POp, RankTrace, Span, intervals
from repro_pp_graphs.traces.naming import Identity

NO_KERNELS = "no GPU kernels: a CPU run, or the profiler recorded none"
# A CUDA call that only enqueues returns in about 10 us.
BLOCKED_US = 50.0
GPU_WORK = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
CUDA_CALLS = frozenset({"cuda_runtime", "cuda_driver"})
REQUEST_SPANS = frozenset({"send_reqs_to_next_stage", "recv_requests", "scheduler.recv_requests"})
OPERATORS = frozenset({"record_param_comms", "c10d::send", "c10d::recv_"})
LAUNCH_CALLS = frozenset(
    {"cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernelEx", "cuLaunchKernel"}
)

CALLS = LAUNCH_CALLS | {"cudaGraphLaunch", "cudaMemcpyAsync"}


class Args(msgspec.Struct, gc=False):
    """The arguments read of an event; a send names only its Dst Rank, a recv its Src Rank."""

    external_id: Value = msgspec.field(default=None, name="External id")
    correlation: Value = None
    stream: Value = None
    graph_id: Value = msgspec.field(default=None, name="graph id")
    collective: Value = msgspec.field(default=None, name="Collective name")
    elements: Value = msgspec.field(default=None, name="In msg nelems")
    dtype: Value = None
    src: Value = msgspec.field(default=None, name="Src Rank")
    dst: Value = msgspec.field(default=None, name="Dst Rank")
    group: Value = msgspec.field(default=None, name="Process Group Name")
    dims: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Input Dims")
    types: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Input type")


class Event(msgspec.Struct, gc=False):
    """One trace event; ts and dur in us, ts counted from baseTimeNanoseconds."""

    ph: str = ""
    cat: str = ""
    name: Value = ""
    pid: Value = 0
    tid: Value = 0
    ts: float = 0.0
    dur: float = 0.0
    args: Args | None = None


NO_ARGS = Args()
EVENTS = msgspec.json.Decoder(list[Event])


def events_of(trace: TraceFile) -> Iterator[list[Event]]:
    """Blocks of events; a block that is no JSON is skipped and noted in trace.problems."""
    bad = 0
    for block in trace.blocks():
        try:
            yield EVENTS.decode(block)
        except msgspec.DecodeError:
            try:
                yield EVENTS.decode(mend(block))
            except msgspec.DecodeError:
                bad += 1
    if bad:
        trace.problems.append(f"{bad} block(s) of events are not valid JSON: left out")


def whole(value: Value) -> int:
    """The value as an int, -1 where it is none."""
    return int(value) if isinstance(value, int | float) else -1


def label_of(args: Args) -> Label:
    return Label(str(args.collective), args.elements, args.dtype, args.src, args.dst, args.group)


class _Collector:
    """Columns filled event by event; times stay in us until the base time is known."""

    def __init__(self) -> None:
        self.gpu: list[tuple[float, float, int, bool]] = []
        self.p2p: list[P2PKernel] = []
        self.site = LaunchSite()
        self.annotations: list[tuple[str, float, float, int]] = []
        self.gloo: list[tuple[str, Event]] = []
        self.launches: list[tuple[float, float, int]] = []
        self.calls: list[tuple[Value, tuple[str, float, float, int]]] = []
        self.uploads: list[int] = []
        self.sends: list[tuple[str, float, float, int]] = []
        self.recvs: list[tuple[str, float, float, int]] = []
        self.op_starts: dict[Value, list[float]] = {}
        self.count = 0

    def take(self, events: list[Event]) -> None:
        """Sort events into columns; the branches that most events take do no call."""
        self.count += len(events)
        last_tid: Value = None
        starts: list[float] = []
        for event in events:
            if event.ph != "X":
                continue
            cat = event.cat
            if cat == "cpu_op":
                if event.tid != last_tid:
                    last_tid = event.tid
                    starts = self.op_starts.setdefault(last_tid, [])
                starts.append(event.ts)
                if event.name in OPERATORS:
                    self._operator(event)
            elif cat in CUDA_CALLS:
                if event.name in CALLS or event.dur >= BLOCKED_US:
                    self._cuda_call(event)
            elif cat in GPU_WORK:
                self._gpu_work(event)
            elif cat == "user_annotation":
                self._annotation(event)
            elif cat == "gpu_user_annotation":
                self.site.mark(event.tid, str(event.name), event.ts, event.dur)

    def _operator(self, event: Event) -> None:
        if event.name == "c10d::send":
            self.sends.append(("c10d::send", event.ts, event.dur, -1))
        elif event.name == "c10d::recv_":
            self.recvs.append(("c10d::recv_", event.ts, event.dur, -1))
        elif event.args and event.args.collective in SIDES:
            self.site.params[whole(event.args.external_id)] = label_of(event.args)

    def _gpu_work(self, event: Event) -> None:
        args = event.args or NO_ARGS
        correlation = args.correlation if type(args.correlation) is int else -1
        name = str(event.name)
        is_nccl = event.cat == "kernel" and name.startswith("nccl")
        if is_nccl and ("SendRecv" in name or args.collective in SIDES):
            self.p2p.append(
                P2PKernel(
                    event.ts,
                    event.dur,
                    event.pid,
                    event.tid,
                    correlation,
                    whole(args.external_id),
                    label_of(args),
                )
            )
            return
        if event.cat == "gpu_memcpy" and "Pageable -> Device" in name:
            self.uploads.append(correlation)
        self.gpu.append((event.ts, event.dur, correlation, event.cat != "kernel"))

    def _cuda_call(self, event: Event) -> None:
        name = str(event.name)
        correlation = whole((event.args or NO_ARGS).correlation)
        if name in LAUNCH_CALLS:
            self.site.calls[correlation] = event.ts
        elif name == "cudaGraphLaunch":
            self.launches.append((event.ts, event.dur, correlation))
        if event.dur >= BLOCKED_US or name == "cudaMemcpyAsync":
            self.calls.append((event.tid, (name, event.ts, event.dur, correlation)))

    def _annotation(self, event: Event) -> None:
        name = str(event.name)
        if name.startswith("nccl:"):
            self.site.host.append((event.ts, event.ts + event.dur, name))
        elif name in ("gloo:send", "gloo:recv"):
            self.gloo.append((name[5:], event))
        else:
            self.annotations.append((name, event.ts, event.dur, -1))


def read_rank(path: Path, who: Identity) -> RankTrace:
    """Read one file; what is wrong with it is in the result's `problems`, never raised."""
    trace = TraceFile(path)
    columns = _Collector()
    collects = gc.isenabled()
    gc.disable()  # millions of rows live to the end: looking for cycles in them only costs
    try:
        for events in events_of(trace):
            columns.take(events)
    finally:
        if collects:
            gc.enable()
    base_ns = trace.header.baseTimeNanoseconds

    def ns(ts: float) -> int:
        return base_ns + round(ts * 1000)

    def spans(rows: list[tuple[str, float, float, int]]) -> list[Span]:
        return sorted(
            (Span(name, ns(ts), ns(ts + dur), corr) for name, ts, dur, corr in rows),
            key=lambda span: (span.start_ns, -span.end_ns),
        )

    who, problems = who.checked(trace.header.distributedInfo)
    p2p, unlabelled = label_kernels(columns.p2p, columns.site, who, ns)
    marks = spans(columns.annotations)
    requests = merged(intervals((m.start_ns, m.end_ns) for m in marks if m.name in REQUEST_SPANS))
    for kind, event in columns.gloo:
        at = int(np.searchsorted(requests[:, 0], ns(event.ts), side="right")) - 1
        inside = at >= 0 and ns(event.ts) < requests[at, 1]
        p2p.append(_gloo(kind, event, who, ns, "requests" if inside else "tensors"))
    p2p.sort(key=lambda op: (op.start_ns, op.end_ns))
    busiest = Counter({tid: len(starts) for tid, starts in columns.op_starts.items()})
    main_tid = next((tid for tid, _ in busiest.most_common(1)), None)
    calls = [call for tid, call in columns.calls if main_tid in (None, tid)]
    return RankTrace(
        path=str(path),
        host=trace.header.host_name,
        pp=who.pp,
        tp=who.tp,
        rank=who.rank,
        base_ns=base_ns,
        world_size=who.world_size,
        events=columns.count,
        kernels=_kernels(columns, base_ns),
        p2p=p2p,
        unlabelled_p2p=unlabelled,
        spans=marks,
        launches=sorted((ns(ts), ns(ts + dur), corr) for ts, dur, corr in columns.launches),
        p2p_kernels=intervals(sorted((ns(k.ts), ns(k.ts + k.dur)) for k in columns.p2p)),
        calls=spans(calls),
        uploads=frozenset(columns.uploads),
        sends=spans(columns.sends),
        recvs=spans(columns.recvs),
        op_starts=np.sort(_ns(np.array(columns.op_starts.get(main_tid, [])), base_ns)),
        problems=[*trace.problems, *problems, *_shortcomings(columns, trace)],
    )


def _gloo(
    kind: str, event: Event, who: Identity, ns: Callable[[float], int], channel: str
) -> P2POp:
    """A gloo operation: its peer is the ring's, its size known where shapes were recorded.

    `channel`: requests travel in a process group of their own, which only the span around tells.
    """
    args = event.args or NO_ARGS
    dims, types = msgspec.json.decode(args.dims), msgspec.json.decode(args.types)
    shape = dims[0] if isinstance(dims, list) and dims else None
    flat = isinstance(shape, list) and all(isinstance(size, int) for size in shape)
    return P2POp(
        "send" if kind == "send" else "recv",
        who.next_rank if kind == "send" else who.previous_rank,
        math.prod(shape) if shape and flat else None,
        str(types[0]) if isinstance(types, list) and types else None,
        ns(event.ts),
        ns(event.ts + event.dur),
        "gloo",
        ns(event.ts),
        channel,
        (event.pid, event.tid),
    )


def _ns(
    ts: np.ndarray[tuple[int], np.dtype[np.float64]], base_ns: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.rint(ts * 1000).astype(np.int64) + base_ns


def _kernels(columns: _Collector, base_ns: int) -> Kernels:
    rows = np.array(columns.gpu, dtype=np.float64).reshape(-1, 4)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    times = np.stack([_ns(rows[:, 0], base_ns), _ns(rows[:, 0] + rows[:, 1], base_ns)], axis=1)
    return Kernels(times, rows[:, 2].astype(np.int64), rows[:, 3] != 0)


def _shortcomings(columns: _Collector, trace: TraceFile) -> list[str]:
    if not columns.count:
        return [] if trace.problems else ["traceEvents is empty"]
    if all(is_copy for _, _, _, is_copy in columns.gpu) and not columns.p2p:
        return [NO_KERNELS]
    return []
