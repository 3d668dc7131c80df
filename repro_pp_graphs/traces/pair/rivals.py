"""Other readings of a pair: what a missing event would have made of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.pair.queues import Ints, Queues, Run

# How many operations beside a pair must fit another reading of it.
NEIGHBOURS = 4
AFTER = np.arange(1, NEIGHBOURS + 1)[:, np.newaxis]
BEFORE = -AFTER
ANY = np.full(NEIGHBOURS, -1)


def rival_delay(queues: Queues, run: Run) -> npt.NDArray[np.float64]:
    """Delay (ns) of the best other reading of each pair; -inf where there is none.

    Other readings: the recv of that shape before, if it ended after the send began; the send after,
    if it began before the recv ended. The shapes up to the next pairs on one side must fit it too,
    as a missing event moves all that follow or all before. A pair without a rival is sure.
    """
    sends = np.arange(run.first, run.last)
    recvs = sends + run.offset
    ours = queues.r_end[recvs] - queues.s_start[sends]
    # out of the queues' ends any shape fits
    s_shape = np.concatenate([ANY, queues.s_shape, ANY])
    r_shape = np.concatenate([ANY, queues.r_shape, ANY])
    best = np.full(len(sends), -np.inf)
    before, after = _neighbour(queues.r_shape, -1)[recvs], _neighbour(queues.s_shape, 1)[sends]
    for other_sends, other_recvs in ((sends, before), (after, recvs)):
        delay = queues.r_end[other_recvs] - queues.s_start[other_sends]
        exists = (other_sends >= 0) & (other_recvs >= 0)
        at = np.flatnonzero(exists & (delay >= 0) & (delay < ours) & (delay > best))
        ours_at, theirs_at = other_sends[at] + NEIGHBOURS, other_recvs[at] + NEIGHBOURS
        fits = np.zeros(len(at), dtype=np.bool_)
        for beside in (BEFORE, AFTER):
            a, b = s_shape[ours_at + beside], r_shape[theirs_at + beside]
            fits |= ((a == b) | (a < 0) | (b < 0)).all(axis=0)
        best[at[fits]] = delay[at[fits]]
    return best


def _neighbour(shapes: Ints, way: int) -> Ints:
    """Index of the next (way 1) or previous (-1) operation of the same shape, -1: none."""
    found = np.full(len(shapes), -1, dtype=np.int64)
    order = np.argsort(shapes, kind="stable")
    first, second = order[:-1], order[1:]
    same = shapes[first] == shapes[second]
    here, there = (first, second) if way > 0 else (second, first)
    found[here[same]] = there[same]
    return found
