"""The ranks in the graph of moments: their hosts, their GPUs' work, their messages, as moments."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.path.gpu_groups import Groups
from repro_pp_graphs.traces.path.graph import Graph
from repro_pp_graphs.traces.path.host_line import HostLine
from repro_pp_graphs.traces.rank_trace import P2POp
from repro_pp_graphs.traces.time_sets import Intervals

Ints = npt.NDArray[np.int64]

# How far recorded times may be off where one thing follows another.
SLACK_NS = 10_000
# What is always so holds in this share of the cases.
ALWAYS = 0.98


@dataclass(slots=True)
class Work:
    """Work of one stream in its order: when it was posted, when all was there that it is known to
    wait for (its launch, the work before it), its first and last moments; `of`: what it is, the
    same for alike."""

    of: tuple[str, ...]
    posted: Ints
    ready: Ints
    start: Ints
    end: Ints
    begins: list[int]
    ends: list[int]


@dataclass(slots=True)
class RankLine:
    """One rank in the graph: its host's moments and its GPU's groups as moments there.

    Times of the graph are the rank's own less `ahead_ns`; `ops`: its P2P operations in the time
    that the graph is of; `other`: the other end of each, by id(); `rows`: what its host does, as
    `host_rows` has it; `calls`: the dependency of each return on the call's own begin, `shortest`
    what that takes, ns.
    """

    index: int
    host: Host
    ahead_ns: int
    ops: list[P2POp]
    line: HostLine
    groups: Groups
    rows: dict[str, Intervals]
    other: dict[int, P2POp] = field(default_factory=dict)
    host_at: list[int] = field(default_factory=list)
    group_begins: list[int] = field(default_factory=list)
    group_ends: list[int] = field(default_factory=list)
    op_begins: dict[int, int] = field(default_factory=dict)
    op_ends: dict[int, int] = field(default_factory=dict)
    works: list[Work] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)
    shortest: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Ring:
    """The graph of a case and its ranks in it."""

    graph: Graph
    ranks: list[RankLine]
