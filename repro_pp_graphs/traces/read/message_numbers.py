"""The numbers that the shim pp_clock gives P2P messages, in annotations around the calls.

`pp_clock:send 1->0 pp #123` is message 123 from rank 1 to rank 0 in the process group pp, from the
beginning of both ranks' loops on: its receiver's call is annotated with the same number.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from typing import NamedTuple

from repro_pp_graphs.traces.model import P2POp, Span

PREFIX = "pp_clock:"
_NAME = re.compile(PREFIX + r"(send|recv) (\d{1,9})->(\d{1,9}) (\S+) #(\d{1,18})")
# what the scheduler's groups carry over gloo: requests in the world's, the rest in the pipeline's
_OVER_GLOO = {"world_cpu": "requests", "pp_cpu": "tensors"}


class _Mark(NamedTuple):
    start_ns: int
    end_ns: int
    kind: str
    src: int
    dst: int
    group: str
    number: int


def divide(marks: list[Span]) -> tuple[list[Span], list[Span]]:
    """The annotations that number messages, and the others."""
    numbering = [mark for mark in marks if mark.name.startswith(PREFIX)]
    return numbering, [m for m in marks if not m.name.startswith(PREFIX)] if numbering else marks


def _read(numbering: list[Span]) -> list[_Mark]:
    found = []
    for span in numbering:
        if match := _NAME.fullmatch(span.name):
            kind, src, dst, group, number = match.groups()
            found.append(
                _Mark(span.start_ns, span.end_ns, kind, int(src), int(dst), group, int(number))
            )
    return sorted(found)


def _around(marks: list[_Mark], op: P2POp, rank: int) -> _Mark | None:
    """The annotation in which an operation was posted, where it is of such a message."""
    if op.posted_ns is None:
        return None
    at = bisect_right(marks, op.posted_ns, key=lambda mark: mark.start_ns) - 1
    if at < 0 or marks[at].end_ns < op.posted_ns or marks[at].kind != op.kind:
        return None
    ends = (rank, op.peer) if op.kind == "send" else (op.peer, rank)
    return marks[at] if ends == (marks[at].src, marks[at].dst) else None


def attach(p2p: list[P2POp], numbering: list[Span], rank: int) -> None:
    """Give every operation its message's number and group, where an annotation tells them.

    An annotation is around one call, which posts one message: where several operations seem to be
    in it, none gets the number.
    """
    marks = _read(numbering)
    if not marks:
        return
    found = [_around(marks, op, rank) for op in p2p]
    uses = Counter(mark for mark in found if mark)
    for op, mark in zip(p2p, found, strict=True):
        if mark and uses[mark] == 1:
            op.number, op.group = mark.number, mark.group
            if op.backend == "gloo":
                op.channel = _OVER_GLOO.get(mark.group, mark.group)
