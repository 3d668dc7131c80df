"""Pairs by the messages' numbers, where the trace has them, and what order and times said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from repro_pp_graphs.traces.pair.edge import Agreement, Channel, Edge, Pairing
from repro_pp_graphs.traces.pair.queues import Run
from repro_pp_graphs.traces.rank_trace import P2POp

ENOUGH = 0.95  # share of a channel's sends, and of its recvs, that must be numbered

Key = tuple[str, int]


def _by_key(ops: Sequence[P2POp]) -> dict[Key, int] | None:
    """Each operation's index by group and number; None where too few have one, or two the same."""
    found = {(op.group, op.number): at for at, op in enumerate(ops) if op.number}
    numbered = sum(op.number > 0 for op in ops)
    enough = numbered >= ENOUGH * len(ops) and numbered > 0
    return found if enough and len(found) == numbered else None


def _longest_run(pairs: Sequence[tuple[int, int]], offset: int) -> Run:
    """The longest unbroken run of pairs at the offset; there is one at least."""
    best = first = last = -1
    longest = Run(offset, 0, 0)
    for send, recv in pairs:
        if recv - send != offset:
            continue
        first = first if send == last else send
        last = send + 1
        if last - first > best:
            best, longest = last - first, Run(offset, first, last)
    return longest


def by_number(channel: Channel) -> Channel:
    """The channel with its pairs by number; as it is where they are not known by it."""
    ours, theirs = _by_key(channel.sends), _by_key(channel.recvs)
    if ours is None or theirs is None:
        return channel
    pairs = sorted((at, theirs[key]) for key, at in ours.items() if key in theirs)
    if not pairs:
        return channel
    guessed = dict(channel.pairing.pairs)
    exact = dict(pairs)
    senders = {recv: send for send, recv in pairs}
    same = sum(guessed.get(send) == recv for send, recv in pairs)
    other = sum(
        exact.get(send, recv) != recv or senders.get(recv, send) != send
        for send, recv in guessed.items()
    )
    offset = Counter(recv - send for send, recv in pairs).most_common(1)[0][0]
    clock_ns = 0 if other else channel.pairing.clock_ns
    pairing = Pairing(pairs, offset, run=_longest_run(pairs, offset), clock_ns=clock_ns)
    return replace(channel, pairing=pairing, agreement=Agreement(len(pairs), same, other))


def number_pairs(edge: Edge) -> Edge:
    """The edge with every channel's pairs by number that can be."""
    return replace(edge, channels=[by_number(channel) for channel in edge.channels])
