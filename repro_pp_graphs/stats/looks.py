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


def look(planned: Sequence[int], later: Sequence[int], done: int) -> Look:
    """The look after `done` whole rounds.

    `planned`: at how many rounds a look was asked for at the start: [4], or [4, 8] for
    `--rounds 4+4`; `later`: up to how many the run was extended afterwards. After one round nothing
    is looked at: what is asked for then is as good as asked for at the start.
    """
    ends = [rounds for rounds in planned if rounds >= LEAST_LOOK]
    if not ends:
        ends, later = list(later)[:1] or list(planned), list(later)[1:]
    if later and done > ends[-1]:
        why = f"rounds were added after a look, unplanned: level {UNPLANNED:g}"
        return Look(UNPLANNED, why, _withheld(later, done))
    alpha = LEVEL / max(1, len(ends))
    rounds = "1 round was" if ends[-1] == 1 else f"{ends[-1]} rounds were"
    why = f"{rounds} asked for at the start: level {alpha:g}"
    if len(ends) > 1:
        why = f"looks were planned after {_listed(ends)} rounds: level {alpha:g} each"
    return Look(alpha, why, _withheld(ends, done))


def _listed(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers))


def _withheld(ends: Sequence[int], done: int) -> str:
    """Why a test now would be one more look; empty where it is a planned one."""
    if done in ends:
        return ""
    coming = next((end for end in ends if end > done), ends[-1])
    return (
        f"{done} of {coming} rounds are measured: a test now would be one look more than planned; "
        "--resume measures the rest"
    )
