"""Events at impossible times, found when all of a file are known: they are taken from its columns.

What a single event shows (no number, ts 0, a negative length) is left out where it is decoded.
"""

from __future__ import annotations

import re
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.rank_trace import Span
from repro_pp_graphs.traces.read.columns import GPU_COLUMNS, Columns
from repro_pp_graphs.traces.read.peers import P2PKernel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_LENGTH = "without a length"
EARLY = "that begin before the call that launched them"
OVERLONG = "that reach past the next ones of their stream or thread"
# How far the clocks of host and GPU may be apart: in real traces no kernel begins before its call.
CLOCKS_US = 1000.0
# Of the kernels with a call: where more are early, it is the clocks.
FEW = 0.1
# A kernel of another launch begins before the one before has ended (programmatic dependent launch);
# three do not. On the host calls of the driver are inside those of the runtime.
MOST_BEGUN = 3
# Spans of sglang's loop, none of which is inside another of its name.
SCHEDULER = re.compile(
    r"(scheduler\.)?(run_batch|recv_requests|get_next_batch_to_run|process_\w+|"
    r"(send|recv)_\w+_stage|step\[.*)$"
)


# Nothing runs on a GPU in much less than 1 us, and an operator of the host takes some 10: of so
# many kernels 95 % take longer than the one, of operators half take less than the other.
ENOUGH, SHORTEST_US, LONG_US = 100, 0.5, 700.0


@dataclass(slots=True)
class Sifted:
    """How many events were left out by reason; ts and length of each in ns."""

    reasons: Counter[str] = field(default_factory=Counter)
    times_ns: set[tuple[int, int]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def note(self, reason: str, ts_ns: int, length_ns: int) -> None:
        self.reasons[reason] += 1
        self.times_ns.add((ts_ns, length_ns))

    def with_length(self, dur: Floats) -> Bools:
        """Which of a thread's events say how long they are."""
        kept = dur >= 0
        if not kept.all():
            self.reasons[NO_LENGTH] += int(np.count_nonzero(~kept))
        return kept

    def in_turn(self, start: Ints, end: Ints, base_ns: int) -> Bools:
        """Which of a thread's calls, by start, are over before MOST_BEGUN others have begun."""
        overlong = np.zeros(len(start), dtype=bool)
        overlong[:-MOST_BEGUN] = end[:-MOST_BEGUN] > start[MOST_BEGUN:]
        overlong = _few(overlong)
        for at in np.flatnonzero(overlong).tolist():
            self.note(OVERLONG, int(start[at]) - base_ns, int(end[at] - start[at]))
        return ~overlong

    def scheduler(self, spans: list[Span], base_ns: int) -> list[Span]:
        """A thread's spans, by start, without the scheduler's that are not over before the next of
        their name begins."""
        follows = _Follows()
        last: dict[str, Span] = {}
        overlong: list[Span] = []
        for span in spans:
            if follows[span.name]:
                before = last.get(span.name, span)
                if before.end_ns > span.start_ns > before.start_ns:
                    overlong.append(before)
                last[span.name] = span
        if not overlong or len(overlong) > FEW * len(spans):
            return spans
        for span in overlong:
            self.note(OVERLONG, span.start_ns - base_ns, span.end_ns - span.start_ns)
        out = set(map(id, overlong))
        return [span for span in spans if id(span) not in out]


def other_unit(columns: Columns) -> str:
    """Why a file's times are in no microseconds, the unit of Chrome's format; empty where they may
    be."""
    kernels = np.array(columns.gpu[1::GPU_COLUMNS])
    edges = np.concatenate([np.array(each) for each in columns.operators.values()] or [kernels[:0]])
    kernels, operators = (each[each > 0] for each in (kernels, edges[1::2] - edges[::2]))
    which = ""
    if len(kernels) >= ENOUGH and np.percentile(kernels, 95) < SHORTEST_US:
        which = f"19 of 20 kernels take under {SHORTEST_US:g} us"
    elif len(operators) >= ENOUGH and np.median(operators) > LONG_US:
        which = f"half of its operators take over {LONG_US:g} us"
    return which and (
        f"{which}: ts and dur are in another unit than the microseconds of Chrome's trace "
        "format; left out: give the file as the profiler wrote it"
    )


def sift_gpu(columns: Columns, sifted: Sifted) -> None:
    """Take from the columns GPU work that begins before its call or reaches past what follows."""
    work = np.array(columns.gpu).reshape(-1, GPU_COLUMNS)
    p2p = _rows(columns.p2p)
    posted = np.array(columns.posted).reshape(-1, 2)
    early = _early(np.concatenate([work, p2p]), posted, sifted)
    drop_work, drop_p2p = np.zeros(len(work), dtype=bool), np.zeros(len(p2p), dtype=bool)
    found = {
        NO_LENGTH: (work[:, 1] < 0, p2p[:, 1] < 0),
        EARLY: (early[: len(work)], early[len(work) :]),
        OVERLONG: (_overlong(work), _overlong(p2p)),
    }
    for reason, (of_work, of_p2p) in found.items():
        for row in (*work[of_work & ~drop_work], *p2p[of_p2p & ~drop_p2p]):
            sifted.note(reason, round(row[0] * 1000), round(row[1] * 1000))
        drop_work |= of_work
        drop_p2p |= of_p2p
    if drop_work.any():
        columns.gpu = array("d", work[~drop_work].tobytes())
    if drop_p2p.any():
        columns.p2p = [k for k, out in zip(columns.p2p, drop_p2p, strict=True) if not out]


def _rows(kernels: list[P2PKernel]) -> Floats:
    """P2P kernels as rows of the same four numbers."""
    if not kernels:
        return np.empty((0, GPU_COLUMNS))
    ts, dur, pids, streams, launches, *_ = zip(*kernels, strict=True)
    places = list(map(hash, zip(pids, streams, strict=True)))
    return np.array([ts, dur, launches, places], dtype=np.float64).T


def _early(work: Floats, posted: Floats, sifted: Sifted) -> Bools:
    """Which GPU work begins before the call with its correlation does."""
    if not len(posted) or not len(work):
        return np.zeros(len(work), dtype=bool)
    calls = posted[np.argsort(posted[:, 0], kind="stable")]
    at = np.minimum(calls[:, 0].searchsorted(work[:, 2]), len(calls) - 1)
    known = (calls[at, 0] == work[:, 2]) & (work[:, 2] >= 0)
    early: Bools = known & (work[:, 0] < calls[at, 1] - CLOCKS_US)
    if early.sum() > FEW * known.sum():
        sifted.problems.append(
            f"{early.sum()} of {known.sum()} kernels and copies begin before the calls that "
            "launched them: the clocks of host and GPU do not agree"
        )
        return np.zeros(len(work), dtype=bool)
    return early


def _overlong(work: Floats) -> Bools:
    """Which GPU work lasts until MOST_BEGUN of later launches have begun on its stream."""
    stream = work[:, 3] // 2
    order = np.lexsort((work[:, 0], stream))
    stream, launch, start = stream[order], work[order, 2], work[order, 0]
    number = np.arange(len(work))
    launch = np.where(launch < 0, -1 - number, launch)  # unknown: one of its own
    edges = np.flatnonzero(np.diff(launch, prepend=np.nan, append=np.nan) != 0)
    ahead = np.repeat(edges[1:], np.diff(edges)) + MOST_BEGUN - 1
    there = ahead < len(work)
    ahead[~there] = 0
    found = np.zeros(len(work), dtype=bool)
    end = start + work[order, 1]
    found[order] = there & (stream[ahead] == stream) & (start[ahead] < end)
    return _few(found)


def _few(found: Bools) -> Bools:
    """None where it is many of them: then what runs side by side cannot be separated."""
    return found if np.count_nonzero(found) <= FEW * len(found) else np.zeros_like(found)


class _Follows(dict[str, bool]):
    """Whether spans of a name follow each other."""

    def __missing__(self, name: str) -> bool:
        self[name] = bool(SCHEDULER.match(name))
        return self[name]
