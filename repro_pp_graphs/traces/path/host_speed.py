"""The host factor of two launches: how many times as long the same Python took on the second host.

Measured on get_next_batch_to_run, which sglang annotates: in one release the same Python.
"""

from __future__ import annotations

import math

from repro_pp_graphs.traces.analysis_record import Analysis, PathCategory, RingPath
from repro_pp_graphs.traces.explain.step_path import ACCURATE
from repro_pp_graphs.traces.explain.words import BLOCKING, ms

# Hosts that take this many times as long for the same Python, or less, are equally fast.
ALIKE = 1.1
MOST_RANKS = 4  # named in the sentence


def factors(first: Analysis, second: Analysis) -> dict[str, float]:
    """By rank how many times as long the second launch's host took as the first's; ranks of which
    either is not known are left out."""
    lengths = {
        label: (first.ranks[label].next_batch_us, found.next_batch_us)
        for label, found in second.ranks.items()
        if label in first.ranks
    }
    return {label: there / here for label, (here, there) in lengths.items() if here and there}


def _means(a: str, first: Analysis, b: str, second: Analysis) -> str:
    """What that does to the difference between the two in host work and launching: makes a part of
    it, or, where the hosts that are slower on every rank have less of both, hides a part."""
    ratios = factors(first, second).values()
    slower = all(ratio > 1 / ALIKE for ratio in ratios)
    here, there = first.ring_path, second.ring_path
    if here and there and (slower or all(ratio < ALIKE for ratio in ratios)):
        more_us = _work_us(there) - _work_us(here)
        if (more_us < 0) == slower and abs(more_us) > ACCURATE * here.step_us.mean:
            slow, fast = (b, a) if slower else (a, b)
            return (
                f"The hosts of {slow} are the slower ones, and yet {fast} spends more in host work "
                "and launching: on equal hosts that difference may be larger."
            )
    return "A part of the difference in host work and launching may be that."


def _work_us(path: RingPath) -> float:
    names: tuple[PathCategory, ...] = ("host", "launch")
    parts = (path.categories.get(name) for name in names)
    return sum(part.mean for part in parts if part)


def unequal(a: str, first: Analysis, b: str, second: Analysis) -> str:
    """That the hosts of two launches were not equally fast, and the what-if that allows for it;
    empty where they were, or where it is not known."""
    times = factors(first, second)
    if all(1 / ALIKE <= ratio <= ALIKE for ratio in times.values()):
        return ""
    most = sorted(times.items(), key=lambda item: -abs(math.log(item[1])))[:MOST_RANKS]
    said = ", ".join(f"{ratio:.2f} times as long on PP{label}" for label, ratio in sorted(most))
    text = (
        "The hosts were not equally fast. sglang's get_next_batch_to_run, the same Python in every "
        f"launch of a release, took in {b}, against {a}: {said}. {_means(a, first, b, second)}"
    )
    if not (first.ring_path and first.ring_path.what_if and second.ring_path):
        return text
    mean = sum(times.values()) / len(times)
    # nearest to asynchronous sends is none; sends that are alike, or begin to block, stay
    to_asynchronous = first.sends in BLOCKING and second.sends == "asynchronous"
    change, more = ("send=0+", ", without sends that block,") if to_asynchronous else ("", "")
    return (
        f"{text} --what-if {change}host={mean:.2f} (the mean of these) tells how long {a}'s step "
        f"would be{more} on hosts as fast as {b}'s: compare that with {b}'s "
        f"{ms(second.ring_path.steady_us)} ms, its mean step without the first quarter of them."
    )
