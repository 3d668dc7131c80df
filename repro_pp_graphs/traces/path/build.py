"""The graph of moments of a whole case: the ranks' hosts and GPUs, and the messages between."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.operations import together
from repro_pp_graphs.traces.model import P2POp
from repro_pp_graphs.traces.path.gpu_groups import (
    Groups,
    groups_of,
    items_of,
    kernels_in,
    shortest_launch,
)
from repro_pp_graphs.traces.path.graph import Graph, Kind
from repro_pp_graphs.traces.path.host_line import HostLine, Wait, host_line
from repro_pp_graphs.traces.path.host_time import host_rows
from repro_pp_graphs.traces.path.partners import partners_of
from repro_pp_graphs.traces.time_sets import Intervals

Ints = npt.NDArray[np.int64]

# How far recorded times may be off where one thing follows another.
SLACK_NS = 10_000
GLOO_SLACK_NS = 50_000
# Times of the GPU and of the host are converted each on its own.
CLOCK_NS = 2_000
# What is always so holds in this share of the cases.
ALWAYS = 0.98
COMPUTE = "compute"
# What a batch computes follows what it received, and what it sends follows what it computed.
RECEIVED = ("recv", COMPUTE)
EXCHANGE = "exchange"  # a batch that sends and receives in one kernel
RECEIVED_IN_EXCHANGE = (EXCHANGE, COMPUTE)
DATA = {RECEIVED, (COMPUTE, "send"), RECEIVED_IN_EXCHANGE, (COMPUTE, EXCHANGE)}
# torch lets an NCCL operation wait for the stream that it was called on: if there is only one.
CURRENT = {(COMPUTE, "recv")}
# Work that begins this long after all that it is known to wait for waited for something else; so
# soon after that was over it begins.
WAITED_NS = 50_000
AT_ONCE_NS = 20_000
# A receive is looked for among so many of the last ones of its sort.
MOST_BACK = 3
# A synchronising call returns this long after what it waited for, at most.
RETURNS_NS = 200_000
BLOCKED_NS = 50_000
# What a call that waits for nothing takes, at most.
CUDA_CALL_NS = 10_000
GLOO_CALL_NS = 50_000


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
    unknown_waits: int = 0


@dataclass(slots=True)
class Ring:
    """The graph of a case and its ranks in it."""

    graph: Graph
    ranks: list[RankLine]


def build(hosts: list[Host], ahead_ns: list[int], window_ns: tuple[int, int]) -> Ring:
    """The graph of what the ranks do in a time, ns of the first one's clock; `ahead_ns`: how far
    each rank's clock is ahead of that."""
    graph = Graph()
    ranks = []
    for index, (host, ahead) in enumerate(zip(hosts, ahead_ns, strict=True)):
        window = window_ns[0] + ahead, window_ns[1] + ahead
        ranks.append(_rank(graph, index, host, ahead, window))
    for line, other in zip(ranks, partners_of(hosts), strict=True):
        line.other = other
    owners = {id(op): line for line in ranks for op in line.ops}
    for line in ranks:
        _messages(graph, line, owners)
    for line in ranks:
        _host_waits(graph, line, owners)
    return Ring(graph, ranks)


def _rank(graph: Graph, index: int, host: Host, ahead: int, window: tuple[int, int]) -> RankLine:
    """One rank in a time, ns of its own clock."""
    ops = [op for op in host.rank.p2p if window[0] <= op.start_ns <= window[1]]
    line = host_line(host, ops, window)
    calls = np.array(host.rank.launches, dtype=np.int64).reshape(-1, 3)
    items, launch_ns = items_of(kernels_in(host.rank.kernels, window), calls)
    groups = groups_of(items, launch_ns, line.ns)
    found = RankLine(index, host, ahead, ops, line, groups, host_rows(host, groups))
    _host_moments(graph, found)
    _compute(graph, found)
    _operations(graph, found)
    _across_streams(graph, found)
    return found


def _host_moments(graph: Graph, line: RankLine) -> None:
    """The host's moments, each after the one before; what a wait is for comes later."""
    before = -1
    for number, moment in enumerate(line.line.moments):
        here = graph.moment(line.index, moment.ns - line.ahead_ns)
        line.host_at.append(here)
        if moment.op is not None:
            line.op_begins[id(moment.op)] = here
        if before >= 0:
            took = graph.time[here] - graph.time[before]
            returns = moment.kind == "back"
            if returns:
                line.calls[here] = len(graph.src)
            kind = Kind.HOST
            if returns and moment.wait:
                kind = Kind.GLOO_CALL if moment.wait.for_peer else Kind.CUDA_CALL
            graph.after(here, before, kind, took, number - 1)
        before = here


def _compute(graph: Graph, line: RankLine) -> None:
    """A begin and an end for each group of GPU work."""
    groups, ahead = line.groups, line.ahead_ns
    columns = (groups.stream, groups.stretch, groups.start, groups.end, groups.posted)
    more = (groups.graph, groups.work, groups.late, groups.launch)
    last_of: dict[int, int] = {}
    rows = zip(*(column.tolist() for column in (*columns, *more)), strict=True)
    for number, row in enumerate(rows):
        stream, stretch, start, end, posted, is_graph, work, late, launch = row
        begin, over = graph.moment(line.index, start - ahead), graph.moment(line.index, end - ahead)
        line.group_begins.append(begin)
        line.group_ends.append(over)
        if stream in last_of:
            graph.after(begin, last_of[stream], Kind.HANDOVER, 0, number)
        last_of[stream] = over
        graph.after(over, begin, Kind.GRAPH if is_graph else Kind.EAGER, work, number)
        if stretch >= 0:
            host = line.host_at[stretch]
            offset = posted - int(line.line.ns[stretch])
            graph.after(begin, host, Kind.LAUNCH, offset + launch, number)
            if late > 0:
                graph.after(over, host, Kind.RUN_UP, late, number)
    before = np.concatenate([[0], groups.end[:-1]])
    before[np.diff(groups.stream, prepend=-1) != 0] = 0
    ready = np.maximum(groups.posted + groups.launch, before[: len(groups)])
    for stream in last_of:
        at = np.flatnonzero(groups.stream == stream)
        for is_graph in (True, False):
            these = at[groups.graph[at] == is_graph]
            if len(these):
                line.works.append(
                    Work(
                        (COMPUTE, str(stream), "graph" if is_graph else "eager"),
                        groups.posted[these],
                        ready[these],
                        groups.start[these],
                        groups.end[these],
                        [line.group_begins[i] for i in these.tolist()],
                        [line.group_ends[i] for i in these.tolist()],
                    )
                )


def _operations(graph: Graph, line: RankLine) -> None:
    """A begin and an end for each NCCL operation, or batch, in the order of its stream."""
    last_of: dict[tuple[object, object], int] = {}
    before_ns: dict[int, int] = {}
    sorted_out: dict[tuple[str, str, str], list[P2POp]] = {}
    nccl = [op for op in line.ops if op.backend == "nccl"]
    launches = [op.start_ns - op.posted_ns for op in nccl if op.posted_ns is not None]
    launch_ns = min(line.groups.launch_ns, shortest_launch(np.array(launches, dtype=np.int64)))
    for ops in together(nccl):
        op = ops[0]
        begin = graph.moment(line.index, op.start_ns - line.ahead_ns)
        over = graph.moment(line.index, op.end_ns - line.ahead_ns)
        posted = line.op_begins.get(id(op))
        if posted is not None:
            graph.after(begin, posted, Kind.LAUNCH, launch_ns)
        if op.lane in last_of:
            graph.after(begin, last_of[op.lane], Kind.HANDOVER, 0)
            before_ns[id(op)] = graph.time[last_of[op.lane]] + line.ahead_ns
        last_of[op.lane] = over
        for each in ops:
            line.op_begins[id(each)], line.op_ends[id(each)] = begin, over
        row = line.line.row_of.get(id(op), "")
        kind = op.kind if all(each.kind == op.kind for each in ops) else EXCHANGE
        sorted_out.setdefault((kind, str(op.lane), row), []).append(op)
    for key, ops in sorted_out.items():
        calls = np.array([op.posted_ns or op.start_ns for op in ops], dtype=np.int64)
        before = np.array([before_ns.get(id(op), 0) for op in ops], dtype=np.int64)
        line.works.append(
            Work(
                key,
                calls,
                np.maximum(calls + launch_ns, before),
                np.array([op.start_ns for op in ops], dtype=np.int64),
                np.array([op.end_ns for op in ops], dtype=np.int64),
                [line.op_begins[id(op)] for op in ops],
                [line.op_ends[id(op)] for op in ops],
            )
        )


def _across_streams(graph: Graph, line: RankLine) -> None:
    """Let work of one stream wait for work of another where that is how it always was; the trace
    does not name the events by which streams wait for each other."""
    streams = {work.of[1] for work in line.works if work.of[0] == COMPUTE}
    known = DATA | (CURRENT if len(streams) == 1 else set())
    every = [(s, t) for t in line.works for s in line.works if not _one_stream(s, t)]
    follows = [(s, t) for s, t in every if (s.of[0], t.of[0]) in known]
    for source, target in follows:
        _let_follow(graph, source, target, True)
    # what waits for what is known by now shows what else must have been waited for
    for source, target in every:
        if (source.of[0], target.of[0]) not in known:
            _let_follow(graph, source, target, False)


def _one_stream(source: Work, target: Work) -> bool:
    """Whether two kinds of work are on one stream, whose order is known."""
    return source.of[1] == target.of[1] and (source.of[0] == COMPUTE) == (target.of[0] == COMPUTE)


def _let_follow(graph: Graph, source: Work, target: Work, known: bool) -> None:
    """Let work wait for the last work of another stream before it, if it always did.

    `known`: that it has to follows from what they are. If not, there must be some that all else was
    there for, and that began only when this was over, and at once.
    """
    receives = (source.of[0], target.of[0]) in (RECEIVED, RECEIVED_IN_EXCHANGE)
    most = MOST_BACK if receives else 1
    for back in range(1, most + 1):
        ours, theirs = _always_after(source, target, back)
        ends, starts = source.end[theirs], target.start[ours]
        held = (ends > target.ready[ours] + WAITED_NS) & (starts <= ends + AT_ONCE_NS)
        if not len(ours) or not (known or held.any()):
            continue
        for one, other in zip(ours.tolist(), theirs.tolist(), strict=True):
            graph.after(target.begins[one], source.ends[other], Kind.HANDOVER, 0)
        if known:
            target.ready[ours] = np.maximum(target.ready[ours], ends)
        return


def _always_after(source: Work, target: Work, back: int) -> tuple[Ints, Ints]:
    """Indices in target and source of work and the last but `back - 1` work of another stream that
    was posted before it; none where the one does not almost always begin when the other is over."""
    at = source.posted.searchsorted(target.posted) - back
    some = np.flatnonzero(at >= 0)
    kept = source.end[at[some]] <= target.start[some] + SLACK_NS
    if not len(some) or kept.mean() < ALWAYS:
        return some[:0], some[:0]
    return some[kept], at[some][kept]


def _messages(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
    """Ends of NCCL operations: where both ends are there, and as long as the transfer took; of a
    batch, whose operations are one kernel, where both ends of all of them are there."""
    for ops in together([op for op in line.ops if op.backend == "nccl"]):
        begin, over = line.op_begins[id(ops[0])], line.op_ends[id(ops[0])]
        took = graph.time[over] - graph.time[begin]
        peers = [_peer_begins(line, op, owners) for op in ops]
        if None in peers:
            graph.after(over, begin, Kind.ALONE, took)
            continue
        waited = {
            peer
            for op, peer in zip(ops, peers, strict=True)
            if peer is not None and not (op.kind == "send" and graph.time[peer] >= graph.time[over])
        }
        if not waited:
            graph.after(over, begin, Kind.MESSAGE, took)
            continue
        took = graph.time[over] - max(graph.time[at] for at in (begin, *waited))
        for at in (begin, *sorted(waited)):
            graph.after(over, at, Kind.TRANSFER, max(took, 0))


def _peer_begins(line: RankLine, op: P2POp, owners: dict[int, RankLine]) -> int | None:
    """The moment when an operation's other end begins; None where it is not known."""
    peer = line.other.get(id(op))
    other = owners.get(id(peer)) if peer else None
    return other.op_begins.get(id(peer)) if other else None


def _host_waits(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
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


def _gloo(graph: Graph, line: RankLine, owners: dict[int, RankLine]) -> None:
    by_row: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
    for back, wait in _backs(line):
        if not wait.for_peer:
            continue
        peers = [_peer_begins(line, op, owners) for op in wait.for_peer]
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
            line.unknown_waits += 1
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
