"""Sets of time: sorted, disjoint [start, end) in ns. Large ones are arrays of shape (n, 2), the few
intervals of one step are lists, which are faster there."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import numpy as np
import numpy.typing as npt

Intervals = npt.NDArray[np.int64]  # shape (n, 2): start, end
Ranges = list[tuple[int, int]]


def intervals(pairs: Iterable[tuple[int, int]]) -> Intervals:
    """Pairs of (start, end) as an array of shape (n, 2), also for n = 0."""
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def merged(raw: Intervals) -> Intervals:
    """Union of possibly overlapping intervals; empty ones are dropped."""
    kept = raw[raw[:, 1] > raw[:, 0]]
    if not len(kept):
        return intervals([])
    start = kept[:, 0]
    if not (start[1:] >= start[:-1]).all():
        kept = kept[start.argsort(kind="stable")]
        start = kept[:, 0]
    reach = np.maximum.accumulate(kept[:, 1])
    edges = np.ones(len(kept) + 1, dtype=bool)  # where one of the union begins: before, one ends
    np.greater(start[1:], reach[:-1], out=edges[1:-1])
    return _columns(start[edges[:-1]], reach[edges[1:]])


def _columns(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Intervals:
    """Intervals by their starts and ends; np.stack takes three times as long for a few."""
    found = np.empty((len(start), 2), dtype=np.int64)
    found[:, 0], found[:, 1] = start, end
    return found


def clip(times: Intervals, start: int, end: int) -> Intervals:
    """The part of a set inside [start, end)."""
    edges = times.reshape(-1)  # of disjoint intervals in their order: sorted
    first = int(edges.searchsorted(start, side="right")) // 2
    last = (int(edges.searchsorted(end)) + 1) // 2
    inside = times[first:last].copy()
    if len(inside):  # only the outermost can reach out
        inside[0, 0] = max(start, inside[0, 0])
        inside[-1, 1] = min(end, inside[-1, 1])
    return inside


def ranges(times: Intervals) -> Ranges:
    """A set as a list."""
    return [(start, end) for start, end in times.tolist()]


def total(times: Intervals) -> int:
    """Length of a set, ns."""
    return int((times[:, 1] - times[:, 0]).sum())


def length(times: Ranges) -> int:
    """Length of a set, ns."""
    return sum(end - start for start, end in times)


def taken(span: Ranges, claim: Ranges) -> tuple[int, Ranges]:
    """How much of a span a claim covers, ns, and what it leaves."""
    left: Ranges = []
    at = 0
    for begin, end in span:
        start = begin
        while at < len(claim) and claim[at][1] <= start:
            at += 1
        for low, high in islice(claim, at, None):
            if low >= end:
                break
            if low > start:
                left.append((start, low))
            start = min(high, end)
        if start < end:
            left.append((start, end))
    return length(span) - length(left), left


def partition(span: Ranges, claims: dict[str, Ranges], rest: str) -> dict[str, int]:
    """Share a span out, ns: each claim takes what the ones before it left; adds up to the span."""
    shares: dict[str, int] = {}
    for name, claim in claims.items():
        shares[name], span = taken(span, claim)
    return {**shares, rest: length(span)}


def common(times: Intervals, claim: Intervals) -> Intervals:
    """The part of a set that another covers too."""
    starts, ends = claim[:, 0], claim[:, 1]
    first = ends.searchsorted(times[:, 0], side="right")
    counts = np.maximum(starts.searchsorted(times[:, 1]) - first, 0)
    ours = np.arange(len(times)).repeat(counts)
    theirs = np.arange(len(ours)) + (first - counts.cumsum() + counts).repeat(counts)
    return _columns(
        np.maximum(times[:, 0].take(ours), starts.take(theirs)),
        np.minimum(times[:, 1].take(ours), ends.take(theirs)),
    )


def outside(times: Intervals, claim: Intervals) -> Intervals:
    """The part of a set that another does not cover."""
    if not len(times) or not len(claim):
        return times
    low, high = min(times[0, 0], claim[0, 0]), max(times[-1, 1], claim[-1, 1])
    gaps = np.concatenate([[low], claim.reshape(-1), [high]]).reshape(-1, 2)
    return common(times, gaps)


def lengths_between(times: Intervals, moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How much of a set lies between each two of the moments (sorted), ns; one fewer than those."""
    before = lengths_before(times, moments)
    found: npt.NDArray[np.int64] = before[1:] - before[:-1]
    return found


def lengths_before(times: Intervals, moments: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How much of a set lies before each of the moments, ns."""
    if not len(times):
        return np.zeros(len(moments), dtype=np.int64)
    edges = times.reshape(-1)
    before = np.zeros(len(times) + 1, dtype=np.int64)
    (times[:, 1] - times[:, 0]).cumsum(out=before[1:])
    at = edges.searchsorted(moments)
    found: npt.NDArray[np.int64] = before.take(at >> 1)
    inside = (at & 1).nonzero()[0]  # of an interval: it has begun, and not ended
    found[inside] += moments[inside] - edges[at[inside] - 1]
    return found
