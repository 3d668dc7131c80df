"""The whole analysis of a case: what `explain` finds, and the critical path."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.analysis import analyze, paired_hosts
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.path.clock_leads import CannotTell
from repro_pp_graphs.traces.path.followed import Followed, followed
from repro_pp_graphs.traces.path.ring_path import not_of, ring_path
from repro_pp_graphs.traces.path.what_if import Change
from repro_pp_graphs.traces.rank_trace import Case


@dataclass(frozen=True, slots=True)
class Studied:
    """A case and what its analysis, its timeline and its merged trace are all made from.

    `followed`: its decode steps, or why they cannot be followed.
    """

    case: Case
    edges: list[Edge]
    hosts: list[Host]
    followed: Followed | CannotTell


def studied(case: Case) -> Studied:
    """A case with its messages paired, its hosts explained and its decode steps followed."""
    edges, hosts = paired_hosts(case)
    try:
        return Studied(case, edges, hosts, followed(case, hosts, edges))
    except CannotTell as reason:
        return Studied(case, edges, hosts, reason)


def explained(found: Case | Studied, asked: dict[str, Change] | None = None) -> Analysis:
    """The analysis of one case; `asked`: changes to time a decode step again with, by name."""
    study = studied(found) if isinstance(found, Case) else found
    analysis = analyze(study.case, study.edges, study.hosts)
    if isinstance(study.followed, CannotTell):
        reason = f"the way round the ring is not known: {study.followed}"
        return replace(
            analysis,
            ring_path_unknown=str(study.followed),
            what_if_not_given=dict.fromkeys(asked or {}, reason),
        )
    path = ring_path(study.case, study.followed, asked)
    missing = {
        name: path.what_if_unknown or not_of(study.followed, name)
        for name in asked or {}
        if name not in path.what_if
    }
    return replace(analysis, ring_path=path, what_if_not_given=missing)
