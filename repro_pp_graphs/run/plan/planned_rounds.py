"""How many rounds a run has now, and at which numbers of rounds its results are tested."""

from __future__ import annotations

import itertools
from typing import NamedTuple

from repro_pp_graphs.run.plan.order import whole_rounds
from repro_pp_graphs.run_record import Look, Plan


class LooksError(ValueError):
    """Rounds that a run cannot have; the message says what to do."""


class Rounds(NamedTuple):
    """The rounds of a run up to its next look, all its looks, and what to say of that."""

    now: int
    looks: list[Look]
    notes: list[str]


def begin(asked: list[int] | None, arms: int) -> Rounds:
    """Of a new run; 1 round where nothing is asked for."""
    totals, notes = _totals(asked or [1], arms)
    return Rounds(totals[0], [Look(total, True) for total in totals], notes)


def go_on(asked: list[int] | None, arms: int, earlier: Plan, complete: bool) -> Rounds:
    """Of a run that --resume goes on with; `complete`: every launch that it has is measured.

    More rounds than it has looks for extend it. That counts as planned where no look so far had
    more than one launch a case: nothing could be tested then. Raises LooksError.
    """
    reached = max(launch.round for launch in earlier.launches)
    looks = earlier.looks or [Look(reached, True)]
    totals, notes = _totals(asked, arms) if asked else ([looks[-1].rounds], [])
    if totals[-1] < reached:
        raise LooksError(
            f"--rounds {totals[-1]}: the run has {reached} already; leave --rounds out, or ask "
            "for more"
        )
    more = [total for total in totals if total > looks[-1].rounds]
    looks = [*looks, *(Look(total, reached == 1) for total in more)]
    if complete or more:
        ahead = [look.rounds for look in looks if reached < look.rounds <= totals[-1]]
        reached = ahead[0] if ahead else reached
    return Rounds(reached, looks, notes)


def _totals(asked: list[int], arms: int) -> tuple[list[int], list[str]]:
    """The rounds up to each look, blocks completed, and a note where that makes them more."""
    wanted = list(itertools.accumulate(asked))
    if len(wanted) == 1:
        totals = [whole_rounds(wanted[0], arms)]
    else:
        totals = [-(-total // arms) * arms for total in wanted]
    totals = list(dict.fromkeys(totals))
    if totals == wanted:
        return totals, []
    said, block = "+".join(map(str, asked)), "ABBA: 2 rounds" if arms == 2 else f"{arms} rounds"
    made = "+".join(str(b - a) for a, b in itertools.pairwise([0, *totals]))
    return totals, [
        f"--rounds {said} is made {made}: drift over time cancels in whole blocks only ({block})"
    ]
