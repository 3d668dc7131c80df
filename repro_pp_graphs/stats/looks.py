"""At which level a comparison is tested: planned looks share 5 %, an unplanned one gets 1 %.

Early looks, with three quarters of the rounds that were asked for, share 1 %: a run that was cut
short, its machine taken away, can still say what is plain. The planned look keeps its level then;
how often all together are wrong: benchmarks/sim_verdict.py, docs/verdict.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

LEVEL, UNPLANNED = 0.05, 0.01
MORE = "the run's own command with --rounds"  # what to run where launches are too few
LEAST_LOOK = 2  # rounds: after one there is nothing to look at
LEAST_EARLY, EARLY_SHARE = 3, 0.75  # rounds, and of those that were asked for


class Look(NamedTuple):
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
        return _now(Look(UNPLANNED, why), later, done)
    alpha = LEVEL / max(1, len(ends))
    rounds = "1 round was" if ends[-1] == 1 else f"{ends[-1]} rounds were"
    why = f"{rounds} asked for at the start: level {alpha:g}"
    if len(ends) > 1:
        why = (
            f"looks were planned after {' and '.join(map(str, ends))} rounds: level {alpha:g} each"
        )
    return _now(Look(alpha, why), ends, done)


def _now(planned: Look, ends: Sequence[int], done: int) -> Look:
    """The planned look, or what may be said before it."""
    if done in ends:
        return planned
    coming = next((end for end in ends if end > done), ends[-1])
    measured = f"{done} of {coming} rounds are measured"
    first = max(LEAST_EARLY, math.ceil(EARLY_SHARE * coming))
    if first <= done < coming:
        alpha = UNPLANNED / (coming - first)
        return Look(alpha, f"{measured}: an early look, level {alpha:.2g}")
    withheld = (
        f"{measured}: a test now would be one look more than planned; --resume measures the rest"
    )
    return Look(planned.alpha, planned.why, withheld)
