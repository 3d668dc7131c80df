"""The numbers that the shim pp_clock gives P2P messages, in annotations around the calls.

`pp_clock:send 1->0 pp #123` is message 123 from rank 1 to rank 0 in the process group pp, from the
beginning of both ranks' loops on: its receiver's call is annotated with the same number. Around a
batch_isend_irecv an annotation has all of its messages, in their order: `pp_clock:send 1->0 pp #7,
recv 0->1 pp #3`. A later wait for sends is `pp_clock:wait send 1->0 pp_cpu #6, send 1->0 pp #7`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from repro_pp_graphs.traces.rank_trace import P2POp, SentWait, Span

PREFIX = "pp_clock:"
WAIT = PREFIX + "wait "
_NAME = re.compile(r"(send|recv) (\d{1,9})->(\d{1,9}) (\S+) #(\d{1,18})")
# what the scheduler's groups carry over gloo: requests in the world's, the rest in the pipeline's
_OVER_GLOO = {"world_cpu": "requests", "pp_cpu": "tensors"}


class _Message(NamedTuple):
    kind: str
    src: int
    dst: int
    group: str
    number: int

    def fits(self, op: P2POp, rank: int) -> bool:
        """Whether an operation of a rank can be it."""
        ends = (rank, op.peer) if op.kind == "send" else (op.peer, rank)
        return self.kind == op.kind and ends == (self.src, self.dst)


class _Mark(NamedTuple):
    start_ns: int
    end_ns: int
    messages: tuple[_Message, ...]


def divide(marks: list[Span]) -> tuple[list[Span], list[Span]]:
    """The annotations that number messages, and the others."""
    numbering = [mark for mark in marks if mark.name.startswith(PREFIX)]
    return numbering, [m for m in marks if not m.name.startswith(PREFIX)] if numbering else marks


def _read(numbering: list[Span], prefix: str = PREFIX) -> list[_Mark]:
    found = []
    for span in numbering:
        names = span.name.removeprefix(prefix).split(", ")
        matches = [match for name in names if (match := _NAME.fullmatch(name))]
        if len(matches) == len(names):
            messages = tuple(_message(*match.groups()) for match in matches)
            found.append(_Mark(span.start_ns, span.end_ns, messages))
    return sorted(found)


def _message(kind: str, src: str, dst: str, group: str, number: str) -> _Message:
    return _Message(kind, int(src), int(dst), group, int(number))


def _around(marks: list[_Mark], op: P2POp) -> _Mark | None:
    """The annotation in which an operation was posted."""
    if op.posted_ns is None:
        return None
    at = bisect_right(marks, op.posted_ns, key=lambda mark: mark.start_ns) - 1
    return marks[at] if at >= 0 and op.posted_ns <= marks[at].end_ns else None


def attach(p2p: list[P2POp], numbering: list[Span], rank: int) -> None:
    """Give every operation its message's number and group, where an annotation tells them.

    An annotation is around one call, which posts the messages that it names, in their order: where
    the operations in it seem to be others, or more or fewer, none gets a number. Those of gloo that
    are named together are one batch.
    """
    marks = _read(numbering)
    inside: dict[_Mark, list[P2POp]] = {}
    for op in p2p:
        mark = _around(marks, op)
        if mark and any(each.fits(op, rank) for each in mark.messages):
            inside.setdefault(mark, []).append(op)
    for batch, (mark, ops) in enumerate(inside.items(), 1):
        ops.sort(key=lambda op: op.called_ns or op.posted_ns or 0)
        if len(ops) != len(mark.messages):
            continue
        if all(each.fits(op, rank) for each, op in zip(mark.messages, ops, strict=True)):
            for each, op in zip(mark.messages, ops, strict=True):
                _number(op, each)
                if len(ops) > 1 and op.backend == "gloo":
                    op.batch = batch


def _number(op: P2POp, message: _Message) -> None:
    op.number, op.group = message.number, message.group
    if op.backend == "gloo":
        op.channel = _OVER_GLOO.get(message.group, message.group)


def sent_waits(p2p: list[P2POp], numbering: list[Span]) -> list[SentWait]:
    """The waits for earlier sends over gloo, by start, with those that the trace has; `p2p` have
    their numbers. One for NCCL holds no host: only a stream waits for it."""
    sent = {
        (op.peer, op.group, op.number): op
        for op in p2p
        if op.kind == "send" and op.backend == "gloo" and op.number
    }
    found = []
    for mark in _read([span for span in numbering if span.name.startswith(WAIT)], WAIT):
        keys = [(each.dst, each.group, each.number) for each in mark.messages]
        if sends := [sent[key] for key in keys if key in sent]:
            found.append(SentWait(mark.start_ns, mark.end_ns, sends))
    return found
