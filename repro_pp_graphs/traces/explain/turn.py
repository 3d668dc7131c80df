"""Where each rank's host spends a turn of the scheduler's loop: from a batch's send to the next's.

The rows share the turn out completely: messages, waiting for results, operators and launches, and
what is left, in which the host is in no call: Python. A rank of which too few batches are seen, or
whose messages are not seen whole, has no turns but a reason.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from repro_pp_graphs.traces.analysis_record import Row, RowName, Turn
from repro_pp_graphs.traces.explain.coverage import (
    EDGES,
    ENOUGH,
    LEAST,
    almost_all,
    batches_there,
    enough,
    recorded_by_all,
    unseen,
)
from repro_pp_graphs.traces.explain.host import Host, anchors
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.waits import blocking
from repro_pp_graphs.traces.explain.words import REST, ROWS, count
from repro_pp_graphs.traces.quantiles import Floats, quantile
from repro_pp_graphs.traces.rank_trace import Case, RankTrace
from repro_pp_graphs.traces.time_sets import (
    Intervals,
    common,
    intervals,
    lengths_between,
    merged,
    outside,
)


class _Turns:
    """A rank's turns: their begins, and which are of decode batches whose sends are seen whole."""

    def __init__(self, sends: list[Message]) -> None:
        self.starts = np.array([each.start_ns for each in sends], dtype=np.int64)
        usable = [not (each.gap or each.prefill) for each in sends]
        # the turn that begins with one batch's send runs the next batch
        self.whole = np.array([a and b for a, b in pairwise(usable)], dtype=bool)
        self.count = int(self.whole.sum())

    def us(self, times: Intervals) -> Floats:
        """How much of a set lies in each turn, us."""
        found: Floats = lengths_between(times, self.starts)[self.whole] / 1000
        return found

    def mean(self, times: Intervals) -> float:
        """The same, the mean of the turns."""
        return _mean(self.us(times))


def _mean(us: Floats) -> float:
    return round(float(us.sum() / len(us)), 3)  # what np.mean does in three times as long


def turns(case: Case, hosts: list[Host]) -> tuple[dict[str, Turn], dict[str, str]]:
    """The turns of every rank inside the time when all were recorded; why a rank has none."""
    begin_ns, end_ns = recorded_by_all(case, hosts)
    by_rank = {host.rank.rank: host for host in hosts}
    found, reasons = {}, {}
    for host in hosts if case.pp_size > 1 else ():
        sends = [
            each for each in anchors(host, case.pp_size) if begin_ns <= each.start_ns <= end_ns
        ]
        label = case.label(host.rank)
        if reason := _incomplete(host, sends, batches_there(host, begin_ns, end_ns)):
            reasons[label] = reason
        else:
            found[label] = _turn(case, host, _Turns(sends), by_rank)
    return found, reasons


def _incomplete(host: Host, sends: list[Message], there: int) -> str:
    """Why a rank's turns cannot be shared out; empty where they can."""
    if reason := unseen(host.rank):
        return reason
    parts = [part for message in host.messages for part in message.operations]
    bare = sum(not (part.gloo or part.nccl) for part in parts)
    if bare > (1 - ENOUGH) * len(parts):
        return f"{bare} of its {len(parts)} sends and receives lack NCCL's or gloo's annotation"
    if there < LEAST:
        return f"{count(there, 'batch')} recorded: too few"
    if not almost_all(len(sends), there):
        of = count(there, "batch")
        return f"only {len(sends)} of its {of} can be recognised by their messages"
    gaps = Counter(message.gap for message in sends if message.gap)
    if not enough(len(sends) - gaps.total(), len(sends)):
        return gaps.most_common(1)[0][0]
    return "" if _Turns(sends).count else "no two decode batches follow one another"


def _turn(case: Case, host: Host, its: _Turns, by_rank: dict[int, Host]) -> Turn:
    whole = intervals([(int(its.starts[0]), int(its.starts[-1]))])
    rows = {name: common(times, whole) for name, times in host.rows.items()}
    if not _calls_complete(host):
        del rows["launch"]
    rest: RowName = "python" if "launch" in rows else "host"
    rows[rest] = outside(whole, merged(np.concatenate(list(rows.values()))))
    held = _held(host)
    facts = {
        name: _row(host, its, rows[name], _peer(case, host, name, by_rank), held)
        for name in ROWS
        if name in rows
    }
    lengths = its.us(whole)
    on_gpu = len(host.work.compute)
    return Turn(
        turns=its.count,
        mean=its.mean(whole),
        median=round(quantile(lengths, 0.5), 3),
        p99=round(quantile(lengths, 0.99), 3),
        rows=facts,
        gpu_idle=its.mean(outside(whole, host.work.compute)) if on_gpu else None,
        spans=_spans(host.rank, rows, its),
        gpu_idle_of_all=_idle_of_all(host, its, whole),
    )


def _row(
    host: Host, its: _Turns, times: Intervals, peer: Host | None, held: dict[str, Intervals]
) -> Row:
    """One row of a turn, with the rank at the other end of its messages where that is known."""
    us = its.us(times)
    spent = {cause: its.mean(common(times, waits)) for cause, waits in host.waits.items()}
    on_gpu = len(host.work.compute)
    return Row(
        mean=_mean(us),
        p99=round(quantile(us, 0.99), 3),
        waits={cause: us for cause, us in spent.items() if us},
        peer_in=_peer_in(peer, common(times, host.waits["peer_late"]), its),
        under_own_graph=its.mean(common(times, host.graph)) if on_gpu else None,
        gpu_idle=its.mean(outside(times, host.work.compute)) if on_gpu else None,
        calls=_calls(held, times, its),
        gpu_idle_of_all=_idle_of_all(host, its, times),
    )


def _idle_of_all(host: Host, its: _Turns, times: Intervals) -> float | None:
    """Of a time, while no rank on the host's GPU computes; None where it shares none, as known."""
    together = host.compute_of_all
    return None if together is None else its.mean(outside(times, together))


def _calls_complete(host: Host) -> bool:
    """Whether operators and graph launches are in the trace, which separate calls from Python."""
    graphs = len(host.work.extents)
    return bool(len(host.rank.operators)) and len(host.rank.launches) >= ENOUGH * graphs - EDGES


def _peer(case: Case, host: Host, name: RowName, by_rank: dict[int, Host]) -> Host | None:
    """The rank at the other end of a row's messages, where it is on the same host's clock."""
    if name not in ("token_send", "hidden_send", "token_recv", "hidden_recv"):
        return None
    step = case.tp_size if name.endswith("_send") else -case.tp_size
    peer = by_rank.get((host.rank.rank + step) % (case.pp_size * case.tp_size))
    return peer if peer and peer.rank.host == host.rank.host else None


def _peer_in(peer: Host | None, late: Intervals, its: _Turns) -> dict[RowName, float]:
    """While a peer is late, the row its host is in, us a turn; {} where that is not known."""
    if peer is None or not len(late):
        return {}
    found = {row: its.mean(common(late, times)) for row, times in peer.rows.items()}
    found["python"] = its.mean(late) - sum(found.values())
    return {row: round(us, 3) for row, us in found.items() if us > 0}


def _held(host: Host) -> dict[str, Intervals]:
    """When calls hold the host, by their names."""
    by_name: dict[str, list[tuple[int, int]]] = {}
    for call in host.rank.calls:
        if blocking(call):
            by_name.setdefault(call.name, []).append((call.start_ns, call.end_ns))
    sets = {name: merged(intervals(spans)) for name, spans in by_name.items()}
    return {**sets, "gloo": host.in_gloo}


def _calls(held: dict[str, Intervals], times: Intervals, its: _Turns) -> dict[str, float]:
    """The calls inside a row that hold the host, us a turn, the longest first."""
    if not len(times):
        return {}
    spent = {name: its.mean(common(each, times)) for name, each in held.items()}
    return dict(sorted(((n, us) for n, us in spent.items() if us), key=lambda item: -item[1]))


def _spans(rank: RankTrace, rows: dict[RowName, Intervals], its: _Turns) -> dict[str, float]:
    """Of the time in Python and in operators, the annotation of sglang's loop around it."""
    free = merged(np.concatenate([rows[name] for name in REST if name in rows]))
    found = {}
    for name in ("run_batch", "get_next_batch_to_run", "process_batch_result"):
        marks = merged(intervals((s.start_ns, s.end_ns) for s in rank.spans if s.name == name))
        if len(marks):
            found[name] = its.mean(common(free, marks))
    return found
