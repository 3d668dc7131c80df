"""What the ends of a channel's operations tell of its offset, whatever the clocks show.

An NCCL send that waits for its recv, and a recv that waits for its send, end together. So at the
true offset the lags of many pairs are the same but for a few us, clocks apart or not; at all others
they vary with the steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.pair.queues import Ints, Queues, Run
from repro_pp_graphs.traces.quantiles import median

# The lags of so many pairs, of this share of all, lie together at the true offset.
FEWEST_ALIKE = 5
ALIKE_SHARE = 0.3
# No other offset has half as many of them.
CLEARLY_MORE = 2.0
# Steps of which so many take the same time tell nothing.
ALL_ALIKE = 0.9
# Lags this small are those of clocks that agree, rather than of clocks a whole turn apart.
AGREE_NS, AGREE_UNSURE_NS = 25_000, 2_000
SAMPLE = 256


class Witness(NamedTuple):
    """An offset at which lags are alike, and that lag: how far the receiver's clock is ahead, ns,
    or how long after its send a recv ends. `sure`: no other offset can be the true one; `varied`:
    at no other offset are lags alike, so they are none of waits that are always as long."""

    offset: int
    lag_ns: int
    sure: bool = False
    varied: bool = False

    @property
    def agrees(self) -> bool:
        """Whether the lag is that of clocks that agree."""
        return abs(self.lag_ns) <= (AGREE_NS if self.sure else AGREE_UNSURE_NS)


class _Alike(NamedTuple):
    share: float
    offset: int
    lag_ns: int
    pairs: int


def witness(
    queues: Queues, run: Run | None, offsets: Iterable[int], slack_ns: int, apart_ns: int
) -> Witness | None:
    """The offset whose lags are alike, to a fifth of the slack or else to twice the slack.

    Looked at: the sends of the run (all where there is none) at each offset. Sure is an offset
    alone with such lags, or alone among those that clocks up to `apart_ns` apart, and recvs as much
    later, can explain. Where none is, that with most, or the run's own if the narrow window shows
    none. None where lags are not alike, or where the steps are all alike.
    """
    sends = np.arange(run.first, run.last) if run else np.arange(len(queues.s_start))
    sends = sends[:: max(1, len(sends) // SAMPLE)]
    windows_ns = slack_ns // 5, 2 * slack_ns
    lags_at = {offset: _lags(queues, sends, offset) for offset in offsets}
    alike = {offset: lags for offset, lags in lags_at.items() if _any_alike(lags, windows_ns[-1])}
    unsure = None
    for window_ns in windows_ns:
        found = sorted(
            (_alike(offset, lags, window_ns) for offset, lags in alike.items()), reverse=True
        )
        near = [each for each in found if -apart_ns <= each.lag_ns <= 2 * apart_ns]
        for rows in (found, near):
            second = rows[1].share if len(rows) > 1 else 0.0
            if rows and _clear(rows[0]) and rows[0].share >= CLEARLY_MORE * second:
                return Witness(rows[0].offset, rows[0].lag_ns, sure=True, varied=rows is found)
        if window_ns == windows_ns[0]:
            if len(near) > 1 and near[1].share >= ALL_ALIKE:
                return None
            unsure = next(filter(_clear, found), None)
        elif run and not unsure:
            unsure = next((e for e in found if e.offset == run.offset and _clear(e)), None)
    return Witness(unsure.offset, unsure.lag_ns) if unsure else None


def _clear(each: _Alike) -> bool:
    return each.share >= ALIKE_SHARE and each.pairs >= FEWEST_ALIKE


def _lags(queues: Queues, sends: Ints, offset: int) -> Ints:
    """The lags of pairs of one shape at an offset, in their order; none where half have another, as
    behind a missing event."""
    facing = sends[(sends >= -offset) & (sends < len(queues.r_end) - offset)]
    at = facing[queues.agree(facing, facing + offset)]
    if 2 * len(at) < len(sends):
        return at[:0]
    return np.sort(queues.r_end[at + offset] - queues.s_over[at])


def _any_alike(lags: Ints, window_ns: int) -> bool:
    """Whether half as many lags as it takes lie within the window: else no rival to any."""
    need = int(max(FEWEST_ALIKE, ALIKE_SHARE * len(lags))) // 2
    return bool((lags[need - 1 :] - lags[: len(lags) - need + 1] <= window_ns).any())


def _alike(offset: int, lags: Ints, window_ns: int) -> _Alike:
    """How many of the lags lie within the window around the most of them."""
    ends = np.searchsorted(lags, lags + window_ns, side="right")
    within = ends - np.arange(len(lags))
    first = int(within.argmax())
    pairs = int(within[first])
    return _Alike(pairs / len(lags), offset, int(median(lags[first : ends[first]])), pairs)
