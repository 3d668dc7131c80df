"""Clocks that are apart: the true offset told by lags that are all alike, or doubted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from repro_pp_graphs.traces.quantiles import median
from repro_pp_graphs.traces.queues import Ints, Queues, Run, edges

# The lags of so many pairs, of this share of all, lie together at the true offset.
FEWEST_ALIKE = 8
ALIKE_SHARE = 0.3
# No other offset has half as many of them.
CLEARLY_MORE = 2.0
SAMPLE = 512
# So many pairs in a row that fit another offset are a doubt.
STRETCH = 4


class Told(NamedTuple):
    """The offset that lags tell, and the lag there: how far the receiver's clock is ahead, ns."""

    offset: int
    lag_ns: int


def is_plain(queues: Queues, offset: int, slack_ns: int) -> bool:
    """Whether so many lags are alike at the offset that no other can have clearly more."""
    own = _alike(queues, offset, slack_ns)
    return own is not None and own.share * CLEARLY_MORE >= 1


class _Alike(NamedTuple):
    share: float
    pairs: int
    lag_ns: int


def told_by_lags(queues: Queues, offsets: Iterable[int], slack_ns: int) -> Told | None:
    """The offset whose lags are alike, where it is alone with them.

    A send that waits for its recv, and a recv that waits for its send, end together. So at the true
    offset the lags of many pairs are the same but for a few us, whatever the clocks show; at others
    they vary with the steps. Nothing is told where events are missing, where steps are all alike,
    or where hardly a pair ends together.
    """
    found = [(offset, each) for offset in offsets if (each := _alike(queues, offset, slack_ns))]
    if not found:
        return None
    found.sort(key=lambda row: row[1].share, reverse=True)
    (offset, best), others = found[0], found[1:]
    second = others[0][1].share if others else 0.0
    if best.pairs < FEWEST_ALIKE or best.share < max(ALIKE_SHARE, CLEARLY_MORE * second):
        return None
    return Told(offset, best.lag_ns)


def _alike(queues: Queues, offset: int, slack_ns: int) -> _Alike | None:
    """How many of an offset's pairs have lags within twice the slack of each other.

    None where the pairs are too few or their shapes do not all agree.
    """
    sends, recvs = queues.overlap(offset)
    count = sends.stop - sends.start
    if count < STRETCH or not queues.same_shape(offset).all():
        return None
    few = slice(None, None, max(1, count // SAMPLE))
    lags = np.sort((queues.r_end[recvs] - queues.s_over[sends])[few])
    ends = np.searchsorted(lags, lags + 2 * slack_ns, side="right")
    within = ends - np.arange(len(lags))
    at = int(np.argmax(within))
    pairs = int(within[at])
    return _Alike(pairs / len(lags), pairs, int(median(lags[at : ends[at]])))


def rival_offset(queues: Queues, run: Run, apart_ns: int, reach: int) -> int | None:
    """Another offset that would hold for a stretch of the run if clocks were apart_ns apart.

    The receiver's clock may be behind, then an earlier offset only looks acausal; or ahead, then
    the run only looks causal. Looked for up to `reach` offsets away.
    """
    sends = np.arange(run.first, run.last)
    early = queues.r_end[sends + run.offset] - queues.s_start[sends] < apart_ns
    for offset in range(run.offset - 1, run.offset - 1 - reach, -1):
        if _holds_for_a_stretch(queues, sends, offset, apart_ns):
            return offset
    for offset in range(run.offset + 1, run.offset + 1 + reach):
        if _holds_for_a_stretch(queues, sends[early], offset, apart_ns):
            return offset
    return None


def _holds_for_a_stretch(queues: Queues, sends: Ints, offset: int, apart_ns: int) -> bool:
    facing = sends[(sends + offset >= 0) & (sends + offset < len(queues.r_end))]
    ours, theirs = queues.s_shape[facing], queues.r_shape[facing + offset]
    delay = queues.r_end[facing + offset] - queues.s_start[facing]
    holds = ((ours == theirs) | (ours < 0) | (theirs < 0)) & (delay >= -apart_ns)
    bounds = edges(holds)
    return bool(len(bounds)) and int(np.max(bounds[1::2] - bounds[::2])) >= min(
        STRETCH, max(1, len(sends) // 2)
    )
