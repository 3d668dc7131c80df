"""One rank's host as sets of time: its messages, the rows of a turn, its waits by cause."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import gcd

import numpy as np

from repro_pp_graphs.traces.analysis_record import Cause, RowName
from repro_pp_graphs.traces.explain.messages import INTEGERS, Message, What, messages
from repro_pp_graphs.traces.explain.operations import Kind, host_ends
from repro_pp_graphs.traces.explain.steps import GpuWork
from repro_pp_graphs.traces.explain.waits import cuda_waits, gloo_waits, partners, waits
from repro_pp_graphs.traces.explain.words import IN_MESSAGES
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.rank_trace import P2POp, RankTrace
from repro_pp_graphs.traces.time_sets import Intervals, intervals, merged, outside

# A message -> its row.
MESSAGE_ROWS: dict[tuple[What, Kind], RowName] = {
    ("tokens", "send"): "token_send",
    ("tokens", "recv"): "token_recv",
    ("hidden", "send"): "hidden_send",
    ("hidden", "recv"): "hidden_recv",
    ("requests", "send"): "requests",
    ("requests", "recv"): "requests",
    ("unknown", "send"): "other_messages",
    ("unknown", "recv"): "other_messages",
}


def row_of(message: Message) -> RowName:
    """The row of a turn that a message is in."""
    return "exchange" if message.exchange else MESSAGE_ROWS[message.what, message.kind]


@dataclass(slots=True)
class Host:
    """One rank's host as sets of time: its messages, the rows of its turns, its waits by cause."""

    rank: RankTrace
    work: GpuWork
    graph: Intervals
    messages: list[Message]
    rows: dict[RowName, Intervals]
    waits: dict[Cause, Intervals]
    in_gloo: Intervals
    other: dict[int, P2POp]
    sorted_out: dict[tuple[str, str], list[Message]]
    # whether other ranks are on its GPU, or may be (gpus.py); those with a trace; and when a kernel
    # of any of them computes, None: that is not known
    shares: bool = False
    beside: list[Host] = field(default_factory=list)
    compute_of_all: Intervals | None = None

    def with_batches(self, ops: list[P2POp]) -> list[P2POp]:
        """Operations with all others of the kernels that they are in, as one of a batch."""
        batches = {op.batch for op in ops if op.backend == "nccl"} - {0}
        alone = [op for op in ops if op.backend != "nccl" or not op.batch]
        others = (op for op in self.rank.p2p if op.backend == "nccl" and op.batch in batches)
        return [*alone, *others] if batches else ops

    def of(self, what: What, kind: Kind) -> list[Message]:
        """Its messages of a sort that have operations: an annotation alone is none."""
        return self.sorted_out.get((what, kind), [])


def host_of(rank: RankTrace, work: GpuWork, edges: list[Edge], pp_size: int) -> Host:
    """Everything about a rank's host that its turns and its token return are explained with."""
    ends = host_ends(rank)
    found = messages(rank, pp_size, ends)
    other = partners(rank, edges)
    uploading = [message for message in found if message.upload]
    rows = _rows(rank, found, cuda_waits(rank, uploading, launching=False))
    sorted_out: dict[tuple[str, str], list[Message]] = {}
    for message in found:
        if message.operations:
            sorted_out.setdefault((message.what, message.kind), []).append(message)
    in_gloo = gloo_waits(rank, ends)
    causes = waits(rank, work, cuda_waits(rank, uploading), in_gloo, ends=ends, other=other)
    return Host(rank, work, merged(work.extents), found, rows, causes, in_gloo, other, sorted_out)


def _rows(rank: RankTrace, found: list[Message], in_cuda: Intervals) -> dict[RowName, Intervals]:
    """The rows as disjoint sets; `python` is what they leave of a turn and has none."""
    rows: dict[RowName, Intervals] = {}
    spans = [(row_of(each), each.start_ns, each.end_ns) for each in found]
    spans += _sent(rank, found)
    for name in IN_MESSAGES:
        rows[name] = merged(intervals((start, end) for row, start, end in spans if row == name))
    covered = merged(np.concatenate(list(rows.values())))
    rows["results"] = outside(in_cuda, covered)
    covered = merged(np.concatenate([covered, in_cuda]))
    calls = intervals((call.start_ns, call.end_ns) for call in rank.calls)
    launches = intervals((start, end) for start, end, _ in rank.launches)
    in_calls = merged(np.concatenate([rank.operators, calls, launches]))
    rows["launch"] = outside(in_calls, covered)
    return rows


def _sent(rank: RankTrace, found: list[Message]) -> list[tuple[RowName, int, int]]:
    """The waits for earlier sends, each with the row of what was sent."""
    row = {
        id(op): row_of(message)
        for message in found
        for part in message.operations
        for op in part.p2p
    }
    return [
        (row.get(id(wait.sends[-1]), "other_messages"), wait.start_ns, wait.end_ns)
        for wait in rank.sent_waits
    ]


def anchors(host: Host, pp_size: int) -> list[Message]:
    """The sends with which the turns that run a batch begin: of what the batch gave."""
    return host.of("tokens" if host.rank.pp == pp_size - 1 else "hidden", "send")


def token_count(message: Message) -> int | None:
    """How many token ids a message carries, by the first integers in it."""
    for part in message.operations:
        for op in part.p2p:
            if op.backend == "nccl" and op.dtype in INTEGERS:
                return op.elements
    return None


def hidden_size(hosts: list[Host]) -> int | None:
    """Elements of hidden states a sequence, by what the first rank sends and the last rank's token
    ids in decode steps; None where they do not show it."""
    first = [host for host in hosts if host.rank.pp == 0]
    sent = [message for host in first for message in host.of("hidden", "send")]
    elements = gcd(
        *(
            op.elements or 0
            for message in sent
            if not message.prefill
            for part in message.operations
            for op in part.p2p
            if op.backend == "nccl" and "float" in (op.dtype or "").lower()
        )
    )
    tokens = gcd(*(count for host in hosts for count in token_counts(host)))
    return elements // tokens if elements and tokens and elements % tokens == 0 else None


def token_counts(host: Host) -> list[int]:
    """How many token ids each decode batch's message carries, on a last rank."""
    found = [message for message in host.of("tokens", "send") if not message.prefill]
    return [count for message in found if (count := token_count(message))]
