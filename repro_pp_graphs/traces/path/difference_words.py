"""Why one case's decode step is longer than another's, in a sentence and as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence

from repro_pp_graphs.traces.analysis_record import RingPath
from repro_pp_graphs.traces.explain.step_path import SHOWN, TITLES
from repro_pp_graphs.traces.explain.words import column, the_rest, wrapped
from repro_pp_graphs.traces.path.difference import Difference, Differences, differences

# Of the largest part, what a part must be to be named in the sentence; so many are.
NAMED = 0.1
MOST_NAMED = 5
# The label of a run's case begins so.
LETTERED = re.compile(r"\bCASE_([A-Z])(?:_|$)")
OVER = {
    "launches": "over launches",
    "steps": "over the steps of the profiled launches, which say nothing of how launches differ",
}


def sentence(a: str, b: str, found: Differences) -> str:
    """By how much a step of B is longer than one of A, and in what."""
    step = found.step
    text = f"A decode step of {b} is {longer(step)} than one of {a}"
    if step.low is None or step.high is None:
        text += " (of too few steps for an interval)"
    else:
        text += f" (95 %: {step.low / 1e3:+.2f} to {step.high / 1e3:+.2f} ms"
        text += ")" if is_sure(step) else ": which is longer cannot be told)"
    parts = sorted(found.categories.items(), key=lambda part: -abs(part[1].mean))
    least = NAMED * abs(parts[0][1].mean)
    named = [
        (name, part) for name, part in parts[:MOST_NAMED] if part.mean and abs(part.mean) >= least
    ]
    said = [
        f"{TITLES[name]} {signed(part.mean)}" + ("" if is_sure(part) else " (may be none)")
        for name, part in named
    ]
    rest = step.mean - sum(part.mean for _, part in named)
    said += the_rest(rest, step.mean, "+") if said else []
    text += f" while profiled: {', '.join(said)}" if said else " while profiled"
    return f"{text}. The interval is {OVER[found.over]}."


def longer(step: Difference) -> str:
    """`0.74 ms longer`"""
    return f"{abs(step.mean) / 1e3:.2f} ms {'longer' if step.mean > 0 else 'shorter'}"


def signed(us: float) -> str:
    """`+4.96 ms`"""
    return f"{us / 1e3:+.2f} ms"


def is_sure(part: Difference) -> bool:
    """Whether the interval leaves out that there is no difference."""
    return part.low is not None and part.high is not None and not part.low <= 0 <= part.high


def half_width(part: Difference) -> str:
    """Half of the interval, ms; `-` where there is none."""
    return "-" if part.high is None else f"{(part.high - part.mean) / 1e3:.2f}"


def lines(a: str, a_path: RingPath, b: str, b_path: RingPath) -> list[str]:
    """The differences of two launches' steps as a table of 80 columns.

    Its columns are headed by the letters of the cases, as in CASE_A_decode_graphs, where their
    names have two; else 1st and 2nd.
    """
    found = differences([a_path], [b_path])
    first, second = marks(a, b)
    rows = wrapped(f"{b} ({second}) less {a} ({first})")
    less = f"{second} less {first}"
    rows.append(f"{'a decode step waits for, ms':<28}{first:>9}{second:>9}{less:>14}{'+-':>8}")
    for name, title in TITLES.items():
        part = found.categories[name]
        us = [path.categories[name].mean for path in (a_path, b_path)]
        if max(us) >= SHOWN * max(a_path.step_us.mean, b_path.step_us.mean):
            rows.append(_row(title, us, part))
    rows.append(
        _row("the whole step", [path.step_us.mean for path in (a_path, b_path)], found.step)
    )
    return [*rows, *wrapped(f"(+-: 95 % interval {OVER[found.over]})", "")]


def marks(a: str, b: str) -> tuple[str, str]:
    """What two cases are called for short: by their letters, else 1st and 2nd."""
    first, second = letter(a), letter(b)
    return (first, second) if first and second and first != second else ("1st", "2nd")


def letter(case: str) -> str:
    """The letter of a run's case, `A` of CASE_A_decode_graphs; empty for another name."""
    found = LETTERED.search(case)
    return found[1] if found else ""


def _row(title: str, us: Sequence[float], part: Difference) -> str:
    half = None if part.high is None else part.high - part.mean
    cells = "".join(column(each, 9) for each in us)
    return f"{title:<28}{cells}{column(part.mean, 14, '+')}{column(half, 8)}"
