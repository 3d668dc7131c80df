"""Clocks so far apart that pairs look acausal: told by lags that are all alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from repro_pp_graphs.traces.queues import Queues, Run

# Lags of this share of pairs alike tell the true offset; looked at in so many pairs.
ALIKE_SHARE = 0.3
SAMPLE = 512
FEWEST = 8


def clock_ahead(queues: Queues, chosen: Run | None, offsets: Iterable[int], slack_ns: int) -> int:
    """How far the receiver's clock is ahead of the sender's (ns), where the chosen run is wrong.

    A send that waits for its recv, and a recv that waits for its send, end together. So at the true
    offset the lags of many pairs are the same but for a few us, whatever the clocks show; at others
    they vary with the steps. An offset with such lags, alone with them, that only the clocks make
    look acausal says that they are apart by the lag. Nothing is concluded where events are missing.
    """
    ours = _alike(queues, chosen.offset, slack_ns) if chosen else (0.0, 0)
    if ours is None or ours[0] >= ALIKE_SHARE:
        return 0
    found = [each for offset in offsets if (each := _alike(queues, offset, slack_ns))]
    (share, lag_ns), (second, _) = sorted([(0.0, 0), (0.0, 0), *found])[:-3:-1]
    certain = share >= ALIKE_SHARE and share >= 2 * max(ours[0], second)
    return lag_ns if certain and lag_ns < -slack_ns else 0


def _alike(queues: Queues, offset: int, slack_ns: int) -> tuple[float, int] | None:
    """The share of an offset's pairs whose lags lie within twice the slack, and that lag in ns.

    None where the pairs are too few or their shapes do not all agree.
    """
    sends, recvs = queues.overlap(offset)
    count = sends.stop - sends.start
    if count < FEWEST or not queues.same_shape(offset).all():
        return None
    few = slice(None, None, max(1, count // SAMPLE))
    lags = np.sort((queues.r_end[recvs] - queues.s_over[sends])[few])
    ends = np.searchsorted(lags, lags + 2 * slack_ns, side="right")
    within = ends - np.arange(len(lags))
    at = int(np.argmax(within))
    return float(within[at]) / len(lags), int(np.median(lags[at : ends[at]]))
