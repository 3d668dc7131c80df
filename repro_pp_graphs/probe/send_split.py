"""Where the last rank's token send goes, from what both sides noted. All times in ms.

A send begins when its host call is entered. It is split, moment by moment, by the first of these
that holds: the rank's own step is still running on its device (own); the peer has not yet entered
its receive (late peer); the rest is transfer and host work. Two ends are looked at: `host`, when
the call returns, and `delivered`, when the last byte has been received; until then a peer is late
also while its own step, queued before the receive on the same stream, still runs.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from repro_pp_graphs.probe.journal import Journal

PARTS = ("own", "late_peer", "rest")


@dataclass(frozen=True, slots=True)
class TokenSend:
    """One token send, on one clock, ns: `own_ns` is when the rank's step was over."""

    turn: int
    entered_ns: int
    left_ns: int
    delivered_ns: int
    own_ns: int
    peer_ns: int  # the peer's host has entered its receive
    peer_device_ns: int  # and nothing is queued before it on the peer's device
    upload_ns: int  # in copying the metadata to the device; 0 where it does not go there
    exchange_ns: int  # in handing its size to the peer; 0 likewise

    def split(self, end_ns: int, peer_ns: int) -> tuple[float, float, float]:
        """Own step, late peer and rest of the time from `entered_ns` to `end_ns`, ms."""
        over_own = min(max(self.own_ns, self.entered_ns), end_ns)
        over_peer = min(max(peer_ns, over_own), end_ns)
        cuts = (self.entered_ns, over_own, over_peer, end_ns)
        own, late, rest = ((b - a) / 1e6 for a, b in itertools.pairwise(cuts))
        return own, late, rest


def token_sends(
    journals: list[Journal], clocks: list[int], first_turn: int, queued: int | None
) -> list[TokenSend]:
    """The last rank's token sends from `first_turn` on; `clocks` bring a rank's times to rank 0's.

    `queued`: so many turns after the sent one is the step that rank 0 queues just before the
    receive, on the same stream; None where they have streams of their own.

    Raises KeyError where a send has no receive: messages were lost.
    """
    last, first = journals[-1], journals[0]
    ahead, own_clock = clocks[0], clocks[-1]
    ends = {batch.turn: batch.gpu_end_ns for batch in last.batches}
    before = {b.turn: b.gpu_end_ns + ahead for b in first.batches} if queued is not None else {}
    recvs = {c.turn: c for c in first.calls if c.op == "recv" and c.what == "tokens"}
    return [
        TokenSend(
            turn=call.turn,
            entered_ns=call.entered_ns + own_clock,
            left_ns=call.left_ns + own_clock,
            delivered_ns=max(recvs[call.turn].gpu_end_ns + ahead, call.left_ns + own_clock),
            own_ns=ends[call.turn] + own_clock,
            peer_ns=recvs[call.turn].entered_ns + ahead,
            peer_device_ns=max(
                recvs[call.turn].entered_ns + ahead, before.get(call.turn + (queued or 0), 0)
            ),
            upload_ns=max(0, call.uploaded_ns - call.entered_ns),
            exchange_ns=max(0, call.met_ns - call.uploaded_ns) if call.uploaded_ns else 0,
        )
        for call in last.calls
        if call.op == "send" and call.what == "tokens" and call.turn >= first_turn
    ]


def explained(sends: list[TokenSend]) -> dict[str, dict[str, float]]:
    """Per end (`host`, `delivered`): median and p99 of the whole, mean of each part, ms."""
    ends = {
        "host": [(send, send.left_ns, send.peer_ns) for send in sends],
        "delivered": [(send, send.delivered_ns, send.peer_device_ns) for send in sends],
    }
    found = {}
    for name, rows in ends.items():
        whole = [(end - send.entered_ns) / 1e6 for send, end, _ in rows]
        parts = [send.split(end, peer) for send, end, peer in rows]
        found[name] = {
            **spread(whole),
            **{part: statistics.fmean(row[at] for row in parts) for at, part in enumerate(PARTS)},
        }
    return found


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, 99th percentile (nearest rank) and mean."""
    ordered = sorted(values)
    at = min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))
    return {
        "median": statistics.median(ordered),
        "p99": ordered[at],
        "mean": statistics.fmean(ordered),
    }


def pace(journal: Journal, slots: int, batch: int, first_turn: int) -> dict[str, Any]:
    """Rank 0's pace from `first_turn` on: ms a decode step (all micro-batches once), tokens/s.

    Both count from the token ids that came just before; so a single step is enough.
    """
    by_turn = journal.arrivals
    counted = [turn for turn in by_turn if turn >= first_turn]
    steps = [(by_turn[turn] - by_turn[turn - slots]) / 1e6 for turn in counted]
    begin_ns = max(ns for turn, ns in by_turn.items() if turn < first_turn)
    span_s = (max(by_turn.values()) - begin_ns) / 1e9
    return {"step_ms": spread(steps), "tokens_per_s": len(counted) * batch / span_s}


def launch_ms(journal: Journal, first_turn: int) -> dict[str, float]:
    """What launching a decode step takes on a rank's host."""
    return spread((b.left_ns - b.entered_ns) / 1e6 for b in journal.batches if b.turn >= first_turn)


def device_ms(journal: Journal, first_turn: int) -> dict[str, float]:
    """What a decode step takes on a rank's device, from the first kernel's turn to the last's."""
    rows = [b.gpu_end_ns - b.gpu_begin_ns for b in journal.batches if b.turn >= first_turn]
    return spread(each / 1e6 for each in rows)
