"""When a host does nothing that its trace shows: a call in which it waits may be missing there."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.path.parts import Part
from repro_pp_graphs.traces.path.rank_line import RankLine
from repro_pp_graphs.traces.time_sets import Intervals, lengths_before, merged, outside

# Python seldom runs this long without an operator, a launch or a call.
SILENT_NS = 2_000_000
HOST = ("host", "launch")


def silent_ns(ranks: list[RankLine], parts: list[Part]) -> list[int]:
    """For each rank how much of the hosts' own parts of paths is in such times, ns."""
    found = []
    for line in ranks:
        ours = np.array(
            [(p.start_ns, p.end_ns) for p in parts if p.rank == line.index and p.category in HOST],
            dtype=np.int64,
        ).reshape(-1, 2)
        silent = silent_times(line)
        inside = lengths_before(silent, ours[:, 1] + line.ahead_ns)
        inside -= lengths_before(silent, ours[:, 0] + line.ahead_ns)
        found.append(int(inside.sum()))
    return found


def silent_times(line: RankLine) -> Intervals:
    """Times of SILENT_NS or more between two things that the trace shows of a host, as a set, but
    for those in a call that waits; without a GPU also but for operators, which compute."""
    rank = line.host.rank
    calls = np.array([(c.start_ns, c.end_ns) for c in (*rank.calls, *rank.spans)], dtype=np.int64)
    launches = np.array(rank.launches, dtype=np.int64).reshape(-1, 3)[:, :2]
    marks = np.concatenate(
        [
            line.line.ns,
            line.groups.source.posted,
            rank.operators.reshape(-1),
            calls.reshape(-1),
            launches.reshape(-1),
        ]
    )
    marks = np.sort(marks)
    gaps = np.stack([marks[:-1], marks[1:]], axis=1)
    waits = [(m.wait.start_ns, m.wait.end_ns) for m in line.line.moments if m.wait]
    waited = np.array(waits, dtype=np.int64).reshape(-1, 2)
    if not len(line.groups):
        waited = np.concatenate([waited, rank.operators])
    waited = merged(waited[np.argsort(waited[:, 0], kind="stable")])
    return outside(gaps[gaps[:, 1] - gaps[:, 0] >= SILENT_NS], waited)
