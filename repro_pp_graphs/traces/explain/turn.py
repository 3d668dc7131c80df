"""Where each rank's host spends a turn of the scheduler's loop, from one batch's send to the next's.

The rows share the turn out completely: messages, waiting for results, operators and launches, and
what is left, in which the host is in no call: Python. A rank of which too few batches are seen, or
whose messages are not seen whole, has no turns but a reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.edges import Edge
from repro_pp_graphs.traces.explain.messages import INTEGERS, Message, What, messages
from repro_pp_graphs.traces.explain.operations import Kind
from repro_pp_graphs.traces.explain.waits import (
    blocking,
    cuda_waits,
    gloo_waits,
    partners,
    waits,
)
from repro_pp_graphs.traces.folder import Case
from repro_pp_graphs.traces.intervals import common, lengths_between, merged, outside, total
from repro_pp_graphs.traces.model import Intervals, P2POp, RankTrace, intervals
from repro_pp_graphs.traces.quantiles import quantile
from repro_pp_graphs.traces.steps import RUN_SPANS, GpuWork, named, window

# A message -> its row. The rows are shown in this order; `python` is what no call covers, `host`
# stands for it and `launch` where the trace lacks what would tell them apart.
MESSAGE_ROWS = {
    ("tokens", "send"): "token_send",
    ("tokens", "recv"): "token_recv",
    ("hidden", "send"): "hidden_send",
    ("hidden", "recv"): "hidden_recv",
    ("requests", "send"): "requests",
    ("requests", "recv"): "requests",
    ("unknown", "send"): "other_messages",
    ("unknown", "recv"): "other_messages",
}
REST = ("launch", "python", "host")
ROWS = (*dict.fromkeys(MESSAGE_ROWS.values()), "results", *REST)
# Of the batches or steps there, what must be seen before anything is concluded; and how many may be
# missing besides, at the edges of what was recorded.
ENOUGH = 0.9
EDGES = 2


class Row(msgspec.Struct):
    """A part of a rank's turn, us a turn: mean and p99.

    `waits`: of the mean, what the host waits for (`waits.CAUSES`); `peer_in`: while a peer is late,
    the row that the peer's host is in, us a turn, known on a common clock; `under_own_graph` and
    `gpu_idle`: of the mean, while a decode graph of the rank runs, and while no compute kernel of
    it runs (None without GPU work); `calls`: its calls that block, with what they take, us a turn.
    """

    mean: float
    p99: float
    waits: dict[str, float] = {}
    peer_in: dict[str, float] = {}
    under_own_graph: float | None = None
    gpu_idle: float | None = None
    calls: dict[str, float] = {}


class Turn(msgspec.Struct):
    """A rank's turns, us: how many were seen, their length, and what they are made of.

    `rows` add up to `mean`; `gpu_idle`: of the mean, while no compute kernel of the rank runs;
    `spans`: of the time in no call or in operators, sglang's own annotation around it.
    """

    turns: int
    mean: float
    median: float
    p99: float
    rows: dict[str, Row]
    gpu_idle: float | None = None
    spans: dict[str, float] = {}


@dataclass(slots=True)
class Host:
    """One rank's host as sets of time: its messages, the rows of its turns, its waits by cause."""

    rank: RankTrace
    work: GpuWork
    messages: list[Message]
    rows: dict[str, Intervals]
    waits: dict[str, Intervals]
    other: dict[int, P2POp]

    sorted_out: dict[tuple[str, str], list[Message]]

    def of(self, what: What, kind: Kind) -> list[Message]:
        """Its messages of a sort that have operations: an annotation alone is none."""
        return self.sorted_out.get((what, kind), [])


def host_of(rank: RankTrace, work: GpuWork, edges: list[Edge], pp_size: int) -> Host:
    """Everything about a rank's host that its turns and its token return are explained with."""
    found = messages(rank, pp_size)
    other = partners(rank, edges)
    uploading = [message for message in found if message.upload]
    rows = _rows(rank, found, cuda_waits(rank, uploading, launching=False))
    sorted_out: dict[tuple[str, str], list[Message]] = {}
    for message in found:
        if message.operations:
            sorted_out.setdefault((message.what, message.kind), []).append(message)
    return Host(rank, work, found, rows, waits(rank, work, uploading, other), other, sorted_out)


def _rows(rank: RankTrace, found: list[Message], in_cuda: Intervals) -> dict[str, Intervals]:
    """The rows as disjoint sets; `python` is what they leave of a turn and has none."""
    rows: dict[str, Intervals] = {}
    for name in dict.fromkeys(MESSAGE_ROWS.values()):
        rows[name] = merged(
            intervals(
                (each.start_ns, each.end_ns)
                for each in found
                if MESSAGE_ROWS[each.what, each.kind] == name
            )
        )
    covered = merged(np.concatenate(list(rows.values())))
    rows["results"] = outside(in_cuda, covered)
    covered = merged(np.concatenate([covered, in_cuda]))
    calls = intervals((call.start_ns, call.end_ns) for call in rank.calls)
    launches = intervals((start, end) for start, end, _ in rank.launches)
    in_calls = merged(np.concatenate([rank.operators, calls, launches]))
    rows["launch"] = outside(in_calls, covered)
    return rows


def turns(case: Case, hosts: list[Host]) -> tuple[dict[str, Turn], dict[str, str]]:
    """The turns of every rank inside the time when all were recorded; why a rank has none."""
    begin_ns, end_ns = window(case)
    by_rank = {host.rank.rank: host for host in hosts}
    found, reasons = {}, {}
    for host in hosts if case.pp_size > 1 else ():
        starts = anchors(case, host)
        starts = starts[(starts >= begin_ns) & (starts <= end_ns)]
        there = batches_there(host, begin_ns, end_ns)
        label = case.label(host.rank)
        if reason := _incomplete(host, len(starts), there):
            reasons[label] = reason
        else:
            found[label] = _turn(case, host, starts, by_rank)
    return found, reasons


def unseen(rank: RankTrace) -> str:
    """Why what a rank's host waits for cannot be told; empty where it can."""
    on_gpu = bool(len(rank.p2p_kernels) or rank.launches)
    if rank.launched_share is None:
        return "the trace has no kernels of the rank but NCCL's" if on_gpu else ""
    if rank.launched_share < ENOUGH:
        return f"{1 - rank.launched_share:.0%} of the CUDA calls that launch kernels are missing"
    return ""


def _incomplete(host: Host, seen: int, there: int) -> str:
    """Why a rank's turns cannot be shared out; empty where they can."""
    if reason := unseen(host.rank):
        return reason
    if seen < 2 or not enough(seen, there):
        return f"{seen} of its {there} batches are seen by what they send"
    for what in ("tokens", "hidden"):
        sends = host.of(what, "send")
        gaps = Counter(message.gap for message in sends if message.gap)
        if sends and not enough(len(sends) - gaps.total(), len(sends)):
            return gaps.most_common(1)[0][0]
    return ""


def enough(seen: int, there: int) -> bool:
    """Whether so many of the batches or steps there are seen that a conclusion can rest on them."""
    return seen > 0 and seen >= ENOUGH * there - EDGES


def batches_there(host: Host, begin_ns: int, end_ns: int) -> int:
    """Batches that a rank must have run in a time: the most that any kind of event shows.

    Its batches as annotated, its graph launches, and its messages: one of each sort a batch.
    """
    moments = [
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


def anchors(case: Case, host: Host) -> npt.NDArray[np.int64]:
    """When each turn that runs a batch begins, ns: with the send of what the batch gave."""
    last = host.rank.pp == case.pp_size - 1
    sends = host.of("tokens" if last else "hidden", "send")
    return np.array([each.start_ns for each in sends], dtype=np.int64)


def token_counts(host: Host) -> list[int]:
    """How many token ids each batch's message carries, by the first integers in it."""
    messages_of_tokens = host.of("tokens", "send") or host.of("tokens", "recv")
    counts = []
    for message in messages_of_tokens:
        ops = [op for part in message.operations for op in part.p2p if op.dtype in INTEGERS]
        tensors = [op for op in ops if op.backend == "nccl"]
        counts += [op.elements for op in tensors[:1] if op.elements]
    return counts


def _turn(case: Case, host: Host, starts: npt.NDArray[np.int64], by_rank: dict[int, Host]) -> Turn:
    lengths = np.diff(starts)
    whole = intervals([(int(starts[0]), int(starts[-1]))])
    rows = {name: common(times, whole) for name, times in host.rows.items()}
    if not _calls_complete(host):
        del rows["launch"]
    rest = "python" if "launch" in rows else "host"
    rows[rest] = outside(whole, merged(np.concatenate(list(rows.values()))))
    on_gpu = bool(len(host.work.compute))
    graph, compute = merged(host.work.extents), host.work.compute
    late = host.waits["peer_late"]
    in_gloo = gloo_waits(host.rank)
    facts: dict[str, Row] = {}
    for name in filter(rows.__contains__, ROWS):
        times = rows[name]
        each = lengths_between(times, starts) / 1000
        row = Row(_mean(each), round(quantile(each, 0.99), 3))
        for cause, its in host.waits.items():
            if spent := _mean(lengths_between(common(times, its), starts) / 1000):
                row.waits[cause] = spent
        row.peer_in = _peer_in(case, host, name, common(times, late), starts, by_rank)
        if on_gpu:
            row.under_own_graph = _mean(lengths_between(common(times, graph), starts) / 1000)
            row.gpu_idle = _mean(lengths_between(outside(times, compute), starts) / 1000)
        row.calls = _calls(host.rank, times, in_gloo, len(lengths))
        facts[name] = row
    return Turn(
        turns=len(lengths),
        mean=_mean(lengths / 1000),
        median=round(quantile(lengths / 1000, 0.5), 3),
        p99=round(quantile(lengths / 1000, 0.99), 3),
        rows=facts,
        gpu_idle=_mean(lengths_between(outside(whole, compute), starts) / 1000) if on_gpu else None,
        spans=_spans(host.rank, rows, starts),
    )


def _calls_complete(host: Host) -> bool:
    """Whether operators and graph launches are there to tell calls from Python."""
    graphs = len(host.work.extents)
    return bool(len(host.rank.operators)) and len(host.rank.launches) >= ENOUGH * graphs - EDGES


def _mean(values: npt.NDArray[np.float64]) -> float:
    return round(float(np.mean(values)), 3)


def _peer_in(
    case: Case,
    host: Host,
    name: str,
    late: Intervals,
    starts: npt.NDArray[np.int64],
    by_rank: dict[int, Host],
) -> dict[str, float]:
    """While a peer is late, the row its host is in, us a turn; {} where clocks may differ."""
    rank = host.rank
    step = case.tp_size if name in ("token_send", "hidden_send") else -case.tp_size
    world = case.pp_size * case.tp_size
    peer = by_rank.get((rank.rank + step) % world)
    if name not in ("token_send", "hidden_send", "token_recv", "hidden_recv") or peer is None:
        return {}
    if rank.host != peer.rank.host or not len(late):
        return {}
    found = {
        row: _mean(lengths_between(common(late, times), starts) / 1000)
        for row, times in peer.rows.items()
    }
    found["python"] = _mean(lengths_between(late, starts) / 1000) - sum(found.values())
    return {row: round(spent, 3) for row, spent in found.items() if spent > 0}


def _calls(rank: RankTrace, times: Intervals, in_gloo: Intervals, count: int) -> dict[str, float]:
    """The calls inside a row that hold the host, us a turn, the longest first."""
    if not len(times):
        return {}
    spent: Counter[str] = Counter()
    begins = times[:, 0]
    for call in rank.calls:
        at = int(begins.searchsorted(call.start_ns, side="right")) - 1
        if blocking(call) and at >= 0 and call.end_ns <= times[at, 1]:
            spent[call.name] += call.end_ns - call.start_ns
    spent["gloo"] = total(common(times, in_gloo))
    return {name: round(ns / count / 1000, 3) for name, ns in spent.most_common() if ns}


def _spans(
    rank: RankTrace, rows: dict[str, Intervals], starts: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Of the time in Python and in operators, the annotation of sglang's loop around it."""
    free = merged(np.concatenate([rows[name] for name in REST if name in rows]))
    found = {}
    for name in ("run_batch", "get_next_batch_to_run", "process_batch_result"):
        marks = merged(intervals((s.start_ns, s.end_ns) for s in rank.spans if s.name == name))
        if len(marks):
            found[name] = _mean(lengths_between(common(free, marks), starts) / 1000)
    return found
