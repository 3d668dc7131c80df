"""Other readings of a pair: what a missing event would have made of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.queues import Ints, Queues, Run

# How many operations beside a pair must fit another reading of it.
NEIGHBOURS = 4


def rival_delay(queues: Queues, run: Run) -> npt.NDArray[np.float64]:
    """Delay (ns) of the best other reading of each pair; -inf where there is none.

    Other readings: the recv of that shape before, if it ended after the send began; the send after,
    if it began before the recv ended. The shapes up to the next pairs on one side must fit it too,
    as a missing event moves all that follow or all before. A pair without a rival is sure.
    """
    sends = np.arange(run.first, run.last)
    recvs = sends + run.offset
    before = _neighbour(queues.r_shape, -1)[recvs]
    after = _neighbour(queues.s_shape, 1)[sends]
    ours = queues.r_end[recvs] - queues.s_start[sends]
    best = np.full(len(sends), -np.inf)
    for other_sends, other_recvs, exists in (
        (sends, before, before >= 0),
        (after, recvs, after >= 0),
    ):
        delay = queues.r_end[other_recvs] - queues.s_start[other_sends]
        fits = exists & (delay >= 0) & (delay < ours)
        for at in np.flatnonzero(fits & (delay > best)).tolist():
            if _shapes_fit_beside(queues, int(other_sends[at]), int(other_recvs[at])):
                best[at] = delay[at]
    return best


def _shapes_fit_beside(queues: Queues, send: int, recv: int) -> bool:
    """Whether the shapes of the operations just before, or just after, fit a pair."""
    for step in (-1, 1):
        ours, theirs = _beside(queues.s_shape, send, step), _beside(queues.r_shape, recv, step)
        if all(a == b or a < 0 or b < 0 for a, b in zip(ours, theirs, strict=False)):
            return True
    return False


def _beside(shapes: Ints, at: int, step: int) -> list[int]:
    """The shapes of the next few operations in one direction."""
    found = (
        shapes[at + 1 : at + 1 + NEIGHBOURS] if step > 0 else shapes[max(0, at - NEIGHBOURS) : at]
    )
    return [int(shape) for shape in found[::step]]


def _neighbour(shapes: Ints, step: int) -> Ints:
    """Index of the next (step 1) or previous (-1) operation of the same shape, -1: none."""
    found = np.full(len(shapes), -1, dtype=np.int64)
    seen: dict[int, int] = {}
    order = range(len(shapes)) if step < 0 else reversed(range(len(shapes)))
    codes = shapes.tolist()
    for at in order:
        found[at] = seen.get(codes[at], -1)
        seen[codes[at]] = at
    return found
