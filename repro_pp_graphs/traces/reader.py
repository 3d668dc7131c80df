"""One rank's trace file to a RankTrace."""

from __future__ import annotations

import gc
from bisect import bisect_right
from pathlib import Path

import numpy as np

from repro_pp_graphs.traces.columns import Columns, GlooOp, events_of
from repro_pp_graphs.traces.events import TraceFile, Value
from repro_pp_graphs.traces.intervals import merged
from repro_pp_graphs.traces.labels import label_kernels
from repro_pp_graphs.traces.model import Intervals, Kernels, P2POp, RankTrace, Span, intervals
from repro_pp_graphs.traces.naming import Identity

NO_KERNELS = "no GPU kernels: a CPU run, or the profiler recorded none"
REQUEST_SPANS = frozenset({"send_reqs_to_next_stage", "recv_requests", "scheduler.recv_requests"})


def read_rank(path: Path, who: Identity) -> RankTrace:
    """Read one file; what is wrong with it is in the result's `problems`, never raised."""
    trace = TraceFile(path)
    columns = Columns()
    collects = gc.isenabled()
    gc.disable()  # millions of rows live to the end: looking for cycles in them only costs
    try:
        for events in events_of(trace):
            columns.take(events)
            del events  # before the next block is decoded: its memory is still in the cache
    finally:
        if collects:
            gc.enable()
    base_ns = trace.header.baseTimeNanoseconds

    def ns(ts: float) -> int:
        return base_ns + round(ts * 1000)

    def spans(rows: list[tuple[str, float, float, int]]) -> list[Span]:
        return _spans(rows, base_ns)

    who, problems = who.checked(trace.header.distributedInfo)
    site = columns.launch_site()
    p2p, unlabelled = label_kernels(columns.p2p, site, who, ns)
    main_tid = max(columns.operators, key=lambda tid: len(columns.operators[tid]), default=None)

    def of_main(rows: list[tuple[Value, tuple[str, float, float, int]]]) -> list[Span]:
        return spans([row for tid, row in rows if main_tid in (None, tid)])

    marks = of_main(columns.annotations)
    requests = merged(intervals((m.start_ns, m.end_ns) for m in marks if m.name in REQUEST_SPANS))
    send_calls = spans(columns.sends)
    p2p += _gloo(columns.gloo, base_ns, who, requests, send_calls)
    p2p.sort(key=lambda op: (op.start_ns, op.end_ns))
    nccl_marks = [(mark.name, mark.ts, mark.end - mark.ts, -1) for mark in site.host]
    operators = _ns(np.array(columns.operators.get(main_tid, ()), dtype=np.float64), base_ns)
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
        calls=of_main(columns.calls),
        uploads=columns.uploads,
        sends=send_calls,
        recvs=spans(columns.recvs),
        nccl_marks=spans(nccl_marks),
        operators=merged(operators.reshape(-1, 2)),
        launched_share=columns.launched_share(),
        problems=[*trace.problems, *problems, *_shortcomings(columns, trace, p2p)],
        sound=trace.sound,
    )


def _spans(rows: list[tuple[str, float, float, int]], base_ns: int) -> list[Span]:
    """Rows of name, ts, dur (us) and correlation by start, the longer first."""
    ts = np.array([row[1] for row in rows], dtype=np.float64)
    dur = np.array([row[2] for row in rows], dtype=np.float64)
    start, end = _ns(ts, base_ns), _ns(ts + dur, base_ns)
    order = np.lexsort((-end, start))
    times = zip(order.tolist(), start[order].tolist(), end[order].tolist(), strict=True)
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

    Requests travel in a process group of their own, which only the span around tells.
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
    rows = np.array(columns.gpu).reshape(-1, 4)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    times = np.stack([_ns(rows[:, 0], base_ns), _ns(rows[:, 0] + rows[:, 1], base_ns)], axis=1)
    return Kernels(times, rows[:, 2].astype(np.int64), rows[:, 3] != 0)


def _shortcomings(columns: Columns, trace: TraceFile, p2p: list[P2POp]) -> list[str]:
    if not columns.count:
        return [] if trace.problems else ["traceEvents is empty"]
    if all(columns.gpu[3::4]) and not columns.p2p:
        return [NO_KERNELS]
    unposted = sum(op.posted_ns is None for op in p2p)
    if not unposted:
        return []
    return [
        f"{unposted} of {len(p2p)} sends and recvs: no launch call, c10d operator or annotation "
        "tells when the host posted them"
    ]
