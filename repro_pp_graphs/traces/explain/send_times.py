"""The times of one token send: of the host in it, and until it is delivered."""

from __future__ import annotations

from typing import NamedTuple

from repro_pp_graphs.traces.analysis_record import DeliverySplit
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import Message
from repro_pp_graphs.traces.explain.operations import operator_around
from repro_pp_graphs.traces.explain.waits import CAUSES, flight
from repro_pp_graphs.traces.pair.edge import sent_ns
from repro_pp_graphs.traces.rank_trace import P2POp
from repro_pp_graphs.traces.time_sets import clip, length, partition, ranges, taken


class Delivery(NamedTuple):
    """The time from a token send's begin until it is delivered, ns; fields as in the structs."""

    portion: tuple[int, ...]  # Portion
    split: tuple[int, ...]  # DeliverySplit
    until_received_ns: int | None  # None where not every send in it is paired
    earliest_ns: int | None = None  # the time at least, of a send in a kernel with others


class SendTimes(NamedTuple):
    """One token send, ns; the tuples have the order of the fields of the structs."""

    portion: tuple[int, ...]  # Portion
    split: tuple[int, ...]  # HostSplit
    upload_ns: int | None  # None where no copy begins it
    delivery: Delivery | None  # None where it is not known when the last byte has left


def sends_of(host: Host, message: Message) -> list[tuple[P2POp, P2POp | None]]:
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


def _portion_of(host: Host, start_ns: int, end_ns: int) -> tuple[int, ...]:
    """Length of a span, of it under the rank's graphs, and without its compute kernels, ns; where
    it is known to share its GPU, also without those of any rank there."""
    whole = [(start_ns, end_ns)]
    graph, compute = (
        ranges(clip(times, start_ns, end_ns)) for times in (host.work.graph, host.work.compute)
    )
    own = end_ns - start_ns, taken(whole, graph)[0], length(taken(whole, compute)[1])
    if host.compute_of_all is None:
        return own
    together = ranges(clip(host.compute_of_all, start_ns, end_ns))
    return *own, length(taken(whole, together)[1])


def _host_split(host: Host, message: Message) -> tuple[int, ...]:
    """What the host does in a token send, ns: its waits by cause, and the rest."""
    start, end = message.start_ns, message.end_ns
    waits = [length(ranges(clip(host.waits[cause], start, end))) for cause in CAUSES]
    return *waits, end - start - sum(waits)


def _upload_ns(host: Host, message: Message) -> int | None:
    """How long the copy of the metadata that begins a token send takes; None without one."""
    if message.upload is None:
        return None
    _, over = operator_around(host.rank, message.upload.start_ns)
    return max(over, message.upload.end_ns) - message.start_ns


def _delivery(
    host: Host, message: Message, sends: list[tuple[P2POp, P2POp | None]], delivered: int
) -> Delivery:
    """The time from a token send's begin until it is delivered."""
    start = message.start_ns
    under_way = host.with_batches([send for send, _ in sends])
    early, moving = map(ranges, flight(under_way, host.other))
    graph, compute = (
        ranges(clip(times, start, delivered)) for times in (host.graph, host.work.compute)
    )
    split = partition(
        [(start, delivered)],
        {"peer_late": early, "transfer": moving, "own_graph": graph, "own_compute": compute},
        "other",
    )
    arrivals = [recv.end_ns for _, recv in sends if recv]
    arrivals = arrivals if len(arrivals) == len(sends) else []  # the last may be one not paired
    return Delivery(
        _portion_of(host, start, delivered),
        tuple(split[name] for name in DeliverySplit.__struct_fields__),
        max(arrivals) - start if arrivals else None,
        _earliest_ns(message, sends),
    )


def _earliest_ns(message: Message, sends: list[tuple[P2POp, P2POp | None]]) -> int | None:
    """The time until a token send is delivered at least, where it is one of several operations of
    a kernel: it is over anywhere in that; None where it has kernels of its own."""
    begun = [send.start_ns for send, _ in sends if send.batch and send.backend == "nccl"]
    return max(message.end_ns, *begun) - message.start_ns if begun else None


def times_of(host: Host, message: Message, whole: bool) -> SendTimes:
    """The times of a token send; `whole`: it is known of all its operations."""
    sends = sends_of(host, message)
    moment = _delivered_ns(message, sends) if whole else None
    return SendTimes(
        _portion_of(host, message.start_ns, message.end_ns),
        _host_split(host, message),
        _upload_ns(host, message),
        None if moment is None else _delivery(host, message, sends, moment),
    )
