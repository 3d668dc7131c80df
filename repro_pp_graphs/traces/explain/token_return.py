"""The last rank's token return: what its host waits for while it sends the token ids to rank 0.

A step counts when its send is seen whole: its begin is known, and it has the same parts as the
others. Where too few of the steps count, nothing is concluded.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import TOKEN_SEND, Message, calls_between
from repro_pp_graphs.traces.explain.operations import operator_around
from repro_pp_graphs.traces.explain.seen import (
    ENOUGH,
    batches_there,
    enough,
    recorded_by_all,
    unseen,
)
from repro_pp_graphs.traces.explain.waits import BLOCKED_NS, flight
from repro_pp_graphs.traces.model import Case, P2POp
from repro_pp_graphs.traces.pair.edge import Edge, sent_ns
from repro_pp_graphs.traces.quantiles import spread
from repro_pp_graphs.traces.time_sets import (
    clip,
    length,
    partition,
    ranges,
    taken,
)

# Why a wait ends -> the name of its share of the host's span (docs/traces.md)
SPLIT = {
    "own_graph": "blocked_on_own_graph",
    "own_compute": "blocked_on_own_compute",
    "peer_late": "peer_late",
    "transfer": "transfer",
    "otherwise": "blocked_otherwise",
}


def _sends(host: Host, message: Message) -> list[tuple[P2POp, P2POp | None]]:
    """The sends posted in a message, with their receives (None: unpaired)."""
    return [
        (op, host.other.get(id(op)))
        for part in message.operations
        for op in part.p2p
        if op.kind == "send"
    ]


def _delivered_ns(message: Message, sends: list[tuple[P2POp, P2POp | None]]) -> int | None:
    """When the host is back and the last byte has left.

    None where that is not known: an operation's kernel is missing, or a gloo send's partner, as its
    annotation does not end with the transfer.
    """
    if any(recv is None and send.backend == "gloo" for send, recv in sends):
        return None
    if not all(part.p2p for part in message.operations):
        return None
    left = [sent_ns(send, recv) if recv else send.end_ns for send, recv in sends]
    return max([message.end_ns, *left])


def _host_part(host: Host, message: Message) -> dict[str, float]:
    """The host's span of one token send, ns, by the definitions in docs/traces.md."""
    start, end = message.start_ns, message.end_ns
    whole = [(start, end)]
    launched, compute = (ranges(clip(t, start, end)) for t in (host.work.graph, host.work.compute))
    split = {
        f"split.{SPLIT[cause]}": length(ranges(clip(times, start, end)))
        for cause, times in host.waits.items()
    }
    facts: dict[str, float] = {
        **split,
        "split.other_host": end - start - sum(split.values()),
        "host.send": end - start,
        "host.overlapped_with_graph": taken(whole, launched)[0],
        "host.idle": length(taken(whole, compute)[1]),
    }
    if message.upload:
        _, over = operator_around(host.rank, message.upload.start_ns)
        facts["upload.us"] = max(over, message.upload.end_ns) - start
    return facts


def _delivery_part(
    host: Host, message: Message, sends: list[tuple[P2POp, P2POp | None]], delivered: int
) -> dict[str, float]:
    """The time from a token send's begin until it is delivered, ns."""
    start = message.start_ns
    whole = [(start, delivered)]
    graph, launched, compute = (
        ranges(clip(times, start, delivered))
        for times in (host.graph, host.work.graph, host.work.compute)
    )
    early, moving = map(ranges, flight([send for send, _ in sends], host.other))
    on_the_way = partition(
        whole,
        {"peer_late": early, "transfer": moving, "own_graph": graph, "own_compute": compute},
        "other",
    )
    facts: dict[str, float] = {
        **{f"delivery_split.{name}": value for name, value in on_the_way.items()},
        "delivery.send": delivered - start,
        "delivery.overlapped_with_graph": taken(whole, launched)[0],
        "delivery.idle": length(taken(whole, compute)[1]),
    }
    arrivals = [recv.end_ns for _, recv in sends if recv]
    if arrivals:
        facts["until_received.us"] = max(arrivals) - start
    return facts


def token_return(case: Case, hosts: list[Host], edges: list[Edge]) -> dict[str, Any]:
    """Spread over the token returns of the last rank (every TP lane of it), us.

    Of those within the time in which every rank was recorded (of all where there are none): at its
    edges a send waits for a peer that starts or stops its profiler. Empty where the last rank is
    missing or sent no tokens while it was recorded.
    """
    last = [host for host in hosts if host.rank.pp == case.pp_size - 1 and host.rank.pp]
    found = [(host, message) for host in last for message in host.of("tokens", "send")]
    if not found:
        return {}
    begin_ns, end_ns = recorded_by_all(case, hosts)
    inside = [
        (host, message)
        for host, message in found
        if begin_ns <= message.start_ns and message.end_ns <= end_ns
    ] or found
    gaps = {id(host): unseen(host.rank) for host in last}
    counted = [
        (host, message)
        for host, message in inside
        if not (message.gap or message.prefill or gaps[id(host)])
    ]
    prefill = [message for _, message in inside if message.prefill]
    there = max(_steps_there(case, hosts), len(inside)) - len(prefill)
    facts: dict[str, Any] = {
        "src": case.pp_size - 1,
        "dst": 0,
        "steps": len(found),
        "steps_there": there,
        "prefill_steps": len(prefill),
        "prefill_us": spread(np.array([m.end_ns - m.start_ns for m in prefill if not m.gap]) / 1e3),
        "steps_counted": len(counted),
        "enough": enough(len(counted), there),
        "gaps": dict(
            Counter(gap for host, message in inside if (gap := message.gap or gaps[id(host)]))
        ),
        "found_by": TOKEN_SEND if _annotated(found) else "send_tensor_dict (by its operators)",
    }
    rows, delivered = _rows(counted, edges)
    facts["delivered_counted"] = delivered
    facts["delivery_enough"] = enough(delivered, there)
    facts |= _spreads(rows)
    facts["blocking_calls"] = _blocking_calls(counted)
    return facts


def _annotated(found: list[tuple[Host, Message]]) -> bool:
    return any(span.name == TOKEN_SEND for host, _ in found[:1] for span in host.rank.spans)


def _steps_there(case: Case, hosts: list[Host]) -> int:
    """Steps of the last rank while all were recorded: its batches, or tokens that rank 0 got."""
    begin_ns, end_ns = recorded_by_all(case, hosts)
    received = [
        sum(begin_ns <= message.start_ns <= end_ns for message in host.of("tokens", "recv"))
        for host in hosts
        if host.rank.pp == 0
    ]
    ran = [
        batches_there(host, begin_ns, end_ns) for host in hosts if host.rank.pp == case.pp_size - 1
    ]
    return max(sum(received), sum(ran))


def _rows(
    counted: list[tuple[Host, Message]], edges: list[Edge]
) -> tuple[list[dict[str, float]], int]:
    """The parts of every counted step, and in how many the delivery is known.

    A step whose send has fewer NCCL operations than the others' is not whole: when its last byte
    left is not known. Nor is that of any step where the rank's sends lie in no message.
    """
    forms = Counter(message.form for _, message in counted)
    usual = forms.most_common(1)[0][0] if forms else None
    rows, delivered = [], 0
    stray = _stray_share(counted, edges)
    for host, message in counted:
        row = _host_part(host, message)
        sends = _sends(host, message)
        moment = _delivered_ns(message, sends) if message.form == usual else None
        if moment is not None and stray <= 1 - ENOUGH:
            row |= _delivery_part(host, message, sends, moment)
            delivered += 1
        rows.append({name: value / 1000 for name, value in row.items()})
    return rows, delivered


def _stray_share(counted: list[tuple[Host, Message]], edges: list[Edge]) -> float:
    """Of the last rank's NCCL sends to rank 0 in the time of its token sends, those in none."""
    sends = {id(send) for host, message in counted for send, _ in _sends(host, message)}
    stray = total = 0
    for host in {id(host): host for host, _ in counted}.values():
        times = [message for its, message in counted if its is host]
        first, last = times[0].start_ns, times[-1].end_ns
        for edge in edges:
            if edge.src is not host.rank or edge.backend != "nccl":
                continue
            ops = [op for channel in edge.channels for op in channel.sends]
            inside = [op for op in ops if first <= (op.posted_ns or op.start_ns) <= last]
            total += len(inside)
            stray += sum(id(op) not in sends for op in inside)
    return stray / total if total else 0.0


def _spreads(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Median, p99, max and mean of each part, us, grouped as the JSON has them."""
    found: dict[str, Any] = {}
    for key in sorted({key for row in rows for key in row}):
        group, name = key.split(".")
        values = np.array([row[key] for row in rows if key in row])
        cell = spread(values)
        if name == "us":
            found[f"{group}_us"] = cell
        else:
            found.setdefault(f"{group}_us", {})[name] = cell
    return found


def _blocking_calls(counted: list[tuple[Host, Message]]) -> list[dict[str, Any]]:
    """The CUDA calls that held the host in these sends, the longest in all first."""
    calls: Counter[str] = Counter()
    spent_ns: Counter[str] = Counter()
    for host, message in counted:
        for call in calls_between(host.rank, message.start_ns, message.end_ns):
            if call.end_ns - call.start_ns >= BLOCKED_NS:
                calls[call.name] += 1
                spent_ns[call.name] += min(call.end_ns, message.end_ns) - call.start_ns
    return [
        {"name": name, "calls": calls[name], "total_us": round(ns / 1000)}
        for name, ns in spent_ns.most_common()
    ]
