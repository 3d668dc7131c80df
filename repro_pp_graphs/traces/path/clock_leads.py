"""How far each rank's clock is ahead of the first one's."""

from __future__ import annotations

from typing import NamedTuple

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
    sure = {ends: lag for ends, lag in lags.items() if lag.waited}
    found = {0: 0}
    _follow(sure, found)
    is_sure = len(found) == len(ranks)
    _follow(lags, found)
    for at, host in enumerate(ranks):
        if at not in found:
            raise CannotTell(
                f"the clocks of PP0 and PP{host.rank.pp} may differ, by how much their messages "
                "do not show"
            )
    for (one, other), lag in lags.items():
        later = lag.ns - (found[other] - found[one])
        # what went into a buffer arrives later than it was sent, by what is not known
        if later < -TOGETHER_NS or (later > TOGETHER_NS and not (is_sure and not lag.waited)):
            raise CannotTell("what the messages show of the ranks' clocks contradicts itself")
    return [found[at] for at in range(len(ranks))]


class _Lag(NamedTuple):
    """By how much receives of an edge end later than their sends, ns; `waited`: these sends waited,
    so that both ends end together and the lag is of the clocks alone."""

    ns: int
    waited: bool


def _follow(lags: dict[tuple[int, int], _Lag], found: dict[int, int]) -> None:
    """Find the clocks of ranks (by index) that lags connect with those found, ns."""
    todo = list(found)
    for at in todo:  # grows while it is read
        for (one, other), lag in lags.items():
            for here, there, ahead in ((one, other, lag.ns), (other, one, -lag.ns)):
                if here == at and there not in found:
                    found[there] = found[at] + ahead
                    todo.append(there)


def _lags(ranks: list[Host], edges: list[Edge]) -> dict[tuple[int, int], _Lag]:
    """The lag of each edge, by the indices of its two ranks, where it is about the same for most
    messages: of those whose send waited, where there are enough, else of those whose receive did.
    """
    index = {id(host.rank): at for at, host in enumerate(ranks)}
    found: dict[tuple[int, int], _Lag] = {}
    for edge in edges:
        if edge.backend != "nccl" or not {id(edge.src), id(edge.dst)} <= set(index):
            continue
        times = [
            (send.start_ns, send.end_ns, recv.start_ns, recv.end_ns)
            for send, recv in edge.paired()
            if not (send.batch or recv.batch)
        ]
        sends, sent, starts, received = np.array(times, dtype=np.int64).reshape(-1, 4).T
        ends = index[id(edge.src)], index[id(edge.dst)]
        for length, waited in ((sent - sends, True), (received - starts, False)):
            values = (received - sent)[length > TOGETHER_NS]
            if len(values) < FEWEST:
                continue
            lag = int(quantile(values, 0.5))
            together = np.abs(values - lag) <= TOGETHER_NS
            if together.sum() >= max(FEWEST, 0.5 * len(values)):
                found[ends] = _Lag(lag, waited)
                break
    return found
