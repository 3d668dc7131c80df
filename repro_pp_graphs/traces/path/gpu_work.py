"""A rank's GPU work as moments: groups of kernels, NCCL operations, and which stream waits."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.explain.operations import together
from repro_pp_graphs.traces.path.gpu_groups import shortest_launch
from repro_pp_graphs.traces.path.graph import Graph, Kind
from repro_pp_graphs.traces.path.rank_line import ALWAYS, SLACK_NS, Ints, RankLine, Work
from repro_pp_graphs.traces.rank_trace import P2POp

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


def compute(graph: Graph, line: RankLine) -> None:
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


def operations(graph: Graph, line: RankLine) -> None:
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


def across_streams(graph: Graph, line: RankLine) -> None:
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
