"""Launches whose host was not like the others', or was taken up by others whatever the rest of the
run had: by facts that no case decides.

A fact of a launch is unlike the others' where it lies beyond their median, on the side that slows a
launch down, by more than FAR times their spread (1.4826 times the median absolute deviation) and by
more than a least amount that matters. docs/verdict.md has the false alarms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

LEAST_OTHERS = 3  # launches to be unlike of
FAR = 8.0  # of few launches the spread is often seen too small


class Fact(NamedTuple):
    """A fact of a launch's host, and from which difference on it matters."""

    name: str
    least: float  # as it is; where relative: a share of the others' median
    relative: bool = False
    lower: bool = False  # low values slow a launch down, not high ones
    text: str = ""  # with the value and the others' median
    alone: float | None = None  # from which on it matters by itself, in every launch if need be


FACTS = (
    Fact(
        "others",
        0.2,
        text="other processes took {:.1%} of the cores' time ({:.1%} in the others)",
        alone=0.2,
    ),
    Fact(
        "steal",
        0.03,
        text="the hypervisor took {:.1%} of the cores' time ({:.1%} in the others)",
        alone=0.05,
    ),
    Fact("waited", 0.03, text="a rank waited {:.1%} of the time for a core ({:.1%} in the others)"),
    Fact("clock_mhz", 0.1, True, True, "its cores ran at {:.0f} MHz ({:.0f} in the others)"),
    Fact("loop_ms", 0.2, True, text="a fixed loop of Python took {:.1f} ms ({:.1f} in the others)"),
)


def unlike(launches: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Of each launch what of its host was unlike the others', in words; empty where nothing was, or
    where fewer than LEAST_OTHERS others have the fact."""
    found: list[list[str]] = [[] for _ in launches]
    for fact in FACTS:
        for at, one in enumerate(launches):
            others = [
                each[fact.name] for n, each in enumerate(launches) if n != at and fact.name in each
            ]
            if (
                fact.name in one
                and len(others) >= LEAST_OTHERS
                and _far(one[fact.name], others, fact)
            ):
                found[at].append(fact.text.format(one[fact.name], median(others)))
    return found


def taken(launch: Mapping[str, float]) -> list[str]:
    """What took the host's cores from a launch, whatever the other launches had: in words."""
    return [
        fact.text.partition(" (")[0].format(launch[fact.name])
        for fact in FACTS
        if fact.alone is not None and launch.get(fact.name, 0.0) >= fact.alone
    ]


def _far(value: float, others: Sequence[float], fact: Fact) -> bool:
    middle = median(others)
    spread = 1.4826 * median(abs(each - middle) for each in others)
    least = fact.least * middle if fact.relative else fact.least
    beyond = middle - value if fact.lower else value - middle
    return beyond > max(FAR * spread, least)
