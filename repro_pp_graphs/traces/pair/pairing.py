"""Which recv took which send: the pairs of a channel at given clocks.

Pairs lie at the best offset (offset.py). Where an event is missing in the middle the offset changes
there: a pair that an alternative reading explains clearly better is left out, and what lies before,
between and after the pairs that stay is paired on its own.
"""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.pair.edge import Pairing
from repro_pp_graphs.traces.pair.offset import best_run, run_delay_ns, spacing_ns
from repro_pp_graphs.traces.pair.queues import Bools, Ints, Queues, Run, gaps, stretches
from repro_pp_graphs.traces.quantiles import Floats, median, quantile

# A pair is doubtful if an alternative is at least 20 % closer to the usual delay: a pair that is k
# turns late has one that is k - 1 turns late.
CLEARLY_CLOSER = 0.8
# Where events are missing, fewer pairs in a row are not believed.
SHORTEST_PIECE = 4
# How many operations beside a pair must fit an alternative to it.
NEIGHBOURS = 4
AFTER = np.arange(1, NEIGHBOURS + 1)[:, np.newaxis]
BEFORE = -AFTER
ANY = np.full(NEIGHBOURS, -1)


def pair_queues(queues: Queues, ahead_ns: int = 0) -> Pairing:
    """Pair queues that hold an operation each; the receiver's clock is `ahead_ns` ahead."""
    runs, reason = _runs(queues.with_clock_ahead(ahead_ns))
    if not runs:
        return Pairing.none(reason)
    lengths: dict[int, int] = {}
    for run in runs:
        lengths[run.offset] = lengths.get(run.offset, 0) + run.length
    offset = max(lengths, key=lengths.__getitem__)
    return Pairing(
        sorted((i, i + run.offset) for run in runs for i in range(run.first, run.last)),
        offset,
        run=max((run for run in runs if run.offset == offset), key=lambda run: run.length),
        clock_ns=ahead_ns,
    )


def _runs(queues: Queues) -> tuple[list[Run], str]:
    """The best offset's runs, then those of what it leaves before, between and after; why none."""
    best, reason = best_run(queues)
    if best is None:
        return [], reason
    facing, _ = queues.facing(best.offset)
    missing = best.length < facing.stop - facing.start
    delay, alternative = _delays(queues, best)
    if missing and not _believable(delay, alternative, 0.0, spacing_ns(queues)):
        return [], "what fits is too short or too uncertain where events are missing"
    kept = _sure_runs(best, delay, alternative, missing)
    if not kept:
        return (
            [],
            "which receive belongs to which send cannot be told: another pairing fits as well",
        )
    found = [*kept, *_between(queues, kept, _typical_ns(delay, alternative))]
    return _prompt(queues, found), ""


def _between(queues: Queues, kept: list[Run], typical_ns: float) -> list[Run]:
    """The runs of what lies before, between and after runs: as late as these, to be believed."""
    found: list[Run] = []
    for sends, recvs in gaps(queues, kept):
        part = queues.part(sends, recvs)
        if min(len(part.send_earliest_ns), len(part.received_ns)) >= SHORTEST_PIECE:
            shift = recvs.start - sends.start
            found += [
                Run(run.offset + shift, run.first + sends.start, run.last + sends.start)
                for run in _runs_of_part(part, typical_ns)
            ]
    return found


def _runs_of_part(queues: Queues, typical_ns: float) -> list[Run]:
    """The runs of a part of the queues, beside which an event is missing."""
    best, _ = best_run(queues)
    if best is None:
        return []
    delay, alternative = _delays(queues, best)
    if not _believable(delay, alternative, typical_ns, typical_ns / 2):
        return []
    kept = _sure_runs(best, delay, alternative, missing=True)
    return [*kept, *_between(queues, kept, typical_ns)] if kept else []


def _delays(queues: Queues, run: Run) -> tuple[Ints, Floats]:
    """From send to recv of each pair of a run, and of the best alternative to it, ns."""
    recvs = slice(run.first + run.offset, run.last + run.offset)
    return queues.delay(slice(run.first, run.last), recvs), alternative_delay(queues, run)


def _believable(delay: Ints, alternative: Floats, expected_ns: float, off_ns: float) -> bool:
    """Whether a run beside a missing event is long enough, mostly without alternatives, and as late
    as expected."""
    sure = int(np.sum(~np.isfinite(alternative)))
    if len(delay) < SHORTEST_PIECE or 2 * sure < len(delay):
        return False
    return abs(median(delay) - expected_ns) <= off_ns


def _without_alternative(delay: Ints, alternative: Floats) -> Ints:
    """The delays of the pairs to which there is no alternative; of all where each has one."""
    sure = ~np.isfinite(alternative)
    return delay[sure] if np.any(sure) else delay


def _typical_ns(delay: Ints, alternative: Floats) -> float:
    return median(_without_alternative(delay, alternative))


def _sure_runs(best: Run, delay: Ints, alternative: Floats, missing: bool) -> list[Run]:
    """What is left of a run without its doubtful pairs: later than most, and with an alternative
    that is clearly closer to the usual delay."""
    usual = _without_alternative(delay, alternative)
    typical, late = median(usual), quantile(usual, 0.95)
    closer = np.abs(alternative - typical) < CLEARLY_CLOSER * (delay - typical)
    doubtful = (delay > late) & closer
    if missing or np.any(doubtful):
        # beside a missing event only a pair without an alternative is sure
        sure = ~np.isfinite(alternative)
        doubtful |= ~_between_sure(sure, stretches(~doubtful, Run(0, 0, len(delay))))
    kept = stretches(~doubtful, best)
    if np.any(doubtful):
        kept = [run for run in kept if run.length >= SHORTEST_PIECE]
    return kept


def _between_sure(sure: Bools, kept: list[Run]) -> Bools:
    """Which pairs of each stretch lie from its first to its last sure one."""
    inside = np.zeros_like(sure)
    for run in kept:
        at = np.flatnonzero(sure[run.first : run.last])
        if len(at):
            inside[run.first + at[0] : run.first + at[-1] + 1] = True
    return inside


def _prompt(queues: Queues, runs: list[Run]) -> list[Run]:
    """The runs that are not a message later than the promptest of the long ones."""
    longest = max(run.length for run in runs)
    delays = [run_delay_ns(queues, run) for run in runs]
    long = [ns for ns, run in zip(delays, runs, strict=True) if 4 * run.length >= longest]
    limit = min(long) + spacing_ns(queues)
    return [run for run, delay in zip(runs, delays, strict=True) if delay <= limit]


def alternative_delay(queues: Queues, run: Run) -> Floats:
    """Delay (ns) of the best alternative to each pair of a run; -inf where there is none.

    Alternatives: the recv of that shape before, if it ended after the send began; the send after,
    if it began before the recv ended. The shapes up to the next pairs on one side must fit it too,
    as a missing event moves all that follow or all before. A pair without an alternative is sure.
    """
    sends = np.arange(run.first, run.last)
    recvs = sends + run.offset
    ours = queues.delay(sends, recvs)
    # out of the queues' ends any shape fits
    send_shape = np.concatenate([ANY, queues.send_shape, ANY])
    recv_shape = np.concatenate([ANY, queues.recv_shape, ANY])
    best = np.full(len(sends), -np.inf)
    before = _neighbour(queues.recv_shape, -1)[recvs]
    after = _neighbour(queues.send_shape, 1)[sends]
    for other_sends, other_recvs in ((sends, before), (after, recvs)):
        delay = queues.delay(other_sends, other_recvs)
        exists = (other_sends >= 0) & (other_recvs >= 0)
        at = np.flatnonzero(exists & (delay >= 0) & (delay < ours) & (delay > best))
        ours_at, theirs_at = other_sends[at] + NEIGHBOURS, other_recvs[at] + NEIGHBOURS
        fits = np.zeros(len(at), dtype=np.bool_)
        for beside in (BEFORE, AFTER):
            a, b = send_shape[ours_at + beside], recv_shape[theirs_at + beside]
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
