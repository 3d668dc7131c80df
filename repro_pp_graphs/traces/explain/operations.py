"""The sends and receives of a rank's host, each put together from all that the trace shows of it.

One call of torch.distributed leaves up to four events: the c10d operator, NCCL's or gloo's
annotation inside it, and the call that launches NCCL's kernel. Any of them is enough.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Literal

import msgspec
import numpy as np

from repro_pp_graphs.traces.rank_trace import P2POp, RankTrace, Span

Kind = Literal["send", "recv"]


class Operation(msgspec.Struct, gc=False):
    """One send or receive while the host is in it; ns.

    `gloo` and `nccl`: which backends showed; `asynchronous`: a gloo operation that was still under
    way when the host went on; `p2p`: its P2P operations (none where no kernel names its peer).
    """

    kind: Kind
    start_ns: int
    end_ns: int
    gloo: bool = False
    nccl: bool = False
    asynchronous: bool = False
    p2p: list[P2POp] = []


def operations(rank: RankTrace, ends: dict[int, int]) -> list[Operation]:
    """The host's sends and receives, by start; `ends` as `host_ends` gives them."""
    found: list[Operation] = []
    for seen in sorted(_seen(rank, ends), key=lambda op: (op.start_ns, -op.end_ns)):
        last = found[-1] if found else None
        if last and last.kind == seen.kind and seen.start_ns <= last.end_ns:
            found[-1] = _joined(last, seen)
        else:
            found.append(seen)
    return found


def _joined(one: Operation, other: Operation) -> Operation:
    return Operation(
        one.kind,
        one.start_ns,
        max(one.end_ns, other.end_ns),
        one.gloo or other.gloo,
        one.nccl or other.nccl,
        one.asynchronous or other.asynchronous,
        [*one.p2p, *other.p2p],
    )


def _seen(rank: RankTrace, ends: dict[int, int]) -> Iterator[Operation]:
    """Every event that shows a send or a receive, as an operation of its own."""
    for span in rank.sends:
        yield Operation("send", span.start_ns, span.end_ns)
    for span in rank.recvs:
        yield Operation("recv", span.start_ns, span.end_ns)
    for span in rank.nccl_marks:
        if span.name.startswith("nccl:send "):
            yield Operation("send", span.start_ns, span.end_ns, nccl=True)
        elif span.name.startswith("nccl:recv "):
            yield Operation("recv", span.start_ns, span.end_ns, nccl=True)
    for op in rank.p2p:
        if op.backend == "nccl":
            at_ns = op.posted_ns if op.called_ns is None else op.called_ns
            if at_ns is not None:
                yield Operation(op.kind, at_ns, at_ns, nccl=True, p2p=[op])
        else:
            end_ns = ends.get(id(op))
            yield Operation(
                op.kind,
                op.start_ns,
                end_ns or op.start_ns,
                gloo=True,
                asynchronous=end_ns is None,
                p2p=[op],
            )


def together(ops: list[P2POp]) -> list[list[P2POp]]:
    """Operations by what runs them: each alone, but for those of a batch, which are one kernel."""
    found: list[list[P2POp]] = []
    batches: dict[int, list[P2POp]] = {}
    for op in ops:
        in_kernel = op.batch and op.backend == "nccl"
        if in_kernel and op.batch in batches:
            batches[op.batch].append(op)
            continue
        found.append([op])
        if in_kernel:
            batches[op.batch] = found[-1]
    return found


def operator_around(rank: RankTrace, moment_ns: int) -> tuple[int, int]:
    """Begin and end of the outermost operator that the main thread was in, ns; twice the moment
    where it was in none."""
    at = int(rank.operators[:, 0].searchsorted(moment_ns, side="right")) - 1
    if at < 0 or rank.operators[at, 1] < moment_ns:
        return moment_ns, moment_ns
    return int(rank.operators[at, 0]), int(rank.operators[at, 1])


def host_ends(rank: RankTrace) -> dict[int, int]:
    """When the host left each gloo operation that it stayed in, ns, by the operation's id().

    An asynchronous operation's annotation ends when its work is waited for. That the host goes on
    meanwhile, to an operator, a message or a CUDA call, shows that it did not stay.
    """
    gloo = [op for op in rank.p2p if op.backend == "gloo"]
    calls = [call.start_ns for call in rank.calls]
    marks = [mark.start_ns for mark in rank.nccl_marks]
    begun = np.array([*(op.start_ns for op in gloo), *calls, *marks], dtype=np.int64)
    order = np.sort(np.concatenate([rank.operators[:, 0], begun]))
    after = order.searchsorted([op.start_ns for op in gloo], side="right")
    following = np.append(order, np.iinfo(np.int64).max)[after].tolist()
    return {id(op): op.end_ns for op, ns in zip(gloo, following, strict=True) if op.end_ns <= ns}


def calls_between(rank: RankTrace, start_ns: int, end_ns: int) -> list[Span]:
    """The main thread's CUDA calls that begin in a time: those of 50 us or more, and copies."""
    low = bisect_left(rank.calls, start_ns, key=lambda call: call.start_ns)
    high = bisect_left(rank.calls, end_ns, key=lambda call: call.start_ns)
    return rank.calls[low:high]


def batch_end_ns(rank: RankTrace, op: P2POp) -> int:
    """When the host left the annotation in which it launched an operation's batch, ns; 0 where
    there is none."""
    marks = rank.nccl_marks
    if op.posted_ns is None:
        return 0
    at = bisect_right(marks, op.posted_ns, key=lambda mark: mark.start_ns) - 1
    return marks[at].end_ns if at >= 0 else 0
