"""What differs between two runs besides their figures, and whose hosts were not quiet."""

from __future__ import annotations

from statistics import median

import msgspec

from repro_pp_graphs.report.case_differences import settings_of
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.report.summary import remarks
from repro_pp_graphs.report.told_apart import told_apart
from repro_pp_graphs.run.launch.micro_batches import NOT_AS_ASKED

MOST_NAMED = 8
UNSETTLED = {  # how a warning of the client begins: what is said of the launches that have it
    "the server had not settled": "the server had not settled when it was measured",
    "the measured pass took far longer than": (
        "the measured pass took far longer than the warm-up (the client's warning says of what)"
    ),
}
LOOPS_ALIKE = 1.1  # a core's speed, one run's over the other's


def launches_of(source: Source, case: str) -> list[Launched]:
    """The launches of a case by its name."""
    return [each for each in source.launches if each.summary.case == case]


def sentences(one: Source, other: Source, cases: list[str]) -> list[str]:
    """What else differs between two runs: reasons why numbers may. `cases`: those of both."""
    found = []
    for name, key in (("GPUs", "GPUs"), ("driver", "driver"), ("torch", "torch"), ("NCCL", "NCCL")):
        pair = [source.environment.get(key, "") for source in (one, other)]
        if all(pair) and pair[0] != pair[1]:
            found.append(f"{name}: {pair[0]} in run 1, {pair[1]} in run 2")
    by_python = [_loops(source, cases) for source in (one, other)]
    pythons = {python for found in by_python for python in found}
    loops = [median(its) for found in by_python for its in found.values()]
    if len(pythons) == 1 and len(loops) == 2 and max(loops) > LOOPS_ALIKE * min(loops):
        found.append(
            f"speed of a core: a fixed loop of Python took {loops[0]:.1f} ms in run 1, "
            f"{loops[1]:.1f} in run 2 (medians over the launches of these cases): by that alone "
            "what hosts do, launching without graphs and sending, would take longer in run "
            f"{1 + (loops[1] > loops[0])}"
        )
    for case in cases:
        first, second = (settings_of(launches_of(source, case)) for source in (one, other))
        names = [
            name
            for name in dict.fromkeys([*first, *second])
            if first.get(name, "-") != second.get(name, "-") and _comparable(name, first, second)
        ]
        if names:
            more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
            shown = [
                f"{name} {' -> '.join(told_apart([first.get(name, '-'), second.get(name, '-')]))}"
                for name in names[:MOST_NAMED]
            ]
            found.append(f"{case}: {', '.join(shown)}{more}")
    return found


def _loops(source: Source, cases: list[str]) -> dict[str, list[float]]:
    """How long the fixed loop took in each launch of the cases, ms, by the Python that ran it."""
    found: dict[str, list[float]] = {}
    for launch in source.launches:
        host = launch.summary.host if launch.summary.case in cases else None
        if host and host.loop_ms and host.loop_python:
            found.setdefault(host.loop_python, []).append(host.loop_ms)
    return found


def _comparable(name: str, first: dict[str, str], second: dict[str, str]) -> bool:
    """An argument that one release does not report says nothing; a shim or variable does."""
    return (name in first and name in second) or name.startswith("shim ") or name.endswith(")")


def of_launches(mark: str, source: Source, cases: list[str]) -> list[str]:
    """What a run's summary says of launches of these cases that bears on their figures: hosts that
    had other work or were not like the others, servers that had not settled, measured passes that
    compiled, other micro-batches; a sentence each. `mark`: which run it is."""
    known = msgspec.to_builtins(source.summary)["launches"] if source.summary else []
    launches = [each for each in known if each["case"] in cases]
    found = remarks.hosts(launches)
    for begin, said in UNSETTLED.items():
        unsettled = [
            each["label"]
            for each in launches
            if any(text.startswith(begin) for text in each["client_warnings"])
        ]
        found += [f"{', '.join(unsettled)}: {said}"] if unsettled else []
    found += [text for text in remarks.of_launches(launches) if NOT_AS_ASKED in text]
    return [f"Run {mark}: {text}" for text in found]
