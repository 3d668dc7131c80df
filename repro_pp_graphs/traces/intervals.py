"""Sets of time as arrays of shape (n, 2): sorted, disjoint [start, end) in ns."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.model import Intervals, intervals


def merged(raw: Intervals) -> Intervals:
    """Union of possibly overlapping intervals; empty ones are dropped."""
    kept = raw[raw[:, 1] > raw[:, 0]]
    if not len(kept):
        return intervals([])
    kept = kept[np.argsort(kept[:, 0], kind="stable")]
    reach = np.maximum.accumulate(kept[:, 1])
    opens = np.concatenate(([True], kept[1:, 0] > reach[:-1]))
    closes = np.concatenate((opens[1:], [True]))
    return np.stack([kept[opens, 0], reach[closes]], axis=1)


def clip(times: Intervals, start: int, end: int) -> Intervals:
    """The part of a set inside [start, end)."""
    first = int(np.searchsorted(times[:, 1], start, side="right"))
    last = int(np.searchsorted(times[:, 0], end, side="left"))
    inside = times[first:last].copy()
    if len(inside):  # sorted and disjoint: only the outermost can reach out
        inside[0, 0] = max(start, inside[0, 0])
        inside[-1, 1] = min(end, inside[-1, 1])
    return inside


def total(times: Intervals) -> int:
    """Length of a set, ns."""
    return int(np.sum(times[:, 1] - times[:, 0]))


def minus(left: Intervals, right: Intervals) -> Intervals:
    """What of left is not in right."""
    kept: list[tuple[int, int]] = []
    for start, end in left.tolist():
        at = start
        for hole_start, hole_end in clip(right, start, end).tolist():
            kept.append((at, hole_start))
            at = hole_end
        kept.append((at, end))
    found = intervals(kept)
    return found[found[:, 1] > found[:, 0]]


def both(left: Intervals, right: Intervals) -> Intervals:
    """What is in left and in right."""
    parts = [clip(right, start, end) for start, end in left.tolist()]
    return np.concatenate([intervals([]), *parts])


def partition(span: Intervals, claims: dict[str, Intervals], rest: str) -> dict[str, int]:
    """Share a span out, ns: each claim takes what the ones before it left; adds up to the span."""
    shares: dict[str, int] = {}
    for name, claim in claims.items():
        shares[name] = total(both(span, claim))
        span = minus(span, claim)
    return {**shares, rest: total(span)}
