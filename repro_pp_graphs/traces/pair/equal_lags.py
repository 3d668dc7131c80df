"""What the ends of a channel's operations say of its offset, whatever the clocks show.

The lag of a pair is the end of its recv less the end of its send. An NCCL send that waits for its
recv, and a recv that waits for its send, end together: at the true offset the lags of many pairs
are equal to a few us, clocks apart or not; at all others they vary with the steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.pair.edge import Pairing
from repro_pp_graphs.traces.pair.offset import offsets, spacing_ns
from repro_pp_graphs.traces.pair.pairing import pair_queues
from repro_pp_graphs.traces.pair.queues import SLACK_NS, Ints, Queues, Run
from repro_pp_graphs.traces.quantiles import median
from repro_pp_graphs.traces.rank_trace import Backend

# At the true offset so many pairs, and this share of all, have equal lags.
FEWEST_EQUAL = 5
EQUAL_SHARE = 0.3
# No other offset has half as many of them.
CLEARLY_MORE = 2.0
# Steps of which so many take the same time say nothing.
ALL_EQUAL = 0.9
# A lag this small is that of clocks that agree, rather than of clocks a whole turn apart; the
# second where another offset could be the true one.
AGREE_NS, AGREE_UNSURE_NS = 25_000, 2_000
# Offsets looked at on both sides of the one that the clocks show.
OFFSETS_NEAR = 16
SAMPLE = 256


class Lag(NamedTuple):
    """The equal lags of a channel: its true offset, if sure, and what separates the clocks."""

    offset: int
    lag_ns: int  # the receiver's lead, plus how long after its send a recv ends
    sure: bool = False  # no other offset can be the true one
    varied: bool = False  # at no other offset are lags equal: they are not of equally long waits

    @property
    def agrees(self) -> bool:
        """Whether it is that of clocks that agree."""
        return abs(self.lag_ns) <= (AGREE_NS if self.sure else AGREE_UNSURE_NS)


class Reading(NamedTuple):
    """What a channel says by itself, before it is known what other edges say of the clocks."""

    pairing: Pairing
    lag: Lag | None = None


class _Equal(NamedTuple):
    """An offset and the lag that most of its pairs have, `pairs` of them, a share of all."""

    share: float
    offset: int
    lag_ns: int
    pairs: int

    @property
    def clear(self) -> bool:
        return self.share >= EQUAL_SHARE and self.pairs >= FEWEST_EQUAL


def read_alone(queues: Queues, backend: Backend, apart_ns: int, batched: bool = False) -> Reading:
    """Pair a channel by its own times; its ranks' clocks may be `apart_ns` apart; `batched`: its
    operations are in kernels with others, and so do not end together.

    Where its equal lags are surely of another offset than the causal one, with the clocks they say;
    they count for nothing where no possible clocks make that offset causal.
    """
    causal = pair_queues(queues)
    if batched or backend == "gloo":  # gloo's operations do not end with the transfer
        return Reading(causal)
    near = offsets(queues)
    if causal.offset is not None:
        near = range(causal.offset - OFFSETS_NEAR, causal.offset + OFFSETS_NEAR + 1)
    lag = equal_lags(queues, causal.run, near, SLACK_NS[backend], apart_ns)
    if lag is None or not lag.sure or lag.offset == causal.offset:
        return Reading(causal, lag)
    moved = pair_queues(queues, lag.lag_ns)
    possible = abs(lag.lag_ns) <= max(apart_ns, spacing_ns(queues))
    return Reading(moved, lag) if moved.offset == lag.offset and possible else Reading(causal)


def equal_lags(
    queues: Queues, run: Run | None, near: Iterable[int], slack_ns: int, apart_ns: int
) -> Lag | None:
    """The offset, of those near, whose lags are equal: to a fifth of the slack, or to twice it.

    Looked at: the sends of the run (all where there is none) at each offset. It is sure when only
    one offset has equal lags, or only one of those that clocks up to `apart_ns` apart, and recvs as
    much later, can explain. Otherwise the offset with most of them, or the run's own if the narrow
    window shows none. None where no lags are equal, or where the steps are all alike.
    """
    sends = np.arange(run.first, run.last) if run else np.arange(len(queues.send_earliest_ns))
    sends = sends[:: max(1, len(sends) // SAMPLE)]
    windows_ns = slack_ns // 5, 2 * slack_ns
    lags_at = {offset: _lags(queues, sends, offset) for offset in near}
    lags_at = {offset: lags for offset, lags in lags_at.items() if _can_compete(lags, windows_ns)}
    unsure = None
    for window_ns in windows_ns:
        found = sorted((_equal(at, lags, window_ns) for at, lags in lags_at.items()), reverse=True)
        possible = [each for each in found if -apart_ns <= each.lag_ns <= 2 * apart_ns]
        for rows in (found, possible):
            second = rows[1].share if len(rows) > 1 else 0.0
            if rows and rows[0].clear and rows[0].share >= CLEARLY_MORE * second:
                return Lag(rows[0].offset, rows[0].lag_ns, sure=True, varied=rows is found)
        if window_ns == windows_ns[0]:
            if len(possible) > 1 and possible[1].share >= ALL_EQUAL:
                return None
            unsure = next((each for each in found if each.clear), None)
        elif run and not unsure:
            unsure = next((e for e in found if e.offset == run.offset and e.clear), None)
    return Lag(unsure.offset, unsure.lag_ns) if unsure else None


def _lags(queues: Queues, sends: Ints, offset: int) -> Ints:
    """The lags of pairs of one shape at an offset, sorted; none where half have another shape, as
    behind a missing event."""
    low, high = sends.searchsorted((-offset, len(queues.received_ns) - offset)).tolist()
    facing = sends[low:high]
    at = facing[queues.agree(facing, facing + offset)]
    if 2 * len(at) < len(sends):
        return at[:0]
    lags = queues.received_ns[at + offset] - queues.send_end_ns[at]
    lags.sort()
    return lags


def _can_compete(lags: Ints, windows_ns: tuple[int, int]) -> bool:
    """False when fewer than half the required lags are equal: such an offset cannot compete."""
    need = int(max(FEWEST_EQUAL, EQUAL_SHARE * len(lags))) // 2
    return bool((lags[need - 1 :] - lags[: len(lags) - need + 1] <= windows_ns[-1]).any())


def _equal(offset: int, lags: Ints, window_ns: int) -> _Equal:
    """How many of the sorted lags lie within the window around the most of them."""
    ends = lags.searchsorted(lags + window_ns, side="right")
    within = ends - np.arange(len(lags))
    first = int(within.argmax())
    pairs = int(within[first])
    return _Equal(pairs / len(lags), offset, int(median(lags[first : ends[first]])), pairs)
