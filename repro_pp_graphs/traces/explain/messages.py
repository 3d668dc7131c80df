"""A rank's messages: what the host sends and receives, in the units of sglang's PP loop.

From sglang 0.5.7 on annotations name most of them. The others, and all of earlier releases, are
recognised by what they hold: token ids are integers, hidden states are not, and requests have no
tensors. Before 0.5.7, and with blocking sends, requests may go over NCCL.
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

import msgspec

from repro_pp_graphs.traces.explain.operations import (
    Kind,
    Operation,
    batch_end_ns,
    calls_between,
    operations,
    operator_around,
)
from repro_pp_graphs.traces.rank_trace import P2POp, RankTrace, Span

What = Literal["tokens", "hidden", "requests", "unknown"]
BYTES = "Byte"
PICKLED = frozenset({BYTES, "unsigned char"})
NO_GLOO = "the trace has no annotations of gloo's operations"
INTEGERS = frozenset({"Long", "Int", "Short", "long int", "int"})

# sglang's annotation around a message -> what the message is
TOKEN_SEND = "send_res_dict_to_next_stage"
SPANS: dict[str, tuple[What, Kind]] = {
    TOKEN_SEND: ("tokens", "send"),
    "recv_res_dict_from_prev_stage": ("tokens", "recv"),
    "send_recv_res_dict": ("tokens", "recv"),
    "send_proxy_dict_to_next_stage": ("hidden", "send"),
    "recv_requests": ("requests", "recv"),
    "scheduler.recv_requests": ("requests", "recv"),
    "send_reqs_to_next_stage": ("requests", "send"),
}


LACKING = "an operation in it lacks NCCL's or gloo's annotation"


class Message(msgspec.Struct, gc=False):
    """One message while the host is in it; ns.

    `gap`: why its begin is not known, empty where it is; `upload`: the copy from pageable memory
    that begins it, where one does; `prefill`: what it sends is of a prefill batch (see prefill.py);
    `exchange`: it goes in one batch_isend_irecv with other messages: begin and end are the batch's.
    """

    what: What
    kind: Kind
    start_ns: int
    end_ns: int
    operations: list[Operation]
    gap: str = ""
    upload: Span | None = None
    prefill: bool = False
    exchange: bool = False

    @property
    def form(self) -> tuple[int, tuple[str, ...]]:
        """How many gloo operations it has, and the element types of its NCCL operations."""
        gloo = sum(operation.gloo for operation in self.operations)
        types = [
            ",".join(sorted({op.dtype or "?" for op in operation.p2p if op.backend == "nccl"}))
            for operation in self.operations
            if operation.nccl
        ]
        return gloo, tuple(types)


def annotated(rank: RankTrace) -> bool:
    """Whether the rank's file has sglang's own annotations of messages."""
    return any(span.name in SPANS for span in rank.spans)


def messages(rank: RankTrace, pp_size: int, ends: dict[int, int]) -> list[Message]:
    """The rank's messages by start; `ends` as `operations.host_ends` gives them."""
    parts = operations(rank, ends)
    by = _by_annotations if annotated(rank) else _by_content
    return [part for message in by(rank, pp_size, parts) for part in _divided(message, rank)]


def _batch(parts: list[Operation]) -> int:
    """The batch that operations are of; 0 where they are of none."""
    return max((op.batch for part in parts for op in part.p2p), default=0)


def _divided(message: Message, rank: RankTrace) -> list[Message]:
    """The messages of a batch that has several, each with its own operations; what goes over gloo
    stays with the first message of its direction."""
    if not _batch(message.operations):
        return [message]
    ops = [op for part in message.operations for op in part.p2p if op.batch]
    sorts = list(dict.fromkeys((op.kind, op.dtype in INTEGERS) for op in ops))
    if len(sorts) < 2:
        return [message]
    end_ns = max(message.end_ns, *(batch_end_ns(rank, op) for op in ops))
    bare = any(not (part.gloo or part.nccl) for part in message.operations)
    gap = message.gap or (LACKING if bare else "")
    found: dict[tuple[Kind, bool], Message] = {}
    for kind, tokens in sorts:
        what: What = "tokens" if tokens else "hidden"
        found[kind, tokens] = Message(
            what, kind, message.start_ns, end_ns, [], gap=gap, exchange=True
        )
    for part in message.operations:
        in_batch = [op for op in part.p2p if op.batch]
        for sort in dict.fromkeys((op.kind, op.dtype in INTEGERS) for op in in_batch):
            its = [op for op in in_batch if (op.kind, op.dtype in INTEGERS) == sort]
            found[sort].operations.append(msgspec.structs.replace(part, p2p=its))
        if not in_batch:
            sort = next((sort for sort in sorts if sort[0] == part.kind), sorts[0])
            found[sort].operations.append(part)
    return list(found.values())


def _by_annotations(rank: RankTrace, pp_size: int, parts: list[Operation]) -> list[Message]:
    """Messages as annotated; operations outside of them carry hidden states, if not requests or
    token ids."""
    spans: list[Message] = []
    for span in rank.spans:
        if span.name in SPANS and (not spans or span.start_ns >= spans[-1].end_ns):
            spans.append(Message(*SPANS[span.name], span.start_ns, span.end_ns, []))
    at = 0
    others: list[Message] = []
    for operation in parts:
        while at < len(spans) and spans[at].end_ns <= operation.start_ns:
            at += 1
        inside = at < len(spans) and spans[at].start_ns <= operation.start_ns
        if inside:
            spans[at].operations.append(operation)
        elif others and _continues(others[-1], operation, spans[at - 1] if at else None):
            _append(others[-1], operation)
        else:
            others.append(_message("hidden", [operation]))
    _recognise(others, spans, rank, pp_size)
    marked = any(part.gloo for part in parts)
    for message in spans:
        message.upload = next(iter(_uploads(message, rank, message.start_ns, message.end_ns)), None)
        metadata = _metadata(message)
        if not marked and message.kind == "send" and metadata and metadata.dtype == BYTES:
            message.gap = NO_GLOO
    return sorted([*others, *spans], key=lambda message: message.start_ns)


def _recognise(
    others: list[Message], annotated: list[Message], rank: RankTrace, pp_size: int
) -> None:
    """Say what messages outside of annotations are, where they do not carry hidden states."""
    tensors = "nccl" if len(rank.kernels.times) or len(rank.p2p_kernels) else "gloo"
    known = [message.operations for message in annotated if message.what != "requests"]
    sized = any(part.gloo for operations in known for part in operations)
    for message in others:
        carries = any(getattr(operation, tensors) for operation in message.operations)
        if not carries or _without_tensors(message.operations, sized):
            message.what = "requests"
        elif _what(message.operations, rank, pp_size) == "tokens":
            message.what = "tokens"
            if message.kind == "send" or _batch(message.operations):
                message.gap = f"sglang's annotation {TOKEN_SEND} is missing"


def _continues(last: Message, operation: Operation, before: Message | None) -> bool:
    """Whether an operation goes on with the last unannotated message: nothing lies between."""
    alone = before is None or before.start_ns < last.start_ns
    return alone and _belongs(last.operations, operation)


def _message(what: What, parts: list[Operation]) -> Message:
    return Message(what, parts[0].kind, parts[0].start_ns, parts[-1].end_ns, parts)


def _append(message: Message, operation: Operation) -> None:
    message.operations.append(operation)
    message.end_ns = operation.end_ns


def _by_content(rank: RankTrace, pp_size: int, parts: list[Operation]) -> list[Message]:
    groups: list[list[Operation]] = []
    for operation in parts:
        if groups and _belongs(groups[-1], operation):
            groups[-1].append(operation)
        else:
            groups.append([operation])
    marked = any(op.gloo for group in groups for op in group)
    found: list[Message] = []
    for group in groups:
        message = _message(_what(group, rank, pp_size), group)
        if message.kind == "send" and message.what != "requests":
            _begin(message, rank, found[-1].end_ns if found else 0)
            if not marked:
                message.gap = NO_GLOO
        found.append(message)
    _same_form(found)
    return found


def _belongs(group: list[Operation], operation: Operation) -> bool:
    """Whether an operation goes on with a message: gloo's size and metadata, then NCCL's tensors,
    all of one process group."""
    last = group[-1]
    if _batch(group) or _batch([operation]):
        return _batch(group) == _batch([operation])
    if last.kind != operation.kind or (operation.gloo and not last.gloo):
        return False
    ours, theirs = _group(group), _group([operation])
    return not ours or not theirs or ours == theirs


def _group(parts: list[Operation]) -> set[str]:
    """The NCCL process groups of some operations."""
    return {op.channel for part in parts for op in part.p2p if op.backend == "nccl" and op.channel}


def _without_tensors(group: list[Operation], sized: bool) -> bool:
    """Whether all that a message holds is a size and, where that is not 0, pickled bytes.

    Where it is not known what it holds: whether no gloo is in it, of a rank whose messages of
    tensors begin with their size over gloo (`sized`).
    """
    ops = [op for part in group for op in part.p2p]
    if len(ops) < len(group) or any(op.dtype is None for op in ops):
        return sized and not any(part.gloo for part in group)
    size, *rest = ops
    counted = size.dtype in INTEGERS and size.elements == 1
    return counted and len(rest) <= 1 and all(op.dtype in PICKLED for op in rest)


def _what(group: list[Operation], rank: RankTrace, pp_size: int) -> What:
    if not any(part.gloo for part in group) and any(part.nccl for part in group):
        lone = rank.pp == pp_size - 1 and group[0].kind == "send"
        return "tokens" if lone else "requests"
    types = {op.dtype for part in group for op in part.p2p if op.backend == "nccl"} - {BYTES, None}
    if types & INTEGERS:
        return "tokens"
    if types:
        return "hidden"
    sends_on = rank.pp == pp_size - 1 and group[0].kind == "send"
    receives = rank.pp == 0 and group[0].kind == "recv"
    return "tokens" if sends_on or receives else "unknown"  # all that these ranks ever do


def _metadata(message: Message) -> P2POp | None:
    """The send of the pickled metadata, where it goes over NCCL."""
    first = next((part for part in message.operations if part.nccl), None)
    sends = [op for op in first.p2p if op.backend == "nccl"] if first else []
    return sends[0] if sends else None


def _uploads(message: Message, rank: RankTrace, since_ns: int, until_ns: int) -> list[Span]:
    """Copies from pageable memory in a time, of as many bytes as the message's metadata has."""
    metadata = _metadata(message)
    if message.kind != "send" or metadata is None or metadata.dtype != BYTES:
        return []
    return [
        call
        for call in calls_between(rank, since_ns, until_ns)
        if rank.uploads.get(call.correlation) in (metadata.elements, -1)
    ]


def _begin(message: Message, rank: RankTrace, since_ns: int) -> None:
    """Let a send begin where its pickled metadata is copied to the GPU, if it goes over NCCL.

    The copy is the last one from pageable memory before the send, of as many bytes as the metadata
    has; the operator around it holds the host, whichever call inside it blocks.
    """
    metadata = _metadata(message)
    if any(part.asynchronous for part in message.operations):
        message.gap = "sends do not block, and sglang's annotations around them are missing"
    elif metadata is None or metadata.dtype is None:
        message.gap = "the kernel of the first NCCL send in it is not known"
    elif metadata.dtype == BYTES:
        if fitting := _uploads(message, rank, since_ns, message.start_ns):
            message.upload = fitting[-1]
            message.start_ns = operator_around(rank, fitting[-1].start_ns)[0]
        else:
            message.gap = "the copy of the metadata to the GPU was not found"
    elif not rank.sends:
        message.gap = "the trace has no c10d operators, with which the send begins"


def _same_form(found: list[Message]) -> None:
    """Mark token sends that lack what the others have: events of theirs are missing."""
    sends = [each for each in found if each.kind == "send" and each.what == "tokens"]
    forms = Counter(each.form for each in sends)
    if not forms:
        return
    usual, _ = forms.most_common(1)[0]
    for each in sends:
        if each.form != usual and not each.gap:
            each.gap = "events are missing that the other sends have"
