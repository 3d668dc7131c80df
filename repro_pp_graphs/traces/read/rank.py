"""One rank's trace file to a RankTrace."""

from __future__ import annotations

import gc
from bisect import bisect_right
from pathlib import Path

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import NO_KERNELS
from repro_pp_graphs.traces.rank_trace import Kernels, P2POp, RankTrace, Span
from repro_pp_graphs.traces.read.blocks import TraceFile, Value
from repro_pp_graphs.traces.read.columns import GPU_COLUMNS, Columns, GlooOp
from repro_pp_graphs.traces.read.decoding import ODD, Decoding, LeftOut, events_of
from repro_pp_graphs.traces.read.event import LARGEST, Event
from repro_pp_graphs.traces.read.identity import Identity
from repro_pp_graphs.traces.read.lost import lost_share
from repro_pp_graphs.traces.read.message_numbers import attach, divide, sent_waits
from repro_pp_graphs.traces.read.numbers import LATEST_NS, number
from repro_pp_graphs.traces.read.peers import label_kernels
from repro_pp_graphs.traces.read.profiler_stop import without_stop
from repro_pp_graphs.traces.read.sift import Sifted, other_unit, sift_gpu
from repro_pp_graphs.traces.time_sets import Intervals, intervals, merged

NO_GPU_WORK = "the profiler recorded no GPU activities"
# Of a rank's launches, the share whose GPU work may be missing before its use is not known.
MOST_LOST = 0.02
GPU_ONLY = (
    "no CPU activities: peers of sends, batches and what the host waits for are not known; "
    'profile with "activities": ["CPU", "GPU"]'
)
Row = tuple[str, float, float, int]
REQUEST_SPANS = frozenset({"send_reqs_to_next_stage", "recv_requests", "scheduler.recv_requests"})


def read_rank(path: Path, who: Identity, base_ns: int | None = None) -> RankTrace:
    """Read one file; what is wrong with it is in the result's `problems`, never raised.

    `base_ns` is what its ts count from where the file is not believed.
    """
    trace, decoding, columns = TraceFile(path), Decoding(Event), Columns()
    collects = gc.isenabled()
    gc.disable()  # millions of rows live to the end: looking for cycles in them only costs
    try:
        for events in events_of(trace, decoding):
            columns.take(events)
            del events  # before the next block is decoded: its memory is still in the cache
    finally:
        if collects:
            gc.enable()
    if problem := other_unit(columns):
        return RankTrace(str(path), who.pp, who.tp, who.rank, problems=[problem])
    base_ns = _base_ns(trace) if base_ns is None else base_ns
    site, sifted = columns.launch_site(), Sifted()
    gpu_unknown = _gpu_unknown(columns, bool(site.host))
    sift_gpu(columns, sifted)

    def ns(ts: float) -> int:
        return base_ns + round(ts * 1000)

    def in_turn(rows: list[Row]) -> list[Span]:
        return _spans(rows, base_ns, sifted, in_turn=True)

    who, problems = who.checked(trace.header.distributedInfo)
    p2p, unlabelled = label_kernels(columns.p2p, site, who, ns)
    main_tid = max(columns.operators, key=lambda tid: len(columns.operators[tid]), default=None)

    def of_main(rows: list[tuple[Value, Row]]) -> list[Row]:
        return [row for tid, row in rows if main_tid in (None, tid)]

    marks = _spans(of_main(columns.annotations), base_ns, sifted, in_turn=False)
    numbering, marks = divide(marks)
    marks = sifted.scheduler(marks, base_ns)
    requests = merged(intervals((m.start_ns, m.end_ns) for m in marks if m.name in REQUEST_SPANS))
    send_calls = in_turn(columns.sends)
    with_length = sifted.with_length(np.array([row[2] for row in columns.gloo], dtype=np.float64))
    gloo = [row for row, kept in zip(columns.gloo, with_length.tolist(), strict=True) if kept]
    p2p += _gloo(gloo, base_ns, who, requests, send_calls)
    p2p.sort(key=lambda op: (op.start_ns, op.end_ns))
    attach(p2p, numbering, who.rank)
    nccl_marks = [(mark.name, mark.ts, mark.end - mark.ts, -1) for mark in site.host]
    edges = np.array(columns.operators.get(main_tid, ()), dtype=np.float64)
    operators = _ns(edges, base_ns).reshape(-1, 2)
    gpu_only = not (columns.operators or columns.annotations or columns.gloo or site.host)
    return RankTrace(
        path=str(path),
        host=str(trace.header.host_name or ""),
        pp=who.pp,
        tp=who.tp,
        rank=who.rank,
        base_ns=base_ns,
        world_size=who.world_size,
        events=columns.count,
        kernels=_kernels(columns, base_ns),
        p2p=p2p,
        sent_waits=sent_waits(p2p, numbering),
        unlabelled_p2p=unlabelled,
        spans=without_stop(marks, operators),
        launches=sorted((ns(ts), ns(ts + max(0, dur)), corr) for ts, dur, corr in columns.launches),
        p2p_kernels=intervals(sorted((ns(k.ts), ns(k.ts + k.dur)) for k in columns.p2p)),
        calls=in_turn(of_main(columns.calls)),
        syncs=_spans(of_main(columns.syncs), base_ns, sifted, in_turn=False),
        uploads=columns.uploads,
        sends=send_calls,
        recvs=in_turn(columns.recvs),
        nccl_marks=_spans(nccl_marks, base_ns, sifted, in_turn=False),
        operators=merged(operators[operators[:, 1] >= operators[:, 0]]),
        launched_share=columns.launched_share(),
        gpu_unknown=gpu_unknown,
        problems=[
            *trace.problems,
            *_left_out(decoding.left_out, sifted),
            *(problems if columns.count else []),
            *_shortcomings(columns, trace, p2p, gpu_only=gpu_only),
            *_lost(gpu_unknown),
        ],
        times_us=decoding.times,
        left_out_ns=frozenset(sifted.times_ns),
        tp_size=who.tp_size,
        rank_known=who.rank_known,
        gpu=columns.gpu_number(),
        gpus_seen=len(_gpus(trace.header.deviceProperties)),
        gpu_model=_gpu_model(trace.header.deviceProperties),
        gpu_only=gpu_only,
    )


def _spans(rows: list[Row], base_ns: int, sifted: Sifted, *, in_turn: bool) -> list[Span]:
    """Rows of name, ts, dur (us) and correlation by start, the longer first; those of calls that
    follow each other (`in_turn`) without what reaches past the next ones."""
    ts = np.array([row[1] for row in rows], dtype=np.float64)
    dur = np.array([row[2] for row in rows], dtype=np.float64)
    start, end = _ns(ts, base_ns), _ns(ts + dur, base_ns)
    order = np.lexsort((-end, start))
    order = order[sifted.with_length(dur[order])]
    start, end = start[order], end[order]
    if in_turn:
        kept = sifted.in_turn(start, end, base_ns)
        order, start, end = order[kept], start[kept], end[kept]
    times = zip(order.tolist(), start.tolist(), end.tolist(), strict=True)
    return [Span(rows[at][0], begin, over, rows[at][3]) for at, begin, over in times]


def _called_ns(calls: list[Span], annotated_ns: int) -> int:
    """When the c10d::send was called whose gloo annotation opens at `annotated_ns`.

    The annotation opens at the call's end, after the message was handed over: a host that was
    preempted in between would have the recv end milliseconds before its send seems to start.
    """
    at = bisect_right(calls, annotated_ns, key=lambda call: call.start_ns) - 1
    inside = at >= 0 and annotated_ns <= calls[at].end_ns
    return calls[at].start_ns if inside else annotated_ns


def _gloo(
    rows: list[GlooOp], base_ns: int, who: Identity, requests: Intervals, send_calls: list[Span]
) -> list[P2POp]:
    """Gloo operations: their peer is the ring's.

    Requests travel in a process group of their own, which only the span around it shows.
    """
    ts = np.array([row[1] for row in rows], dtype=np.float64)
    dur = np.array([row[2] for row in rows], dtype=np.float64)
    starts, ends = _ns(ts, base_ns), _ns(ts + dur, base_ns)
    # In a set's sorted edges what lies inside an interval has an odd number before it.
    inside = requests.reshape(-1).searchsorted(starts, side="right") % 2 == 1
    found = []
    for (kind, _, _, lane, shape), annotated_ns, end_ns, is_request in zip(
        rows, starts.tolist(), ends.tolist(), inside.tolist(), strict=True
    ):
        is_send = kind == "send"
        start_ns = _called_ns(send_calls, annotated_ns) if is_send else annotated_ns
        found.append(
            P2POp(
                "send" if is_send else "recv",
                who.next_rank if is_send else who.previous_rank,
                *shape,
                start_ns,
                end_ns,
                "gloo",
                start_ns,
                "requests" if is_request else "tensors",
                lane,
            )
        )
    return found


def _ns(
    ts: np.ndarray[tuple[int], np.dtype[np.float64]], base_ns: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.rint(ts * 1000).astype(np.int64) + base_ns


def _kernels(columns: Columns, base_ns: int) -> Kernels:
    rows = np.array(columns.gpu).reshape(-1, GPU_COLUMNS)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    times = np.stack([_ns(rows[:, 0], base_ns), _ns(rows[:, 0] + rows[:, 1], base_ns)], axis=1)
    launches = np.where(np.abs(rows[:, 2]) < LARGEST, rows[:, 2], -1)
    _, streams = np.unique(rows[:, 3] // 2, return_inverse=True)
    return Kernels(
        times,
        launches.astype(np.int64),
        rows[:, 3] % 2 != 0,
        _posted(columns, rows[:, 2], base_ns),
        streams.reshape(-1).astype(np.int32),
    )


def _posted(
    columns: Columns, correlations: npt.NDArray[np.float64], base_ns: int
) -> npt.NDArray[np.int64]:
    """When the calls with these correlations began, ns; -1 where they are not in the trace."""
    calls = np.array(columns.posted).reshape(-1, 2)
    if not len(calls):
        return np.full(len(correlations), -1, dtype=np.int64)
    calls = calls[np.argsort(calls[:, 0], kind="stable")]
    at = np.minimum(calls[:, 0].searchsorted(correlations), len(calls) - 1)
    known = (calls[at, 0] == correlations) & (correlations >= 0)
    found: npt.NDArray[np.int64] = np.where(known, _ns(calls[at, 1], base_ns), -1)
    return found


def _gpus(properties: object) -> list[object]:
    """The GPUs in a file's deviceProperties; none where it has no such list."""
    return properties if isinstance(properties, list) else []


def _gpu_model(properties: object) -> str:
    """The name of the first GPU in a file's deviceProperties; empty where there is none."""
    first = next(iter(_gpus(properties)), None)
    name = first.get("name") if isinstance(first, dict) else None
    return name if isinstance(name, str) else ""


def _base_ns(trace: TraceFile) -> int:
    """The time that ts counts from; 0 and a problem where the file says what is none."""
    base = number(trace.header.baseTimeNanoseconds)
    if base is not None and 0 <= base < LATEST_NS - LATEST_NS // 8:
        return base
    if trace.header.baseTimeNanoseconds is not None:
        trace.problems.append(
            "baseTimeNanoseconds is no time: its times cannot be compared with other ranks'"
        )
    return 0


def _left_out(left_out: LeftOut, sifted: Sifted) -> list[str]:
    """What was left out of a file, a line each for damaged text, odd values, impossible times."""
    found = []
    reasons = left_out.reasons + sifted.reasons
    odd = reasons.pop(ODD, 0)
    if left_out.damaged:
        found.append(
            f"{left_out.damaged} event(s) whose text is no JSON left out; the first: "
            f"{left_out.first_damage}"
        )
    if odd:
        found.append(
            f"{odd} event(s) with a name, category or id that is missing or unusable: left out"
        )
    if reasons:
        kinds = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        found.append(f"{reasons.total()} event(s) at impossible times left out: {kinds}")
    return [*found, *sifted.problems]


def _gpu_unknown(columns: Columns, with_nccl: bool) -> str:
    """Why it is not known when a rank's GPU works: its work was not recorded, or parts were lost.
    `with_nccl`: NCCL's annotations show that it has a GPU."""
    if _has_no_kernels(columns):
        return NO_GPU_WORK if with_nccl or columns.launches else ""
    lost = lost_share(columns)
    return f"the GPU work of {lost:.0%} of its launches is missing" if lost > MOST_LOST else ""


def _has_no_kernels(columns: Columns) -> bool:
    return all(place % 2 for place in columns.gpu[3::GPU_COLUMNS]) and not columns.p2p


def _lost(gpu_unknown: str) -> list[str]:
    """The warning for GPU work that the profiler lost."""
    if gpu_unknown in ("", NO_GPU_WORK):
        return []
    return [f"{gpu_unknown}, as where a profiler runs out of buffers: profile fewer steps"]


def _shortcomings(
    columns: Columns, trace: TraceFile, p2p: list[P2POp], *, gpu_only: bool
) -> list[str]:
    if not columns.count:
        return [] if trace.problems else ["traceEvents is empty"]
    if _has_no_kernels(columns):
        return [NO_KERNELS]
    if gpu_only:
        return [GPU_ONLY]
    unposted = sum(op.posted_ns is None for op in p2p)
    return [
        f"{unposted} of {len(p2p)} sends and recvs have no launch call, c10d operator or "
        "annotation: when the host posted them is not known"
    ] * bool(unposted)
