"""The order of the tests, and how many examples a property is tried with."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import Harness
from hypothesis import settings

settings.register_profile("sample", max_examples=40, deadline=None, print_blob=True)
settings.register_profile("thorough", max_examples=400, deadline=None, print_blob=True)
settings.load_profile("thorough" if THOROUGH else "sample")

DEAREST = ("rehearsal", "launches", "slow")  # markers


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A checkout to run run_repro.sh in, with a stand-in for sglang."""
    with Harness(tmp_path / "r") as made:
        yield made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real server first, then what launches something: several processes end together then."""

    def rank(item: pytest.Item) -> int:
        names = {mark.name for mark in item.iter_markers()}
        return next((n for n, name in enumerate(DEAREST) if name in names), len(DEAREST))

    items.sort(key=rank)  # stable: a file's tests stay in their order


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Thousands of tests stay till the end: the garbage collector need not walk them each time,
    nor come as often as in a program whose memory is short, and not at all while they are made."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(50_000, 20, 20)


def pytest_unconfigure() -> None:
    """What a process holds goes with it: its end need not look for cycles in that once more."""
    gc.freeze()
