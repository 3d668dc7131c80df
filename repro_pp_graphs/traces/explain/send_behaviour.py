"""How a trace's token sends behave."""

from __future__ import annotations

from collections import Counter

from repro_pp_graphs.traces.analysis_record import Manner
from repro_pp_graphs.traces.explain.coverage import ENOUGH
from repro_pp_graphs.traces.explain.host import Host
from repro_pp_graphs.traces.explain.messages import BYTES, Message
from repro_pp_graphs.traces.rank_trace import RankTrace


def manner(host: Host) -> Manner:
    """How most token sends of a last rank behave, from what those seen whole are made of."""
    if mostly_unlabelled(host.rank):
        return "unknown"
    found = Counter(_of(message) for message in host.of("tokens", "send") if not message.gap)
    return found.most_common(1)[0][0] if found else "unknown"


def mostly_unlabelled(rank: RankTrace) -> bool:
    """Whether many of a rank's P2P kernels name no peer: what its sends are made of, and when they
    were over, is not known then."""
    return rank.unlabelled_p2p > (1 - ENOUGH) * len(rank.p2p_kernels)


def _of(message: Message) -> Manner:
    if message.exchange:
        return "batched"
    types = [op.dtype for part in message.operations for op in part.p2p if op.backend == "nccl"]
    if BYTES in types:
        return "on_device"
    if any(part.asynchronous for part in message.operations):
        return "asynchronous"
    gloo, nccl = message.form
    return "synchronous" if gloo and (nccl or gloo > 1) else "unknown"
