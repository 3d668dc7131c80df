"""What the ranks and their tracks are called in a merged trace, and where a file's lanes went."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from repro_pp_graphs.traces.rank_trace import Case, P2POp, RankTrace

Lane = tuple[Any, Any]  # pid and tid as the file has them


@dataclass(frozen=True, slots=True)
class Names:
    """What a rank is called: `title` begins the name of each of its tracks, so that one which is
    pinned or scrolled to shows its rank; `case` ends the names of its processes; `streams`: to
    and from whom NCCL sends on them ("with" whom, where both: longer names are cut)."""

    title: str
    case: str = ""
    streams: dict[Lane, str] = field(default_factory=dict)


def rank_name(case: Case, rank: int) -> str:
    """`PP3` of a global rank, with tensor parallelism `PP3.1`: PP rank, TP rank."""
    pp, tp = divmod(rank, case.tp_size)
    return f"PP{pp}.{tp}" if case.tp_size > 1 else f"PP{pp}"


def names_of(case: Case, rank: RankTrace, letter: str) -> Names:
    """The names of a rank; `letter` is that of its case where there are several."""
    found: dict[Lane, dict[str, str]] = {}
    for op in rank.p2p:
        if op.backend == "nccl":
            ways, peer = found.setdefault(op.lane, {}), rank_name(case, op.peer)
            way = "to" if op.kind == "send" else "from"
            ways[peer] = way if ways.get(peer, way) == way else "with"
    streams = {
        lane: ", ".join(f"{way} {peer}" for peer, way in ways.items())
        for lane, ways in found.items()
    }
    title = rank_name(case, rank.rank)
    if not letter:
        return Names(title, streams=streams)
    return Names(f"{letter} · {title}", case.name.removeprefix(f"CASE_{letter}_"), streams)


@dataclass(frozen=True, slots=True)
class Lanes:
    """Where a rank's lanes went, (pid, tid) each, and its gloo recvs, by lane and start in ns of
    the file: theirs are tracks beside their thread."""

    moved: dict[Lane, tuple[int, int]]
    gloo_recvs: dict[tuple[Lane, int], int]

    def of(self, op: P2POp, base_ns: int) -> tuple[int, int] | None:
        """The pid and tid of the slice an arrow joins: a gloo send leaves from its c10d::send, as
        its own slice opens when the message is already out."""
        found = self.moved.get(op.lane)
        if not found or op.backend == "nccl" or op.kind == "send":
            return found
        tid = self.gloo_recvs.get((op.lane, op.start_ns - base_ns))
        return (found[0], tid) if tid else None
