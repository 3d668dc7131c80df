"""At which level a comparison is tested: planned looks share 5 %, an unplanned one gets 1 %."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEVEL, UNPLANNED = 0.05, 0.01
LEAST_LOOK = 2  # rounds: after one there is nothing to look at


@dataclass(frozen=True)
class Look:
    """The two-sided level of this look, why it is so, and what stands against testing now."""

    alpha: float
    why: str
    withheld: str = ""


def look(planned: Sequence[int], extended: Sequence[int], done: int) -> Look:
    """The look after `done` whole rounds.

    `planned`: rounds asked for at the start, by look: [4], or [4, 4] for `--rounds 4+4`;
    `extended`: rounds added later. A first look of one round was none: nothing was tested.
    """
    planned, extended = list(planned), list(extended)
    if sum(planned) < LEAST_LOOK:
        planned, extended = [sum(planned) + sum(extended)], []
    ends = [sum(planned[: place + 1]) for place in range(len(planned))]
    ends = [end for end in ends if end >= LEAST_LOOK] or ends[-1:]
    if extended and done > ends[-1]:
        later = [ends[-1] + sum(extended[: place + 1]) for place in range(len(extended))]
        why = f"rounds were added after a look that was not planned: level {UNPLANNED:g}"
        return Look(UNPLANNED, why, _withheld(later, done))
    alpha = LEVEL / len(ends)
    why = f"{ends[-1]} rounds were asked for at the start: level {alpha:g}"
    if len(ends) > 1:
        after = ", ".join(map(str, ends))
        why = f"{len(ends)} looks were planned, after {after} rounds: level {alpha:g} each"
    return Look(alpha, why, _withheld(ends, done))


def _withheld(ends: Sequence[int], done: int) -> str:
    """Why a test now would be one more look; empty where it is a planned one."""
    if done in ends:
        return ""
    coming = next((end for end in ends if end > done), ends[-1])
    return f"{done} of {coming} rounds are whole: a test now would be a look that nobody planned"
