"""What is known of one edge of the ring: its messages by process group, and how they are paired."""

from __future__ import annotations

from dataclasses import dataclass, field

from repro_pp_graphs.traces.model import Backend, P2POp, RankTrace
from repro_pp_graphs.traces.pair.equal_lags import Witness
from repro_pp_graphs.traces.pair.queues import Queues, Run


@dataclass(slots=True)
class Pairing:
    """Pairs of indices (send, recv), the offset of most of them, and why there are none.

    `run` is the longest run of pairs at that offset; `clock_ns` how far the receiver's clock was
    taken to be ahead of the sender's.
    """

    pairs: list[tuple[int, int]] = field(default_factory=list)
    offset: int | None = None
    reason: str = ""
    run: Run | None = None
    clock_ns: int = 0


@dataclass(slots=True)
class Channel:
    """The sends and recvs of one process group on an edge, each in its order, paired.

    `queues` are their columns, None where nothing can be paired; `witness` what lags tell.
    """

    name: str
    sends: list[P2POp]
    recvs: list[P2POp]
    pairing: Pairing
    queues: Queues | None = None
    witness: Witness | None = None

    def paired(self) -> list[tuple[P2POp, P2POp]]:
        return [(self.sends[i], self.recvs[j]) for i, j in self.pairing.pairs]


@dataclass(slots=True)
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
    def one_host(self) -> bool | None:
        """Whether the ranks run on the same host; None where their files name none."""
        hosts = [rank.host for rank in (self.src, self.dst) if rank and rank.host]
        return hosts[0] == hosts[1] if len(hosts) == 2 else None

    @property
    def largest(self) -> Channel:
        """The channel with most pairs, among equals with most operations."""
        return max(self.channels, key=lambda c: (len(c.pairing.pairs), len(c.sends) + len(c.recvs)))


def sent_ns(send: P2POp, recv: P2POp) -> int:
    """When a paired send was over."""
    return send.end_ns if send.backend == "nccl" else min(send.end_ns, recv.end_ns)
