"""The pieces of critical paths by category, by rank and, on the host, by what it does."""

from __future__ import annotations

from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import PathCategory
from repro_pp_graphs.traces.path.batches import Batches
from repro_pp_graphs.traces.path.graph import Kind
from repro_pp_graphs.traces.path.host_time import LAUNCH, MANY, PYTHON
from repro_pp_graphs.traces.path.host_waits import RETURNS_NS
from repro_pp_graphs.traces.path.rank_line import RankLine, Ring
from repro_pp_graphs.traces.path.shared_gpu import others_work
from repro_pp_graphs.traces.path.walk import UNEXPLAINED, Piece
from repro_pp_graphs.traces.rank_trace import Span
from repro_pp_graphs.traces.time_sets import (
    Intervals,
    common,
    intervals,
    lengths_before,
    merged,
    outside,
)

Ints = npt.NDArray[np.int64]

CATEGORIES: tuple[PathCategory, ...] = get_args(PathCategory)
PLAIN: dict[int, PathCategory] = {
    UNEXPLAINED: "unexplained",
    Kind.HOST: "host",
    Kind.HANDOVER: "sync",
    Kind.SYNC: "sync",
    Kind.TRANSFER: "transfer",
    Kind.MESSAGE: "transfer",
    Kind.GLOO: "transfer",
    Kind.CUDA_CALL: "sync",
    Kind.GLOO_CALL: "transfer",
    Kind.ALONE: "peer_late",
}
# sglang's annotations that tell what Python does outside of calls.
LOOP = ("get_next_batch_to_run", "process_batch_result", "run_batch", "recv_requests")


class Part(NamedTuple):
    """A part of a step's path, ns in the graph's time; `step`: which one."""

    step: int
    rank: int
    start_ns: int
    end_ns: int
    category: PathCategory


def parts_of(ring: Ring, batches: Batches, step: int, batch: int, path: list[Piece]) -> list[Part]:
    """A step's path by category; `batch`: PP0's number of what the step runs."""
    found: list[Part] = []
    for piece in path:
        plain = PLAIN.get(piece.kind)
        if piece.kind == UNEXPLAINED:
            found += _unexplained(step, piece)
            continue
        if piece.ref < 0 and piece.kind == Kind.LAUNCH:  # of a message
            plain = "launch"
        if plain:
            found.append(Part(step, piece.rank, piece.start_ns, piece.end_ns, plain))
        else:
            found += _of_group(ring, batches, step, batch, piece)
    return found


def _unexplained(step: int, piece: Piece) -> list[Part]:
    """What no dependency explains. In a gloo call it is the message, once both ends are there; in a
    synchronising call, up to RETURNS_NS, the call's return. On a GPU it is called `shared_gpu`:
    where no other rank's work runs meanwhile, Sums calls it unexplained again."""
    on_gpu = piece.ref in (Kind.LAUNCH, Kind.HANDOVER, Kind.SYNC, Kind.CUDA_CALL)
    if piece.ref in (Kind.GLOO, Kind.GLOO_CALL):
        return [Part(step, piece.rank, piece.start_ns, piece.end_ns, "transfer")]
    until = piece.end_ns
    if piece.ref in (Kind.SYNC, Kind.CUDA_CALL):
        until = max(piece.start_ns, piece.end_ns - RETURNS_NS)
    found: list[Part] = []
    if until > piece.start_ns:
        category: PathCategory = "shared_gpu" if on_gpu else "unexplained"
        found.append(Part(step, piece.rank, piece.start_ns, until, category))
    if piece.end_ns > until:
        found.append(Part(step, piece.rank, until, piece.end_ns, PLAIN[piece.ref]))
    return found


def _of_group(ring: Ring, batches: Batches, step: int, batch: int, piece: Piece) -> list[Part]:
    """A piece about a group of GPU work: the host until its first launch, launching, work."""
    line, group = ring.ranks[piece.rank], piece.ref
    groups = line.groups
    work: PathCategory = "graph" if groups.graph[group] else "eager"
    is_batch = bool(groups.graph[group]) or int(groups.items[group]) >= MANY
    if is_batch and batches.of_group[piece.rank][group] != batches.same[batch][piece.rank]:
        work = "queueing"
    posted = launched = piece.start_ns
    if piece.kind in (Kind.LAUNCH, Kind.RUN_UP):
        posted = int(groups.posted[group]) - line.ahead_ns
        launched = piece.end_ns
    if piece.kind == Kind.RUN_UP:
        launched = int(groups.end[group] - groups.tail[group]) - line.ahead_ns
    found: list[Part] = []
    now = piece.start_ns
    marks: tuple[tuple[int, PathCategory], ...] = (
        (posted, "host"),
        (launched, "launch"),
        (piece.end_ns, work),
    )
    for mark, category in marks:
        until = min(max(mark, now), piece.end_ns)
        if until > now:
            found.append(Part(step, piece.rank, now, until, category))
        now = until
    return found


class Sums:
    """Parts summed up, ns: `steps` by step and category, `ranks` by rank and category, `host` by
    rank and what the host does. What the host launches in its own time is launching."""

    def __init__(self, ring: Ring, parts: list[Part], steps: int) -> None:
        self.steps = np.zeros((steps, len(CATEGORIES)), dtype=np.int64)
        self.ranks = np.zeros((len(ring.ranks), len(CATEGORIES)), dtype=np.int64)
        self.host: dict[tuple[int, str], int] = {}
        for step, rank, start, end, category in parts:
            at = CATEGORIES.index(category)
            self.steps[step, at] += end - start
            self.ranks[rank, at] += end - start
        taken = others_work(ring.ranks)
        for line in ring.ranks:
            if len(ours := _of(parts, line, "host")):
                self._host(line, ours)
            if len(ours := _of(parts, line, "shared_gpu")):
                busy = taken[line.index]
                inside = lengths_before(busy, ours[:, 2]) - lengths_before(busy, ours[:, 1])
                left = ours[:, 2] - ours[:, 1] - inside
                self._moved(line, ours, left, "shared_gpu", "unexplained")

    def _moved(
        self, line: RankLine, parts: Ints, inside: Ints, from_: PathCategory, to: PathCategory
    ) -> None:
        """Count a time of each part (step, start, end) in another category."""
        source, target = CATEGORIES.index(from_), CATEGORIES.index(to)
        of_step = np.bincount(parts[:, 0], inside, len(self.steps)).astype(np.int64)
        self.steps[:, source] -= of_step
        self.steps[:, target] += of_step
        self.ranks[line.index, source] -= inside.sum()
        self.ranks[line.index, target] += inside.sum()

    def _host(self, line: RankLine, parts: Ints) -> None:
        """Share one rank's host parts (step, start, end) out by what the host does."""
        starts, ends = parts[:, 1] + line.ahead_ns, parts[:, 2] + line.ahead_ns
        left = int((ends - starts).sum())
        window = int(starts.min()), int(ends.max())
        for name, times in _named(line.rows, line.host.rank.spans, window).items():
            inside = lengths_before(times, ends) - lengths_before(times, starts)
            spent = int(inside.sum())
            left -= spent
            if name == LAUNCH:
                self._moved(line, parts, inside, "host", "launch")
            elif spent:
                self.host[line.index, name] = spent
        if left:
            self.host[line.index, PYTHON] = left


def _of(parts: list[Part], line: RankLine, category: PathCategory) -> Ints:
    """A rank's parts of a category as rows of step, start and end."""
    rows = [
        (part.step, part.start_ns, part.end_ns)
        for part in parts
        if part.rank == line.index and part.category == category
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _named(
    rows: dict[str, Intervals], spans: list[Span], window: tuple[int, int]
) -> dict[str, Intervals]:
    """The host's rows, and Python inside the annotations of sglang's loop."""
    found = dict(rows)
    covered = merged(np.concatenate([intervals([]), *rows.values()]))
    python = outside(intervals([window]), covered)
    for name in LOOP:
        marks = merged(intervals((s.start_ns, s.end_ns) for s in spans if s.name == name))
        if len(marks):
            found[f"{PYTHON}, {name}"] = common(python, marks)
            python = outside(python, marks)
    return found
