"""What a decode step waits for, from a launch on PP0 round the ring to the next one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from repro_pp_graphs.traces.analysis_record import PathCategory, PathPart, RingPath
from repro_pp_graphs.traces.explain.coverage import LEAST
from repro_pp_graphs.traces.path.followed import GOOD_ENOUGH, Followed
from repro_pp_graphs.traces.path.graph import Kind
from repro_pp_graphs.traces.path.parts import CATEGORIES, Sums
from repro_pp_graphs.traces.path.what_if import (
    IN_A_BATCH,
    NOT_OF_A_BATCH,
    OF_A_GPU,
    ON_A_CPU,
    REMEDIES,
    Change,
    WhatIf,
    change_of,
)
from repro_pp_graphs.traces.quantiles import spread
from repro_pp_graphs.traces.rank_trace import Case

Ints = npt.NDArray[np.int64]

SHARED = "ranks share a GPU: another may use what one saves"
MAY_SHARE = (
    "in the traces the GPU of several ranks has the same number; where they share one, another "
    "rank may use what one saves"
)
# Of the steps, how many at the begin are not counted when a change has to settle.
SETTLES = 0.25
# What is timed again for every case: categories that take no time at all.
ALWAYS_ASKED = ("send", "sync", "launch", "transfer")


def ring_path(case: Case, found: Followed, asked: dict[str, Change] | None = None) -> RingPath:
    """What the decode steps of a case wait for; `asked`: further changes to time it again with, by
    the names they have in `what_if`."""
    sums = Sums(found.ring, found.parts, len(found.steps))
    number = len(found.steps)
    us = sums.steps / 1000
    wholes = us.sum(axis=1)
    categories: dict[PathCategory, PathPart] = {
        name: PathPart(round(float(us[:, at].mean()), 3), _error(us[:, at], found.micro_batches))
        for at, name in enumerate(CATEGORIES)
    }
    labels = [case.label(line.host.rank) for line in found.ring.ranks]
    host = {f"PP{labels[at]} {name}": ns for (at, name), ns in sums.host.items()}
    on_path = {(part.step, part.rank) for part in found.parts if part.category == "graph"}
    not_known = sum(categories[name].mean for name in ("peer_late", "unexplained"))
    steady, again, predicted, unknown = _what_if(found, asked or {}, not_known)
    return RingPath(
        steps=number,
        steps_there=found.steps_there,
        left_out=dict(found.left_out),
        batches_there=found.batches_there,
        micro_batches=found.micro_batches,
        step_us=spread(wholes),
        step_error=_error(wholes, found.micro_batches),
        categories=categories,
        ranks={
            label: {
                name: round(float(ns) / 1000 / number, 3)
                for name, ns in zip(CATEGORIES, row.tolist(), strict=True)
                if ns
            }
            for label, row in zip(labels, sums.ranks, strict=True)
        },
        graph_steps={
            label: sum(rank == line.index for _, rank in on_path)
            for label, line in zip(labels, found.ring.ranks, strict=True)
        },
        host={
            name: round(ns / 1000 / number, 3)
            for name, ns in sorted(host.items(), key=lambda item: -item[1])
        },
        steady_us=steady,
        retimed_us=again,
        what_if=predicted,
        what_if_unknown=unknown,
    )


def _error(values: npt.NDArray[np.float64], overlapping: int) -> float | None:
    """The standard error of a mean over steps of which so many lie beside one another."""
    independent = len(values) // overlapping
    if independent < LEAST:
        return None
    return round(float(np.std(values, ddof=1)) / float(np.sqrt(independent)), 3)


def _what_if(
    found: Followed, asked: dict[str, Change], not_known_us: float
) -> tuple[float, float, dict[str, float], str]:
    """The steady step, the same timed again from usual latencies, and with each change, us; why
    there are none of these. `not_known_us`: of a step, what is unexplained."""
    timing = found.timing
    steady = _Steady(found)
    measured = steady.step_us(timing.time)
    again = steady.step_us(timing.retimed(timing.fitted, np.zeros_like(timing.rest)))
    if found.gpus:
        known = any(gpu.known for gpu in found.gpus)
        return measured, again, {}, SHARED if known else MAY_SHARE
    if reason := _waits_of_unknown_end(found):
        return measured, again, {}, reason
    if not_known_us > GOOD_ENOUGH * measured:
        return measured, again, {}, f"{not_known_us / measured:.0%} of the step is not explained"
    if abs(again - measured) > GOOD_ENOUGH * measured:
        way = "longer" if again > measured else "shorter"
        percent = 100 * abs(again / measured - 1)
        off = (
            "its calls and messages vary too much: computed from their median times a step comes "
            f"out {percent:.3g}% {way} than measured, and above {GOOD_ENOUGH:.0%} no estimate is "
            "made"
        )
        return measured, again, {}, off
    changes = {f"{name}=0": change_of(name, 0) for name in ALWAYS_ASKED}
    changes |= {name: change for name, change in REMEDIES.items() if name != "send"} | asked
    changes = {name: each for name, each in changes.items() if not not_of(found, name)}
    what_if = WhatIf(found.ring, timing)
    times = {name: steady.step_us(what_if.retimed(change)) for name, change in changes.items()}
    return measured, again, times, ""


def not_of(found: Followed, name: str) -> str:
    """Why a what-if of that name, one change or several joined by `+`, cannot be asked of these
    ranks; empty where it can."""
    asked = {part.partition("=")[0] for part in name.split("+")}
    if asked.intersection(OF_A_GPU) and not any(len(line.groups) for line in found.ring.ranks):
        return ON_A_CPU
    return IN_A_BATCH if asked.intersection(NOT_OF_A_BATCH) and _in_a_batch(found) else ""


def _in_a_batch(found: Followed) -> bool:
    """Whether the last rank's token ids go in one batch with what it receives."""
    sent = found.ring.ranks[-1].host.of("tokens", "send")
    return any(message.exchange for message in sent)


def _waits_of_unknown_end(found: Followed) -> str:
    """Whose messages wait for long for another end that is not paired: what would end these waits
    earlier is not known. Empty: nobody's."""
    timing, launch = found.timing, found.batches.launch
    begin, over = (int(timing.time[launch[at]]) for at in (found.steps[0][0], found.steps[-1][1]))
    ends = timing.time[timing.dst]
    alone = (timing.kind == Kind.ALONE) & (ends > begin) & (ends <= over)
    for line in found.ring.ranks:
        waited = int(timing.weight[alone & (timing.rank[timing.dst] == line.index)].sum())
        share = waited / (over - begin)
        if share > GOOD_ENOUGH:
            return (
                f"for {share:.0%} of the time PP{line.host.rank.pp} is in messages whose other end "
                "is not paired"
            )
    return ""


def steady_batches(batches: list[int], micro_batches: int) -> tuple[int, int]:
    """Of two batches or more the first and the last one that a steady step is measured between."""
    settled = min(int(SETTLES * len(batches)) + micro_batches, len(batches) - 2)
    return batches[max(settled, 0)], batches[-1]


class _Steady:
    """The step once a change has settled: by the slowest of PP0's launches and of the ends of each
    rank's batches. A host that nothing holds launches ahead of what its GPU can do."""

    def __init__(self, found: Followed) -> None:
        ordered = [batch for batch, _ in found.steps]
        self.first, self.last = steady_batches(ordered, found.micro_batches)
        self.per_step = found.micro_batches / (self.last - self.first) / 1000
        batches, ring = found.batches, found.ring
        self.pairs = [(batches.launch[self.first], batches.launch[self.last])]
        for line in ring.ranks:
            number = line.index
            ends = [
                self._end(
                    line.group_ends, batches.of_group[number], batches.same[at][number], found
                )
                for at in (self.first, self.last)
            ]
            if ends[0] >= 0 and ends[1] >= 0:
                self.pairs.append((ends[0], ends[1]))

    @staticmethod
    def _end(ends: list[int], of_group: Ints, batch: int, found: Followed) -> int:
        """The moment when the last work of a batch's longest group is over."""
        groups = np.flatnonzero(of_group == batch)
        if not len(groups):
            return -1
        time = found.timing.time
        begins = time[np.array(ends)[groups]]
        return int(np.array(ends)[groups[np.argmax(begins)]])

    def step_us(self, time: Ints) -> float:
        """A step's mean length with the moments at these times, us."""
        spans = [int(time[over] - time[begin]) for begin, over in self.pairs]
        return round(max(spans) * self.per_step, 3)
