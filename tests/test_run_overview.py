"""What a run says it is about to do."""

from __future__ import annotations

import made_up_run
import pytest

from repro_pp_graphs.run import overview
from repro_pp_graphs.run.plan import options
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


@pytest.mark.parametrize(
    ("python", "more", "found"),
    [
        ("/here/.venv-cpu/bin/python", [], "found:  the sglang in .venv-cpu, made here"),
        ("/here/.venv-0.5.2/bin/python", ["--not-made", "0.5.2", "--dry-run"], None),
        ("/theirs/bin/python", ["--found-by", "$PYTHON"], "found:  the sglang in /theirs/bin/pyth"),
    ],
)
def test_whose_sglang_runs_is_said_of_an_environment_made_here_too(python, more, found):
    given = options.parse(["--root", "/here", "--out", "/here", "--python", python, *more])
    made = made_up_run.plan(made_up_run.launch("a", case="a", python=python))
    said = [line.strip() for line in overview.lines(made, given) if "found:" in line]
    assert said[0].startswith(found) if found else said == []
