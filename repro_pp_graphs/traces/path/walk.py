"""From a moment back to another along what was there last: the critical path, piece by piece."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.path.graph import Timing

Ints = npt.NDArray[np.int64]

UNEXPLAINED = -1


class Piece(msgspec.Struct, gc=False):
    """A piece of the critical path, ns: on which rank, of which kind (UNEXPLAINED: of none), and
    what it is about (`Graph.ref`)."""

    rank: int
    start_ns: int
    end_ns: int
    kind: int
    ref: int


def clipped(piece: Piece, begin_ns: int, end_ns: int) -> Piece:
    """The part of a piece in a time that it overlaps."""
    start, end = max(piece.start_ns, begin_ns), min(piece.end_ns, end_ns)
    return Piece(piece.rank, start, end, piece.kind, piece.ref)


class Walker:
    """Walks back over a timing's dependencies."""

    def __init__(self, timing: Timing) -> None:
        self.time = timing.time.tolist()
        self.rank = timing.rank.tolist()
        self.rest = timing.rest.tolist()
        self.binding = timing.binding().tolist()
        self.src = timing.src.tolist()
        self.kind = timing.kind.tolist()
        self.ref = timing.ref.tolist()

    def pieces(self, moment: int, since_ns: int) -> list[Piece]:
        """The path to a moment from a time on, the last piece first; without a gap."""
        found: list[Piece] = []
        now = self.time[moment]
        while now > since_ns:
            edge, rank = self.binding[moment], self.rank[moment]
            if edge < 0:
                found.append(Piece(rank, since_ns, now, UNEXPLAINED, -1))
                break
            if self.rest[moment] > 0:
                begin = max(since_ns, now - self.rest[moment])
                found.append(Piece(rank, begin, now, UNEXPLAINED, self.kind[edge]))
                now = begin
            moment = self.src[edge]
            begin = max(since_ns, min(now, self.time[moment]))
            if begin < now:
                found.append(Piece(rank, begin, now, self.kind[edge], self.ref[edge]))
            now = begin
        return found
