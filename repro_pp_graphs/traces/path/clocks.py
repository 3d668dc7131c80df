"""How far each rank's clock is ahead of the first one's."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.quantiles import quantile

# Operations that wait for each other end together: their ends may differ by so much.
TOGETHER_NS = 50_000
FEWEST = 5


class CannotTell(ValueError):
    """Why the critical path is not known, in a sentence."""


def ahead(ranks: list[Host], edges: list[Edge]) -> list[int]:
    """How far each rank's clock is ahead of the first one's, ns; 0 on one host.

    Raises CannotTell where ranks are on several hosts, or clocks differ, and their messages do not
    tell by how much.
    """
    names = {host.rank.host for host in ranks}
    apart = any(channel.pairing.clock_ns for edge in edges for channel in edge.channels)
    if len(names) == 1 and not apart:
        return [0] * len(ranks)
    lags = _lags(ranks, edges)
    found, todo = {0: 0}, [0]
    for at in todo:  # grows while it is read
        for (one, other), lag in lags.items():
            if one == at and other not in found:
                found[other] = found[at] + lag
                todo.append(other)
    for at, host in enumerate(ranks):
        if at not in found:
            raise CannotTell(
                f"the clocks of PP0 and PP{host.rank.pp} may differ, by how much their messages "
                "do not show"
            )
    worst = max(
        (abs(found[other] - found[one] - lag) for (one, other), lag in lags.items()), default=0
    )
    if worst > len(ranks) * TOGETHER_NS:
        raise CannotTell("what the messages show of the ranks' clocks contradicts itself")
    return [found[at] for at in range(len(ranks))]


def _lags(ranks: list[Host], edges: list[Edge]) -> dict[tuple[int, int], int]:
    """By how much the clock of one rank (its index) is behind that of another, both ways round: the
    end of a receive less that of its send, where most of an edge's end together."""
    index = {id(host.rank): at for at, host in enumerate(ranks)}
    found: dict[tuple[int, int], int] = {}
    for edge in edges:
        if edge.backend != "nccl" or not {id(edge.src), id(edge.dst)} <= set(index):
            continue
        values = np.array(
            [
                recv.end_ns - send.end_ns
                for send, recv in edge.paired()
                if max(send.end_ns - send.start_ns, recv.end_ns - recv.start_ns) > TOGETHER_NS
            ]
        )
        if len(values) < FEWEST:
            continue
        lag = int(quantile(values, 0.5))
        together = np.abs(values - lag) <= TOGETHER_NS
        if together.sum() >= max(FEWEST, 0.5 * len(values)):
            one, other = index[id(edge.src)], index[id(edge.dst)]
            found.setdefault((one, other), lag)
            found.setdefault((other, one), -lag)
    return found
