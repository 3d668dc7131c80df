"""One edge of the ring, paired: its messages by process group, and how they belong together."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from repro_pp_graphs.traces.pair.queues import Run
from repro_pp_graphs.traces.rank_trace import Backend, P2POp, RankTrace


@dataclass(frozen=True, slots=True)
class Pairing:
    """Which send of a channel belongs to which recv."""

    pairs: list[tuple[int, int]]  # indices (send, recv), by send
    offset: int | None = None  # recv index less send index, of most pairs
    reason: str = ""  # why there are no pairs
    run: Run | None = None  # the longest run of pairs at the offset
    clock_ns: int = 0  # how far the receiver's clock was taken to be ahead of the sender's

    @classmethod
    def none(cls, reason: str) -> Pairing:
        return cls([], reason=reason)


class Agreement(NamedTuple):
    """Of the pairs by number: how many order and times pair the same, and how many otherwise."""

    pairs: int
    same: int
    other: int


@dataclass(frozen=True, slots=True)
class Channel:
    """The sends and recvs of one process group on an edge, each in its order, paired."""

    name: str
    sends: list[P2POp]
    recvs: list[P2POp]
    pairing: Pairing
    agreement: Agreement | None = None  # with pairs by number, where these are known

    def paired(self) -> list[tuple[P2POp, P2POp]]:
        return [(self.sends[i], self.recvs[j]) for i, j in self.pairing.pairs]


@dataclass(frozen=True, slots=True)
class Edge:
    """All P2P of one backend from one global rank to another; a rank without a trace is None."""

    backend: Backend
    src_rank: int
    dst_rank: int
    src: RankTrace | None
    dst: RankTrace | None
    channels: list[Channel]

    def paired(self) -> list[tuple[P2POp, P2POp]]:
        return [pair for channel in self.channels for pair in channel.paired()]

    @property
    def largest(self) -> Channel:
        """The channel with most pairs, among equals with most operations."""
        return max(self.channels, key=lambda c: (len(c.pairing.pairs), len(c.sends) + len(c.recvs)))


def without_pairs(edge: Edge, reason: str) -> Edge:
    """The edge with no message paired."""
    none = Pairing.none(reason)
    channels = [replace(each, pairing=none, agreement=None) for each in edge.channels]
    return replace(edge, channels=channels)


def sent_ns(send: P2POp, recv: P2POp) -> int:
    """When a paired send was over; of one in a batch, at the latest: its kernel also receives."""
    if send.batch:
        return max(send.start_ns, min(send.end_ns, recv.end_ns))
    return send.end_ns if send.backend == "nccl" else min(send.end_ns, recv.end_ns)
