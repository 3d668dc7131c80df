"""Servers that hang: which step each rank reached, and the ranks' stacks, before they are ended."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from fake_sglang.harness import LIMIT_S, Done, Harness, at_once

pytestmark = pytest.mark.launches

PY_SPY = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
needs_py_spy = pytest.mark.skipif(PY_SPY is None, reason="needs py-spy")
SLOW = "exec sleep 600"
DENIED = "echo 'Permission Denied: Try running again with elevated permissions' >&2; exit 1"


def set_py_spy(harness: Harness, script: str | None) -> None:
    """Which py-spy the harness finds: none, or this."""
    folders = harness.env["PATH"].split(":")
    without = [folder for folder in folders if not shutil.which("py-spy", path=folder)]
    harness.env["PATH"] = ":".join(without)
    if script is not None:
        tool = harness.root / "fake_tools" / "py-spy"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)


def without_limits(harness: Harness) -> None:
    """A rank has the time that it needs to print its stacks."""
    harness.replace("run/launch/hang.py", "ABORT_LIMIT_S = 5.0", f"ABORT_LIMIT_S = {LIMIT_S}")


def hang_at_start(harness: Harness, py_spy: str | None) -> Done:
    set_py_spy(harness, py_spy)
    without_limits(harness)
    dump_s = 1.0 if py_spy == SLOW else LIMIT_S
    harness.replace("run/launch/hang.py", "DUMP_LIMIT_S = 20.0", f"DUMP_LIMIT_S = {dump_s}")
    harness.replace(
        "run/launch/hang.py", "ALL_DUMPS_LIMIT_S = 120.0", f"ALL_DUMPS_LIMIT_S = {LIMIT_S}"
    )
    harness.case("hangs", "FAKE_FAULT=never_ready")
    harness.give_up_once("Load weight begin")
    return harness.run("--cases", "hangs", "--no-profile")


def stall_under_load(harness: Harness) -> Done:
    set_py_spy(harness, None)
    without_limits(harness)
    harness.replace(
        "run/plan/client_words.py",
        '"--control", str(CONTROL)]',
        '"--control", str(CONTROL), *["--stall-timeout", "2"] * (launch.label == "stalls")]',
    )
    harness.case("stalls", "FAKE_FAULT=stall")
    harness.case("good")
    return harness.run("--cases", "stalls,good", "--no-profile")


def never_profiled(harness: Harness) -> Done:
    set_py_spy(harness, None)
    without_limits(harness)
    harness.give_up_traces(1.0)
    harness.case("silent", "FAKE_FAULT=missing_rank")
    return harness.run("--cases", "silent")


SCENES = {
    "missing": partial(hang_at_start, py_spy=None),
    "denied": partial(hang_at_start, py_spy=DENIED),
    "slow": partial(hang_at_start, py_spy=SLOW),
    "real": partial(hang_at_start, py_spy=f'exec "{PY_SPY}" "$@"'),
    "load": stall_under_load,
    "profile": never_profiled,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Harness, Done]]]:
    """Every scene, all at once."""
    root = tmp_path_factory.mktemp("hangs")
    harnesses = {name: Harness(root / name) for name in SCENES}
    done = at_once({name: partial(run, harnesses[name]) for name, run in SCENES.items()})
    yield {name: (harnesses[name], done[name]) for name in SCENES}
    for harness in harnesses.values():
        harness.__exit__()


def spoken(done: Done) -> str:
    return " ".join(done.out.split())


def test_a_server_that_is_not_ready_in_time_is_given_up(scenes):
    harness, done = scenes["missing"]
    assert done.status == 1
    assert re.search(r"not ready after \d+ s \(--start-timeout\): loading weights", spoken(done))
    assert harness.left_over() == []


@pytest.mark.parametrize("scene", ["missing", "denied", "slow"])
def test_a_hang_at_the_start_names_each_ranks_last_stage(scene: str, scenes):
    _, done = scenes[scene]
    assert done.status == 1
    assert "cause: slow, or hung: its log has been silent for" in spoken(done)
    lines = done.out.splitlines()
    ranks = [line.split() for line in lines if "Load weight begin" in line and "PP" in line[:10]]
    assert sorted(line[0] for line in ranks) == ["PP0", "PP1"]
    assert max(len(line) for line in lines if str(done) not in line and "/" not in line) <= 80


@pytest.mark.parametrize(
    ("scene", "why"),
    [
        ("missing", "py-spy is missing"),
        ("denied", "Permission Denied"),
        ("slow", "py-spy had not read it in 1 s"),
    ],
)
def test_without_py_spy_the_ranks_print_their_own_stacks(scene: str, why: str, scenes):
    harness, done = scenes[scene]
    assert f"by faulthandler ({why}" in spoken(done)
    text = (harness.logs / "hangs_hang.txt").read_text()
    assert text.count("Fatal Python error: Aborted") == 2  # each of the two ranks
    assert text.count("in run_rank") == 2
    assert "PP1" in text and "Load weight begin" in text
    assert harness.left_over() == []


@needs_py_spy
def test_py_spy_reads_the_stacks_of_every_rank_and_ends_none(scenes):
    harness, done = scenes["real"]
    assert "2 of 2 processes by py-spy" in spoken(done)
    text = (harness.logs / "hangs_hang.txt").read_text()
    assert text.count("run_rank (sglang/rank.py") == 2
    assert "Fatal Python error" not in (harness.logs / "hangs_server.log").read_text()
    assert harness.left_over() == []


def test_a_server_that_stalls_under_load_is_looked_at_before_it_is_ended(scenes):
    harness, done = scenes["load"]
    assert harness.statuses() == {"stalls": "failed", "good": "ok"}
    text = (harness.logs / "stalls_hang.txt").read_text()
    assert text.count("in run_rank") == 2
    assert "Decode batch" in text  # the last step of each rank
    assert "longest silent first" in done.out
    assert harness.left_over() == []


def test_a_profile_that_never_ends_is_looked_at_before_the_server_is_ended(scenes):
    harness, done = scenes["profile"]
    assert done.status == 1
    assert (harness.logs / "silent_hang.txt").read_text().count("in run_rank") == 2
    assert "1 of 2 ranks' traces are whole" in spoken(done)
