"""The clocks of a case's hosts: how far they are apart, as an interval; times are moved where
those recorded cannot be right.

Ranks of one host share its clock. Between hosts the pairs bound the difference (clock_bounds.py);
only those by number, where messages are numbered.
Where that interval holds 0, times stay as recorded; else those of the later host are moved by the
interval's middle, so that no message is received before it is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np

from repro_pp_graphs.traces.analysis_record import HostClocks
from repro_pp_graphs.traces.pair.clock_bounds import Bounds, bounds, chained
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.pair.edges import edges_of
from repro_pp_graphs.traces.rank_trace import Case, Kernels, P2POp, RankTrace, SentWait, Span


def by_host(case: Case) -> dict[str, list[RankTrace]]:
    """The ranks by their host, in order of their first one; empty where a file names no host."""
    found: dict[str, list[RankTrace]] = {}
    for rank in case.ranks:
        found.setdefault(rank.host, []).append(rank)
    return {} if "" in found else found


def same_host(case: Case) -> list[tuple[int, int]]:
    """Each two ranks of one host, both ways round, where there are several hosts."""
    hosts = by_host(case)
    if len(hosts) < 2:
        return []
    return [
        (one.rank, other.rank)
        for ranks in hosts.values()
        for one in ranks
        for other in ranks
        if one is not other
    ]


def host_bounds(case: Case, edges: list[Edge]) -> Bounds:
    """The most, us, that the clock of one host (its place in by_host) is ahead of another's; empty
    where the messages contradict each other."""
    places = {rank.rank: at for at, ranks in enumerate(by_host(case).values()) for rank in ranks}
    most: Bounds = {}
    for (a, b), us in bounds(_surest(edges), []).items():
        ends = places.get(a, -1), places.get(b, -1)
        if -1 not in ends and ends[0] != ends[1]:
            most[ends] = min(us, most.get(ends, us))
    found = chained(most, range(len(set(places.values()))))
    return {} if any(found[a, b] + found.get((b, a), np.inf) < 0 for a, b in found) else found


def _surest(edges: list[Edge]) -> list[Edge]:
    """The edges with those channels only that are paired by number, where there are some."""
    found = [
        replace(edge, channels=[channel for channel in edge.channels if channel.agreement])
        for edge in edges
    ]
    return found if any(edge.channels for edge in found) else edges


def aligned_edges(case: Case) -> list[Edge]:
    """The case's edges, paired. Where the clocks of its hosts are apart for certain, its ranks'
    times are moved first, in place, and `case.moved_us` says by how much."""
    edges = edges_of(case)
    hosts = by_host(case)
    if len(hosts) < 2 or case.moved_us:
        return edges
    shifts = _shifts(host_bounds(case, edges), len(hosts))
    if not any(shifts):
        return edges
    for (name, ranks), by_us in zip(hosts.items(), shifts, strict=True):
        case.moved_us[name] = by_us
        for rank in ranks:
            move(rank, round(by_us * 1000))
    return edges_of(case)


def _shifts(most: Bounds, count: int) -> list[float]:
    """What to add to each host's times, us, so that all bounds hold: nothing where that will do."""
    found = [0.0]
    for at in range(1, count):
        # its clock less the first one's, as the hosts before it bound it where they now are
        lows = [-most[at, a] - found[a] for a in range(at) if (at, a) in most]
        highs = [most[a, at] - found[a] for a in range(at) if (a, at) in most]
        low, high = max(lows, default=-np.inf), min(highs, default=np.inf)
        ahead = 0.0
        if low > 0:
            ahead = (low + high) / 2 if np.isfinite(high) else low
        elif high < 0:
            ahead = (low + high) / 2 if np.isfinite(low) else high
        found.append(round(-float(ahead), 3))
    return found


def move(rank: RankTrace, by_ns: int) -> None:
    """Add to all times of a rank, in place."""
    rank.base_ns += by_ns
    for each in fields(RankTrace):
        value = getattr(rank, each.name)
        if each.name in ("left_out_ns", "times_us", "uploads"):  # by the file's own clock; no times
            continue
        if isinstance(value, Kernels):
            value.times += by_ns
            value.posted[value.posted >= 0] += by_ns
        elif isinstance(value, np.ndarray):
            value += by_ns
        elif each.name == "launches":
            rank.launches = [(begin + by_ns, end + by_ns, tie) for begin, end, tie in value]
        elif isinstance(value, list):
            _move_all(value, by_ns)


def _move_all(found: Iterable[object], by_ns: int) -> None:
    for one in found:
        if isinstance(one, P2POp | Span | SentWait):
            one.start_ns += by_ns
            one.end_ns += by_ns
        if isinstance(one, P2POp):
            one.posted_ns = None if one.posted_ns is None else one.posted_ns + by_ns
            one.called_ns = None if one.called_ns is None else one.called_ns + by_ns


def host_clocks(case: Case, edges: list[Edge]) -> list[HostClocks]:
    """How far the clocks of each two hosts are apart as recorded, and the messages that say so."""
    hosts = by_host(case)
    if len(hosts) < 2:
        return []
    most, names = host_bounds(case, edges), list(hosts)
    found = []
    for b in range(1, len(names)):
        for a in range(b):
            moved = case.moved_us.get(names[b], 0.0) - case.moved_us.get(names[a], 0.0)
            low, high = most.get((b, a)), most.get((a, b))
            between = _messages(edges, {names[a], names[b]})
            found.append(
                HostClocks(
                    a=names[a],
                    b=names[b],
                    low_us=None if low is None else round(-low - moved, 3),
                    high_us=None if high is None else round(high - moved, 3),
                    moved_us=round(moved, 3),
                    messages=sum(pairs for pairs, _ in between),
                    numbered=sum(numbered for _, numbered in between),
                )
            )
    return found


def _messages(edges: list[Edge], hosts: set[str]) -> list[tuple[int, int]]:
    """Of each channel between two hosts: its pairs, and those of them that are by number."""
    return [
        (len(channel.pairing.pairs), channel.agreement.pairs if channel.agreement else 0)
        for edge in edges
        if edge.src and edge.dst and {edge.src.host, edge.dst.host} == hosts
        for channel in edge.channels
    ]
