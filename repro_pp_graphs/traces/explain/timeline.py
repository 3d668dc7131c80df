"""A few decode steps of all PP ranks as slices: what the report's swim lanes are drawn from.

Small whatever the traces weigh: at most MOST_SLICES slices a case. Times are us from the begin of
the stretch, which starts with a token send of the last rank.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.explain.analysis import hosts_of
from repro_pp_graphs.traces.explain.coverage import recorded_by_all
from repro_pp_graphs.traces.explain.host import Host, anchors
from repro_pp_graphs.traces.explain.slices import Passed, RankLanes, Slice, Timeline
from repro_pp_graphs.traces.pair.edge import Edge, sent_ns
from repro_pp_graphs.traces.rank_trace import Case, P2POp
from repro_pp_graphs.traces.time_sets import Intervals, clip, merged, outside

STEPS = 3  # turns of the whole ring that are shown, fewer where they have too many slices
MOST_SLICES = 5000
FALLBACK_NS = 50_000_000  # of a trace without token sends, from its middle
FINEST_NS = 2_000  # kernels with smaller gaps between them are one slice
HOST_GAPS = 10  # of a host's operators, how many times that


def timeline(case: Case, edges: list[Edge], hosts: list[Host] | None = None) -> Timeline | None:
    """Some decode steps from the middle of a case; None where the ranks share no time. `hosts`:
    the ranks', where they are known already."""
    hosts = hosts_of(case, edges) if hosts is None else hosts
    last = [host for host in hosts if host.rank.pp == case.pp_size - 1]
    sends = anchors(last[0], case.pp_size) if last and case.pp_size > 1 else []
    begin_ns, end_ns = recorded_by_all(case, hosts)
    if end_ns <= begin_ns:
        return None
    held = [
        round((each.end_ns - each.start_ns) / 1e6, 4)
        for host in last
        for each in host.of("tokens", "send")
        if not (each.gap or each.prefill) and begin_ns <= each.start_ns and each.end_ns <= end_ns
    ]
    # the TP ranks of a stage do the same: one of them is shown
    stretch = _Whole(case, [host for host in hosts if not host.rank.tp], edges, held)
    starts = [s.start_ns for s in sends if begin_ns <= s.start_ns <= end_ns and not s.prefill]
    for turns in range(min(STEPS * case.pp_size, len(starts) - 1), 0, -1):
        first = (len(starts) - turns) // 2
        found = stretch.slices(starts[first], starts[first + turns], turns)
        if _slices(found) <= MOST_SLICES or turns == 1:
            return found
    middle, half = (begin_ns + end_ns) // 2, min(FALLBACK_NS, end_ns - begin_ns) // 2
    return stretch.slices(middle - half, middle + half, 0)


def _slices(found: Timeline) -> int:
    return sum(
        len(each)
        for rank in found.ranks
        for each in (rank.host, rank.waits, rank.gpu, rank.sends, rank.receives)
    )


class _Whole(NamedTuple):
    """All that is known of a case, to take stretches from."""

    case: Case
    hosts: list[Host]
    edges: list[Edge]
    held: list[float]

    def slices(self, start_ns: int, end_ns: int, turns: int) -> Timeline:
        """The slices between two moments; the gap within GPU work doubles until they are few
        enough, up to a thousandth of the stretch, beyond which one would see it."""
        ns, gap_ns = (start_ns, end_ns), FINEST_NS
        while True:
            ranks = [_lanes(self.case.label(host.rank), host, ns, gap_ns) for host in self.hosts]
            few = sum(len(rank.gpu) for rank in ranks) <= MOST_SLICES // 2
            if few or gap_ns > (end_ns - start_ns) // 1000:
                break
            gap_ns *= 2
        return Timeline(
            case=self.case.name,
            length_us=round((end_ns - start_ns) / 1000, 3),
            steps=turns,
            gap_us=gap_ns / 1000,
            on_gpu=any(len(host.work.busy) for host in self.hosts),
            may_share=any(host.shares for host in self.hosts),
            ranks=ranks,
            passed=_passed(self.case, self.edges, ns),
            token_send_ms=self.held,
        )


def _lanes(label: str, host: Host, ns: tuple[int, int], gap_ns: int) -> RankLanes:
    ops = [op for op in host.rank.p2p if op.end_ns > ns[0] and op.start_ns < ns[1]]
    nccl = [op for op in ops if op.backend == "nccl"]
    ops = nccl or ([] if len(host.work.busy) else ops)  # gloo carries tensors on a CPU alone
    work = host.work
    gpu = {
        "graph": host.graph,
        "compute": outside(work.compute, host.graph),
        "copy": outside(outside(work.busy, work.compute), host.graph),
    }
    return RankLanes(
        label=label,
        host=_sets({str(row): times for row, times in host.rows.items()}, ns, HOST_GAPS * gap_ns),
        waits=_sets({str(cause): times for cause, times in host.waits.items()}, ns, 0),
        gpu=_sets(gpu, ns, gap_ns),
        sends=_operations(host, [op for op in ops if op.kind == "send"], ns),
        receives=_operations(host, [op for op in ops if op.kind == "recv"], ns),
    )


def _sets(sets: dict[str, Intervals], ns: tuple[int, int], gap_ns: int) -> list[Slice]:
    """Disjoint sets as slices, those inside a time; gaps of a set of up to gap_ns are closed where
    no other set lies in them."""
    inside = {kind: clip(times, *ns) for kind, times in sets.items()}
    found = []
    for kind, times in inside.items():
        others = [each for name, each in inside.items() if name != kind]
        shown = outside(_closed(times, gap_ns), merged(np.concatenate(others)))
        found += [Slice(kind, *_us(start, end, ns)) for start, end in shown.tolist() if end > start]
    return sorted(found, key=lambda each: each.start_us)


def _closed(times: Intervals, gap_ns: int) -> Intervals:
    """A set with its gaps of up to gap_ns filled."""
    if not gap_ns or not len(times):
        return times
    starts = np.concatenate([[True], times[1:, 0] - times[:-1, 1] > gap_ns])
    ends = np.concatenate([starts[1:], [True]])
    return np.stack([times[starts, 0], times[ends, 1]], axis=1)


def _us(start: int, end: int, ns: tuple[int, int]) -> tuple[float, float]:
    return round((start - ns[0]) / 1000, 3), round((end - ns[0]) / 1000, 3)


def _operations(host: Host, ops: list[P2POp], ns: tuple[int, int]) -> list[Slice]:
    """Sends or receives: while the peer has not begun, then while the message moves."""
    found: list[Slice] = []
    begun = ns[0]  # operations of several streams may overlap: each is shown from there on
    for op in sorted(ops, key=lambda op: op.start_ns):
        peer = host.other.get(id(op))
        over = op.end_ns
        if peer and op.kind == "send":
            over = sent_ns(op, peer)
        start, over = max(op.start_ns, begun), min(over, ns[1])
        if over <= start:
            continue
        begun = over
        what = f"{'to' if op.kind == 'send' else 'from'} rank {op.peer}"
        if op.elements is not None:
            what += f", {op.elements} {op.dtype or 'elements'}"
        if peer is None:
            found.append(Slice("unpaired", *_us(start, over, ns), what))
            continue
        moving = min(max(start, peer.start_ns), over)
        if moving > start:
            found.append(Slice("waiting", *_us(start, moving, ns), what))
        if over > moving:
            found.append(Slice("moving", *_us(moving, over, ns), what))
    return found


def _passed(case: Case, edges: list[Edge], ns: tuple[int, int]) -> list[Passed]:
    """Messages that carry tensors and lie in a time, whole or in part."""
    carrying = [edge for edge in edges if edge.backend == "nccl"] or edges
    found = []
    for edge in carrying:
        if edge.src is None or edge.dst is None or edge.src.tp or edge.dst.tp:
            continue
        tokens = edge.src.pp == case.pp_size - 1 and edge.dst.pp == 0
        for send, recv in edge.paired():
            if recv.end_ns > ns[0] and send.start_ns < ns[1]:
                labels = case.label(edge.src), case.label(edge.dst)
                found.append(Passed(*labels, *_us(send.start_ns, recv.end_ns, ns), tokens))
    return sorted(found, key=lambda each: each.sent_us)
