"""The last rank's token return: what its host waits for while it sends the token ids to rank 0.

A step counts when its send is seen whole: its begin is known, and it has the same parts as the
others. Where too few of the steps count, nothing is concluded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from repro_pp_graphs.traces.analysis_record import (
    BlockingCall,
    DeliverySplit,
    HostSplit,
    Portion,
    Spread,
    TokenReturn,
)
from repro_pp_graphs.traces.explain.coverage import (
    ENOUGH,
    batches_there,
    enough,
    recorded_by_all,
    unseen,
)
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import TOKEN_SEND, Message
from repro_pp_graphs.traces.explain.operations import calls_between
from repro_pp_graphs.traces.explain.send_behaviour import mostly_unlabelled
from repro_pp_graphs.traces.explain.send_times import Delivery, SendTimes, sends_of, times_of
from repro_pp_graphs.traces.explain.steps import named
from repro_pp_graphs.traces.explain.waits import BLOCKED_NS
from repro_pp_graphs.traces.explain.words import WORTH_SAYING
from repro_pp_graphs.traces.pair.edge import Edge
from repro_pp_graphs.traces.quantiles import spread, spread_if_any
from repro_pp_graphs.traces.rank_trace import RUN_SPANS, Case

LAUNCHED_BEFORE = "the batch was launched before the recording"


def token_return(
    case: Case, hosts: list[Host], edges: list[Edge], clock_doubt_us: float
) -> TokenReturn | None:
    """Spread over the token returns of the last rank (every TP lane of it).

    Of those within the time in which every rank was recorded: at its edges a send waits for a peer
    that starts or stops its profiler. None where the last rank is missing or sent no tokens.
    `clock_doubt_us`: how far the ranks' clocks may be apart.
    """
    last = [host for host in hosts if host.rank.pp == case.pp_size - 1 and host.rank.pp]
    found = [(host, message) for host in last for message in host.of("tokens", "send")]
    if not found:
        return None
    annotated = any(span.name == TOKEN_SEND for span in found[0][0].rank.spans)
    begin_ns, end_ns = recorded_by_all(case, hosts)
    inside = [
        (host, message)
        for host, message in found
        if begin_ns <= message.start_ns and message.end_ns <= end_ns
    ]
    gaps = _gaps(inside)
    counted = [
        (host, message) for host, message in inside if not (message.prefill or id(message) in gaps)
    ]
    prefill = [message for _, message in inside if message.prefill]
    there = max(_steps_there(case, hosts), len(inside)) - len(prefill)
    times = _times(counted, edges)
    delivered = [each.delivery for each in times if each.delivery]
    lengths_us = _spread_ns([each.portion[0] for each in delivered])
    clocks_do = lengths_us is not None and clock_doubt_us <= WORTH_SAYING * lengths_us.mean
    return TokenReturn(
        src=case.pp_size - 1,
        dst=0,
        steps=len(found),
        steps_there=there,
        prefill_steps=len(prefill),
        prefill_us=_spread_ns([m.end_ns - m.start_ns for m in prefill if not m.gap]),
        steps_counted=len(counted),
        enough=enough(len(counted), there),
        gaps=dict(Counter(gaps.values())),
        found_by=TOKEN_SEND if annotated else "send_tensor_dict (by its operators)",
        delivered_counted=len(delivered),
        delivery_enough=enough(len(delivered), there),
        delivery_us=Portion(*_spreads([d.portion for d in delivered])) if delivered else None,
        delivery_split_us=(
            DeliverySplit(*_spreads([each.split for each in delivered])) if delivered else None
        ),
        host_us=Portion(*_spreads([each.portion for each in times])) if times else None,
        split_us=HostSplit(*_spreads([each.split for each in times])) if times else None,
        delivery_earliest_us=_spread_ns(
            [each.delivery.earliest_ns for each in times if each.delivery]
        ),
        until_received_us=_until_received(delivered, there),
        upload_us=_spread_ns([each.upload_ns for each in times]),
        blocking_calls=_blocking_calls(counted),
        delivery_known=enough(len(delivered), there) and clocks_do and _in_time(times),
    )


def _until_received(delivered: list[Delivery], there: int) -> Spread | None:
    """Until rank 0 has received it all; None where that is known of too few of the steps there."""
    known = [each.until_received_ns for each in delivered if each.until_received_ns is not None]
    return _spread_ns(known) if enough(len(known), there) else None


def _in_time(times: list[SendTimes]) -> bool:
    """Whether sends in the kernel of a batch are known to be over to within a tenth of the time:
    they may be over anywhere in it."""
    found = [
        (each.delivery.portion[0], each.delivery.earliest_ns)
        for each in times
        if each.delivery and each.delivery.earliest_ns is not None
    ]
    open_ns = sum(latest - earliest for latest, earliest in found)
    return open_ns <= WORTH_SAYING * sum(latest for latest, _ in found)


def _gaps(found: list[tuple[Host, Message]]) -> dict[int, str]:
    """Why sends are not seen whole, by their id()."""
    hosts = {id(host): host for host, _ in found}
    unknown = {at: unseen(host.rank) for at, host in hosts.items()}
    since = {at: _first_launch_ns(host) for at, host in hosts.items()}
    gaps = {}
    for host, message in found:
        early = LAUNCHED_BEFORE if message.start_ns < since[id(host)] else ""
        if gap := message.gap or unknown[id(host)] or early:
            gaps[id(message)] = gap
    return gaps


def _first_launch_ns(host: Host) -> int:
    """When a rank launches the first batch seen, by annotation or graph: what it sends before was
    launched before the recording, with --pp-async-batch-depth. 0 where it is not known."""
    runs = [span.start_ns for span in named(host.rank, RUN_SPANS)]
    return min(runs or [start for start, _, _ in host.rank.launches], default=0)


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


def _times(counted: list[tuple[Host, Message]], edges: list[Edge]) -> list[SendTimes]:
    """The times of every counted step.

    A step whose send has fewer NCCL operations than the others' is not whole: when its last byte
    left is not known. Nor is that of any step where the rank's sends lie in no message, or
    name no peer.
    """
    forms = Counter(message.form for _, message in counted)
    usual = forms.most_common(1)[0][0] if forms else None
    labelled = not any(mostly_unlabelled(host.rank) for host, _ in counted)
    in_messages = labelled and _stray_share(counted, edges) <= 1 - ENOUGH
    return [
        times_of(host, message, in_messages and message.form == usual) for host, message in counted
    ]


def _stray_share(counted: list[tuple[Host, Message]], edges: list[Edge]) -> float:
    """Of the last rank's NCCL sends to rank 0 in the time of its token sends, those in none."""
    sends = {id(send) for host, message in counted for send, _ in sends_of(host, message)}
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


def _spreads(rows: Sequence[tuple[int, ...]]) -> list[Spread]:
    """The spread of each column that all of one or more rows in ns have, us."""
    columns = min(map(len, rows))
    return [spread(column) for column in np.array([row[:columns] for row in rows]).T / 1000]


def _spread_ns(values: Sequence[int | None]) -> Spread | None:
    """The spread of the values that are known, in ns, us; None where none is."""
    return spread_if_any(np.array([value for value in values if value is not None]) / 1000)


def _blocking_calls(counted: list[tuple[Host, Message]]) -> list[BlockingCall]:
    """The CUDA calls that held the host in these sends, the longest in all first."""
    calls: Counter[str] = Counter()
    spent_ns: Counter[str] = Counter()
    for host, message in counted:
        for call in calls_between(host.rank, message.start_ns, message.end_ns):
            if call.end_ns - call.start_ns >= BLOCKED_NS:
                calls[call.name] += 1
                spent_ns[call.name] += min(call.end_ns, message.end_ns) - call.start_ns
    return [
        BlockingCall(name=name, calls=calls[name], total_us=round(ns / 1000))
        for name, ns in spent_ns.most_common()
    ]
