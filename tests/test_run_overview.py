"""What a run says it is about to do."""

from __future__ import annotations

import made_up_run

from repro_pp_graphs.run import overview
from repro_pp_graphs.run_record import Plan


def plan(**notes: list[str]) -> Plan:
    launches = (made_up_run.launch(case, case=case, notes=its) for case, its in notes.items())
    return made_up_run.plan(*launches)


def test_a_note_says_which_cases_it_is_of_where_not_of_all():
    even, uneven = "micro-batches of 4", "micro-batches of 3"
    assert overview.notes(plan(a=[even], b=[even])) == [even]
    assert overview.notes(plan(a=[even], b=[even], depth=[uneven])) == [
        f"a, b: {even}",
        f"depth: {uneven}",
    ]
