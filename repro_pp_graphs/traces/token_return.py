"""The last rank's token return: what its host waits for while it sends the token ids to rank 0.

Releases from 0.5.7 on mark it as send_res_dict_to_next_stage. Before, it is told by what it does: a
run of c10d::send operators with no recv between, and the upload from pageable memory before them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from repro_pp_graphs.traces.columns import BLOCKED_US
from repro_pp_graphs.traces.edges import Edge, sent_ns, spread
from repro_pp_graphs.traces.folder import Case
from repro_pp_graphs.traces.intervals import (
    Ranges,
    clip,
    length,
    merged,
    partition,
    ranges,
    taken,
    union,
)
from repro_pp_graphs.traces.model import Intervals, P2POp, RankTrace, Span
from repro_pp_graphs.traces.steps import GpuWork, window

SPAN = "send_res_dict_to_next_stage"
# An upload this long before the first send still belongs to it.
UPLOAD_REACH_NS = 2_000_000
BLOCKED_NS = int(BLOCKED_US * 1000)


@dataclass(frozen=True, slots=True)
class TokenSend:
    """One token return: its host span, the sends posted in it, their recvs (None: unpaired)."""

    span: Span
    sends: list[tuple[P2POp, P2POp | None]]

    @property
    def delivery_known(self) -> bool:
        """False where a gloo send has no recv: its annotation does not end with the transfer."""
        return all(recv or send.backend == "nccl" for send, recv in self.sends)

    @property
    def delivered_ns(self) -> int:
        """When the host is back and the last byte has left."""
        left = [sent_ns(send, recv) for send, recv in self.sends if recv]
        left += [send.end_ns for send, recv in self.sends if not recv and send.backend == "nccl"]
        return max([self.span.end_ns, *left])


def host_spans(rank: RankTrace) -> tuple[list[Span], str]:
    """The host spans that return tokens, and how they were found."""
    found = [span for span in rank.spans if span.name == SPAN]
    if found:
        return found, SPAN
    groups: list[list[Span]] = []
    recv_starts = np.array([recv.start_ns for recv in rank.recvs], dtype=np.int64)
    since = -1
    for send in rank.sends:
        recvs_before = int(np.searchsorted(recv_starts, send.start_ns))
        if recvs_before != since:
            groups.append([])
            since = recvs_before
        groups[-1].append(send)
    uploads = [call for call in rank.calls if call.correlation in rank.uploads]
    return [_grown(group, uploads) for group in groups], "send_tensor_dict (by its operators)"


def _grown(group: list[Span], uploads: list[Span]) -> Span:
    """From the upload before the first send, where there is one, to where the last send returns."""
    start, end = group[0].start_ns, group[-1].end_ns
    at = bisect_right(uploads, start, key=lambda call: call.end_ns) - 1
    if at >= 0 and uploads[at].end_ns >= start - UPLOAD_REACH_NS:
        start = uploads[at].start_ns
    return Span("send_tensor_dict", start, end)


def token_sends(rank: RankTrace, edges: list[Edge]) -> tuple[list[TokenSend], str]:
    """Each token return of a last rank with the sends posted in it."""
    spans, how = host_spans(rank)
    partner: dict[int, P2POp] = {}
    sends: list[P2POp] = []
    for edge in edges:
        if edge.src is rank:
            sends += [op for channel in edge.channels for op in channel.sends]
            partner.update((id(send), recv) for send, recv in edge.paired())
    sends = [op for op in sends if op.posted_ns is not None]
    sends.sort(key=lambda op: op.posted_ns or 0)
    posted = np.array([op.posted_ns for op in sends], dtype=np.int64)
    found = []
    for span in spans:
        mine = sends[np.searchsorted(posted, span.start_ns) : np.searchsorted(posted, span.end_ns)]
        if mine:
            found.append(TokenSend(span, [(op, partner.get(id(op))) for op in mine]))
    return found, how


def _waits(rank: RankTrace, token: TokenSend, calls: list[Span]) -> Ranges:
    """When the host does nothing but wait: in a CUDA call, or in gloo before its next operator."""
    start, end = token.span.start_ns, token.span.end_ns
    waits = [(call.start_ns, call.end_ns) for call in calls]
    for send, _ in token.sends:
        if send.backend == "gloo" and send.end_ns <= end:
            starts = rank.operators[:, 0]
            after = starts.searchsorted(send.start_ns, side="right")
            following = int(starts[after]) if after < len(starts) else end
            waits.append((send.start_ns, min(send.end_ns, following)))
    return union([(max(start, low), min(end, high)) for low, high in waits])


def _blocked(calls: list[Span], token: TokenSend) -> list[Span]:
    """Of a thread's calls, which follow each other, those in the token's span that blocked."""
    first = bisect_right(calls, token.span.start_ns, key=lambda call: call.end_ns)
    last = bisect_left(calls, token.span.end_ns, key=lambda call: call.start_ns)
    return [call for call in calls[first:last] if call.end_ns - call.start_ns >= BLOCKED_NS]


def _flight(token: TokenSend) -> tuple[Ranges, Ranges]:
    """While a send is under way: before its recv has started, and from then on."""
    early = [(s.start_ns, min(s.end_ns, r.start_ns)) for s, r in token.sends if r]
    moving = [(max(s.start_ns, r.start_ns), sent_ns(s, r)) for s, r in token.sends if r]
    return union(early), union(moving)


def _explain(
    token: TokenSend, waits: Ranges, work: GpuWork, extents: Intervals
) -> dict[str, float]:
    """One token return in us, by the definitions in docs/traces.md; `extents`: a set."""
    start, end, delivered = token.span.start_ns, token.span.end_ns, token.delivered_ns
    graph, compute, launched = (
        ranges(clip(times, start, delivered)) for times in (extents, work.compute, work.graph)
    )
    early, moving = _flight(token)
    split = partition(
        waits,
        {
            "blocked_on_own_graph": graph,
            "blocked_on_own_compute": compute,
            "peer_late": early,
            "transfer": moving,
        },
        "blocked_otherwise",
    )
    split["other_host"] = end - start - length(waits)
    facts: dict[str, float] = {f"split.{name}": value for name, value in split.items()}
    if token.delivery_known:
        on_the_way = partition(
            [(start, delivered)],
            {
                "peer_late": early,
                "transfer": moving,
                "own_graph": graph,
                "own_compute": compute,
            },
            "other",
        )
        facts |= {f"delivery_split.{name}": value for name, value in on_the_way.items()}
    for prefix, over in (("host", end), *([("delivery", delivered)] * token.delivery_known)):
        span = [(start, over)]
        facts |= {
            f"{prefix}.send": over - start,
            f"{prefix}.overlapped_with_graph": taken(span, launched)[0],
            f"{prefix}.idle": length(taken(span, compute)[1]),
        }
    arrivals = [recv.end_ns for _, recv in token.sends if recv]
    if arrivals:
        facts["until_received.us"] = max(arrivals) - start
    return {name: value / 1000 for name, value in facts.items()}


def token_return(case: Case, work: list[GpuWork], edges: list[Edge]) -> dict[str, Any]:
    """Spread over all token returns of the last rank (every TP lane of it), us.

    `work` has the ranks' GPU work in the order of the ranks.

    Of those within the time in which every rank was recorded (of all where there are none): at its
    edges a send waits for a peer that starts or stops its profiler. Empty where the last rank is
    missing or sent no tokens while it was recorded.
    """
    rows: list[dict[str, float]] = []
    inside: list[bool] = []
    begin_ns, end_ns = window(case)
    calls: Counter[str] = Counter()
    blocked_us: Counter[str] = Counter()
    how = ""
    for rank, its in zip(case.ranks, work, strict=True):
        if rank.pp != case.pp_size - 1 or not rank.pp:
            continue
        tokens, how = token_sends(rank, edges)
        extents = merged(its.extents)
        for token in tokens:
            blocked = _blocked(rank.calls, token)
            rows.append(_explain(token, _waits(rank, token, blocked), its, extents))
            inside.append(begin_ns <= token.span.start_ns and token.span.end_ns <= end_ns)
            for call in blocked if inside[-1] else []:
                calls[call.name] += 1
                spent_ns = min(call.end_ns, token.span.end_ns) - max(
                    call.start_ns, token.span.start_ns
                )
                blocked_us[call.name] += round(spent_ns / 1000)
    if not rows:
        return {}
    counted = [row for row, within in zip(rows, inside, strict=True) if within] or rows
    found: dict[str, Any] = {"src": case.pp_size - 1, "dst": 0, "steps": len(rows), "found_by": how}
    found["steps_counted"] = len(counted)
    for key in sorted({key for row in rows for key in row}):
        group, name = key.split(".")
        values = np.array([row[key] for row in counted if key in row])
        if not len(values):
            continue
        cell = {**spread(values), "mean": round(float(np.mean(values)), 3)}
        if name == "us":
            found[f"{group}_us"] = cell
        else:
            found.setdefault(f"{group}_us", {})[name] = cell
    found["blocking_calls"] = [
        {"name": name, "calls": calls[name], "total_us": spent}
        for name, spent in blocked_us.most_common()
    ]
    return found
