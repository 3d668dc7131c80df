"""What each wait of a rank's host is for: a peer's call in gloo, or work of the rank's own GPU."""

from __future__ import annotations

from repro_pp_graphs.traces.path.graph import Graph, Kind
from repro_pp_graphs.traces.path.host_line import Wait
from repro_pp_graphs.traces.path.rank_line import ALWAYS, SLACK_NS, RankLine
from repro_pp_graphs.traces.rank_trace import P2POp

# How far recorded times of calls in gloo may be off where one follows another.
GLOO_SLACK_NS = 50_000
# Times of the GPU and of the host are converted each on its own.
CLOCK_NS = 2_000
# A synchronising call returns this long after what it waited for, at most.
RETURNS_NS = 200_000
BLOCKED_NS = 50_000
# What a call that waits for nothing takes, at most.
CUDA_CALL_NS = 10_000
GLOO_CALL_NS = 50_000


def host_waits(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
    """What each wait of the host is for: a peer's call in gloo, or the rank's own GPU."""
    _shortest(line)
    _gloo(graph, line, owners)
    _syncs(graph, line)


def _backs(line: RankLine) -> list[tuple[int, Wait]]:
    """The moments at which the host is back from its waits."""
    return [
        (line.host_at[number], moment.wait)
        for number, moment in enumerate(line.line.moments)
        if moment.kind == "back" and moment.wait is not None
    ]


def peer_begins(line: RankLine, op: P2POp, owners: dict[int, RankLine]) -> int | None:
    """The moment when an operation's other end begins; None where it is not known."""
    peer = line.other.get(id(op))
    other = owners.get(id(peer)) if peer else None
    return other.op_begins.get(id(peer)) if other else None


def _gloo(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
    by_row: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for back, wait in _backs(line):
        if not wait.for_peer:
            continue
        peers = [peer_begins(line, op, owners) for op in wait.for_peer]
        known = [begun for begun in peers if begun is not None]
        if not known:
            graph.kind[line.calls[back]] = Kind.ALONE
        of_row = by_row.setdefault((wait.name, wait.row), [])
        of_row += [(back, begun, graph.time[back] - graph.time[begun]) for begun in known]
    for (name, _), waits in by_row.items():
        # a send that is over before its receive is posted went into a buffer
        kept = [wait for wait in waits if wait[2] >= -GLOO_SLACK_NS]
        if name == "gloo:recv" or len(kept) >= ALWAYS * len(waits):
            for back, begun, _ in kept:
                _waits_for(graph, line, back, begun, Kind.GLOO)


def _waits_for(graph: Graph, line: RankLine, back: int, for_: int, kind: Kind) -> None:
    """Let a call return after something else; by itself it takes what its shortest ones take."""
    graph.after(back, for_, kind, 0)
    edge = line.calls[back]
    graph.weight[edge] = min(graph.weight[edge], line.shortest[back])


def _shortest(line: RankLine) -> None:
    """For each return what a call of its name takes that has nothing to wait for: the shortest
    tenth."""
    of_name: dict[str, list[int]] = {}
    for _, wait in _backs(line):
        of_name.setdefault(wait.name, []).append(wait.end_ns - wait.start_ns)
    usual = {}
    for name, lengths in of_name.items():
        lengths.sort()
        most = GLOO_CALL_NS if name.startswith("gloo:") else CUDA_CALL_NS
        usual[name] = min(lengths[len(lengths) // 10], most)
    line.shortest = {back: usual[wait.name] for back, wait in _backs(line)}


def _syncs(graph: Graph, line: RankLine) -> None:
    """The GPU's work that a synchronising call waits for: of what was posted before it the last of
    a stream; of which one, those calls of its name and in its message tell that blocked."""
    found: list[tuple[int, Wait, dict[int, int]]] = []
    for back, wait in _backs(line):
        if not wait.for_peer:
            last = {
                number: int(work.posted.searchsorted(wait.start_ns)) - 1
                for number, work in enumerate(line.works)
            }
            found.append((back, wait, {number: at for number, at in last.items() if at >= 0}))
    usual = _usual_work(line, found)
    for back, wait, last in found:
        fits = _fitting(line, wait, last)
        chosen = usual.get((wait.name, wait.row))
        if _blocked(wait) and fits and chosen not in fits:
            chosen = min(fits, key=lambda number: fits[number])
        if chosen is None and last:
            chosen = max(last, key=lambda number: int(line.works[number].posted[last[number]]))
        if chosen is None or chosen not in last:
            continue
        work, at = line.works[chosen], last[chosen]
        if work.end[at] <= wait.end_ns + SLACK_NS:
            _waits_for(graph, line, back, work.ends[at], Kind.SYNC)


def _blocked(wait: Wait) -> bool:
    return wait.end_ns - wait.start_ns >= BLOCKED_NS


def _fitting(line: RankLine, wait: Wait, last: dict[int, int]) -> dict[int, int]:
    """Kinds of work whose last one ended while a call waited, next before its return: how long
    before, ns."""
    ends = {number: int(line.works[number].end[at]) for number, at in last.items()}
    return {
        number: max(wait.end_ns - end, 0)
        for number, end in ends.items()
        if max(wait.start_ns, wait.end_ns - RETURNS_NS) <= end <= wait.end_ns + CLOCK_NS
    }


def _usual_work(
    line: RankLine, found: list[tuple[int, Wait, dict[int, int]]]
) -> dict[tuple[str, str], int]:
    """The kind of work that ends before most returns of calls of a name in a message that blocked;
    of several the one that they follow soonest."""
    fits: dict[tuple[str, str], dict[int, list[int]]] = {}
    for _, wait, last in found:
        if _blocked(wait):
            of = fits.setdefault((wait.name, wait.row), {})
            for number, before in _fitting(line, wait, last).items():
                of.setdefault(number, []).append(before)
    return {
        key: max(of, key=lambda number: (len(of[number]), -sum(of[number])))
        for key, of in fits.items()
        if of
    }
