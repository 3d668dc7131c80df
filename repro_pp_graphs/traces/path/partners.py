"""The other end of each operation: as paired, and in gloo where the message that it is in says so.

A message's size goes through gloo, what it holds through NCCL. Where gloo's times do not tell which
call belongs to which, as on hosts whose clocks differ, the pairs of NCCL do.
"""

from __future__ import annotations

from itertools import chain

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.rank_trace import P2POp


def partners_of(hosts: list[Host]) -> list[dict[int, P2POp]]:
    """For each rank the other end of its operations, by id()."""
    found = [dict(host.other) for host in hosts]
    holding: dict[int, tuple[int, Message]] = {
        id(op): (at, message)
        for at, host in enumerate(hosts)
        for message in host.messages
        for op in _of(message, "nccl")
    }
    for at, host in enumerate(hosts):
        for sent in host.messages:
            if sent.kind == "send":
                ends = [host.other.get(id(op)) for op in _of(sent, "nccl")]
                received = [holding.get(id(end)) for end in ends if end is not None]
                first = received[0] if received else None
                if first and all(each and each[1] is first[1] for each in received):
                    there, message = first
                    _join(found[at], found[there], _of(sent, "gloo"), _of(message, "gloo"))
    return found


def _of(message: Message, backend: str) -> list[P2POp]:
    every = chain.from_iterable(part.p2p for part in message.operations)
    return [op for op in every if op.backend == backend]


def _join(
    ours: dict[int, P2POp], theirs: dict[int, P2POp], sends: list[P2POp], recvs: list[P2POp]
) -> None:
    """Pair the calls of one message in their order, where both ends have as many and none has
    another partner."""
    known = any(id(op) in ours for op in sends) or any(id(op) in theirs for op in recvs)
    if known or len(sends) != len(recvs):
        return
    for send, recv in zip(sends, recvs, strict=True):
        if (send.kind, recv.kind) == ("send", "recv"):
            ours[id(send)], theirs[id(recv)] = recv, send
