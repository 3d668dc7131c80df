"""The order of the tests, and how many examples a property is tried with."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from examples import THOROUGH
from fake_sglang.harness import Harness
from hypothesis import settings

settings.register_profile("sample", max_examples=24, deadline=None, print_blob=True)
settings.register_profile("thorough", max_examples=400, deadline=None, print_blob=True)
settings.load_profile("thorough" if THOROUGH else "sample")

DEAREST = ("rehearsal", "launches", "slow")  # markers
# ten seconds each and no such marker, of one process or waiting: not at the end
LONG = ("code_style", "documents", "client_failures", "client_warm_up")
COLLECTED = pytest.StashKey[frozenset[str]]()  # modules that are imported once tests are collected

# of this process, its workers and all that they start: one that wakes does not interrupt another,
# and what each has in its core's cache stays there longer
with contextlib.suppress(AttributeError, OSError):
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    """A checkout to run run_repro.sh in, with a stand-in for sglang."""
    with Harness(tmp_path / "r") as made:
        yield made


@pytest.fixture
def at_collection(pytestconfig: pytest.Config) -> frozenset[str]:
    """The modules that were imported before the first test ran."""
    return pytestconfig.stash[COLLECTED]


@pytest.hookimpl(tryfirst=True)  # before -m looks at the markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real server first, then what launches something: several processes end together then.
    The others by no order of their names: those of the client wait much, and would do so at the
    same time in all processes. Who takes a `harness` runs run_repro.sh."""
    for item in items:
        if "harness" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.launches)

    def rank(item: pytest.Item) -> tuple[int, int]:
        names = {mark.name for mark in item.iter_markers()}
        dear = next((n for n, name in enumerate(DEAREST) if name in names), len(DEAREST))
        if dear < len(DEAREST):
            return dear, 0
        if item.path.stem.removeprefix("test_") in LONG:
            return dear, -1
        return dear, crc32(item.path.name.encode())

    items.sort(key=rank)  # stable: a file's tests stay in their order


def _import_in_turn(config: pytest.Config) -> None:
    """Of a new checkout pytest rewrites and compiles every test file, 4 s of CPU: each process
    begins with other ones, else all would do the same at the same time."""
    worker = getattr(config, "workerinput", None)
    if not worker or [Path(each).name for each in config.args] != ["tests"]:
        return
    names = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))
    at = len(names) * int(worker["workerid"].removeprefix("gw")) // worker["workercount"]
    for name in (*names[at:], *names[:at]):
        with contextlib.suppress(Exception, pytest.skip.Exception):  # its collection tells
            importlib.import_module(name)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Thousands of tests stay till the end: the garbage collector need not walk them each time,
    nor come as often as in a program whose memory is short, and not at all while they are made."""
    gc.disable()
    try:
        _import_in_turn(session.config)
        return (yield)
    finally:
        session.config.stash[COLLECTED] = frozenset(sys.modules)
        gc.freeze()
        gc.enable()
        gc.set_threshold(250_000, 20, 20)


def pytest_unconfigure() -> None:
    """What a process holds goes with it: its end need not look for cycles in that once more."""
    gc.freeze()
