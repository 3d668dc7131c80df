"""The critical path of a case as slices on its ranks, for the merged trace."""

from __future__ import annotations

import msgspec

from repro_pp_graphs.traces.analysis_record import PathCategory
from repro_pp_graphs.traces.path.batches import Batches
from repro_pp_graphs.traces.path.followed import Followed
from repro_pp_graphs.traces.path.parts import parts_of
from repro_pp_graphs.traces.path.rank_line import Ring
from repro_pp_graphs.traces.path.shared_gpu import others_work
from repro_pp_graphs.traces.path.walk import Piece, Walker


class Slice(msgspec.Struct, gc=False):
    """Something on the critical path: on which global rank, ns of its own clock, and what."""

    rank: int
    start_ns: int
    end_ns: int
    name: PathCategory


def path_slices(found: Followed) -> list[Slice]:
    """The critical path from the first launch on PP0 to the last, in its order: without a gap, each
    rank's slices apart."""
    launch = found.batches.launch
    first, last = launch[found.steps[0][0]], launch[found.steps[-1][1]]
    slices: list[Slice] = []
    shares = [bool(len(work)) for work in others_work(found.ring.ranks)]
    for piece in reversed(Walker(found.timing).pieces(last, int(found.timing.time[first]))):
        for shown in _of(found.ring, found.batches, found.steps[0][0], piece):
            if shown.name == "shared_gpu" and not shares[piece.rank]:
                shown.name = "unexplained"
            before = slices[-1] if slices else None
            if before and (before.rank, before.name) == (shown.rank, shown.name):
                before.end_ns = shown.end_ns
            else:
                slices.append(shown)
    return slices


def _of(ring: Ring, batches: Batches, batch: int, piece: Piece) -> list[Slice]:
    """A piece by its categories; whose micro-batch kernels are of is not said: every one is some
    step's own."""
    line = ring.ranks[piece.rank]
    found = []
    for part in parts_of(ring, batches, 0, batch, [piece]):
        name = part.category
        if name == "queueing":
            name = "graph" if line.groups.graph[piece.ref] else "eager"
        start, end = part.start_ns + line.ahead_ns, part.end_ns + line.ahead_ns
        found.append(Slice(line.host.rank.rank, start, end, name))
    return found
