"""A rank's host thread as moments: it posts work, begins to wait, is back from a wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.cuda_calls import call_kind
from repro_pp_graphs.traces.explain.host import Host, row_of
from repro_pp_graphs.traces.explain.operations import host_ends, together
from repro_pp_graphs.traces.explain.waits import blocking
from repro_pp_graphs.traces.rank_trace import P2POp, Span

Ints = npt.NDArray[np.int64]


class Wait(msgspec.Struct, gc=False):
    """A call in which the host may wait: for the GPU, or for a peer in gloo; ns.

    `row`: the message that it is in, empty outside of any; `sent`: the earlier sends for which it
    waits, none in any other call.
    """

    name: str
    start_ns: int
    end_ns: int
    row: str = ""
    op: P2POp | None = None
    sent: list[P2POp] = []

    @property
    def for_peer(self) -> list[P2POp]:
        """The operations in gloo for whose other ends it waits; none where it is for the GPU."""
        return self.sent if self.op is None else [self.op]


class Moment(msgspec.Struct, gc=False):
    """A moment of the host's thread; `arrive` and `back` are of a wait, `posts` of an operation."""

    ns: int
    kind: Literal["posts", "launches", "arrives", "back"]
    wait: Wait | None = None
    op: P2POp | None = None


@dataclass(slots=True)
class HostLine:
    """A host's moments in their order; `ns` are their times; `row_of`: the message that each P2P
    operation is of, by the operation's id()."""

    moments: list[Moment]
    ns: Ints
    row_of: dict[int, str]


def host_line(host: Host, ops: list[P2POp], window: tuple[int, int]) -> HostLine:
    """The moments of one rank's host in a time, ns, with its P2P operations there."""
    rows: dict[int, str] = {
        id(op): row_of(message)
        for message in host.messages
        for part in message.operations
        for op in part.p2p
    }
    found: list[Moment] = []
    for wait in _waits(host, rows, window):
        found.append(Moment(wait.start_ns, "arrives", wait, wait.op))
        found.append(Moment(wait.end_ns, "back", wait))
    waited = {id(moment.op) for moment in found if moment.op}
    for op in (kernel[0] for kernel in together(ops)):
        if op.posted_ns is not None and id(op) not in waited:
            found.append(Moment(op.posted_ns, "posts", op=op))
    found += [
        Moment(start, "launches")
        for start, _, _ in host.rank.launches
        if window[0] <= start <= window[1]
    ]
    found.sort(key=lambda moment: moment.ns)
    return HostLine(found, np.array([moment.ns for moment in found], dtype=np.int64), rows)


def _waits(host: Host, rows: dict[int, str], window: tuple[int, int]) -> list[Wait]:
    """The calls of a time in which the host may wait, by start, none inside another."""
    ends = host_ends(host.rank)
    calls = [call for call in host.rank.calls if _may_wait(call)]
    found = [
        *(Wait(call.name, call.start_ns, call.end_ns) for call in (*calls, *host.rank.syncs)),
        *(
            Wait(f"gloo:{op.kind}", op.start_ns, ends[id(op)], rows.get(id(op), ""), op)
            for op in host.rank.p2p
            if id(op) in ends
        ),
        *(
            Wait(
                "gloo:sent",
                each.start_ns,
                each.end_ns,
                rows.get(id(each.sends[-1]), ""),
                sent=each.sends,
            )
            for each in host.rank.sent_waits
        ),
    ]
    found = [wait for wait in found if window[0] <= wait.start_ns and wait.end_ns <= window[1]]
    found.sort(key=lambda wait: (wait.start_ns, -wait.end_ns))
    kept: list[Wait] = []
    for wait in found:
        if not kept or wait.start_ns >= kept[-1].end_ns:
            kept.append(wait)
    messages = [message for message in host.messages if message.operations]
    at = 0
    for wait in kept:
        while at < len(messages) and messages[at].end_ns <= wait.start_ns:
            at += 1
        if at < len(messages) and messages[at].start_ns <= wait.start_ns and not wait.row:
            wait.row = row_of(messages[at])
    return kept


def _may_wait(call: Span) -> bool:
    """Whether a CUDA call that took 50 us or more waits for the GPU: one that launches does so
    where the queue is full, and then the GPU is what it waits for anyway."""
    return blocking(call) and call_kind(call.name) not in ("graph", "launch")
