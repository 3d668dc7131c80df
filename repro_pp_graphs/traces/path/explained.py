"""The whole analysis of a case: what `explain` finds, and the critical path."""

from __future__ import annotations

from msgspec.structs import replace

from repro_pp_graphs.traces.explain.analysis import analyze, hosts_of
from repro_pp_graphs.traces.facts import Analysis
from repro_pp_graphs.traces.model import Case
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.pair.edges import edges_of
from repro_pp_graphs.traces.path.clocks import CannotTell
from repro_pp_graphs.traces.path.ring_path import ring_path
from repro_pp_graphs.traces.path.what_if import Change


def explained(
    case: Case, edges: list[Edge] | None = None, asked: dict[str, Change] | None = None
) -> Analysis:
    """The analysis of one case; `edges` are those that `edges_of` found, where they are there;
    `asked`: changes to time a decode step again with, by name."""
    edges = edges_of(case) if edges is None else edges
    hosts = hosts_of(case, edges)
    found = analyze(case, edges, hosts)
    try:
        return replace(found, ring_path=ring_path(case, hosts, edges, asked))
    except CannotTell as reason:
        return replace(found, ring_path_unknown=str(reason))
