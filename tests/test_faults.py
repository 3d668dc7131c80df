"""Bad input through the real commands, fault by fault: tests/faults.py has the table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_commands import Fault
from fault_injection import inject, objections, place, python_of_nobody
from faults import FAULTS

pytestmark = pytest.mark.launches


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder that any user may enter: pytest's own is the user's alone."""
    with place() as made:
        yield made


@pytest.mark.parametrize("fault", [pytest.param(each, id=ascii(each.what)) for each in FAULTS])
def test_a_fault_is_one_sentence_and_leaves_nothing(fault: Fault, ground: Path):
    if fault.user or fault.needs_root:
        if os.geteuid() != 0:
            pytest.skip("only root can become another user, or give a file away")
        if fault.user and not python_of_nobody():
            pytest.skip("no Python here that another user may run")
    outcome = inject(fault, ground / str(FAULTS.index(fault)))
    assert objections(fault, outcome) == [], outcome.said


def test_the_faults_have_names_of_their_own():
    names = [fault.what for fault in FAULTS]
    assert sorted(set(names)) == sorted(names)
