"""A disk that is full at some step of a run, on small tmpfs mounts (skipped where none may be
made): what was measured stays, the disk is named, --resume goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import Done, Harness, at_once

pytestmark = pytest.mark.launches

MOMENTS = ("start", "measure", "profile", "traces")
# bytes of the disk: from one that does not take the plan to one that takes all but the last steps
KIB = (4, 64, 128, 142, 158, 180, 196, 212) if THOROUGH else (4, 144, 200)
SIZES = [kib << 10 for kib in KIB]
LIMITS = {
    "run/checks/preflight.py": [("needed_gib = 0.1 + (", "needed_gib = 0 * (")],
    "files.py": [
        ("LOW_BYTES = 32 << 20", "LOW_BYTES = 16 << 10"),
        ("RESERVE_BYTES = 1 << 20", "RESERVE_BYTES = 96 << 10"),
        ("OVERHEAD_BYTES = 8192", "OVERHEAD_BYTES = 4096"),
    ],
    "run/folder/results.py": [("LEAST_ROOM = 1 << 16", "LEAST_ROOM = 8 << 10")],
}
SHORTER_WAITS = [  # for what a full disk keeps from coming; as long as it takes where there is room
    ("DECODING_LIMIT_S = 120.0", "DECODING_LIMIT_S = 15.0"),
    ("STEPS_LIMIT_S = 180.0", "STEPS_LIMIT_S = 15.0"),
    ("WRITE_LIMIT_S = 300.0", "WRITE_LIMIT_S = 15.0"),
    ("if self.line.elapsed_s > limit_s:", "if self.disk.full and self.line.elapsed_s > limit_s:"),
    ("or self.line.elapsed_s > end_s", "or (self.line.elapsed_s > end_s and self._gives_up())"),
    (
        "    def start(self, num",
        "    def _gives_up(self):\n"
        "        return self.disk.full or self.server_gone()\n\n    def start(self, num",
    ),
]
# those that a second run goes on with: nothing begun, one launch measured, nothing measured
RESUMED = [*SIZES, *MOMENTS] if THOROUGH else [4 << 10, 200 << 10, "start"]
SLOW = "FAKE_ITL_MS=20"


def mounted(folder: Path, size: int) -> bool:
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


class OnDisk:
    """A run on a disk of its own, which may be gone on with once there is room."""

    def __init__(self, root: Path, size: int, moment: str = "") -> None:
        self.harness = Harness(root)
        del self.harness.env["FAKE_FREE_KIB"]  # the disk is a real one
        self.size = size
        # what fills the disk at a moment does so in the first launch
        self.cases = ("--cases", "other" if moment else "good,other")
        for module, changes in LIMITS.items():
            for old, new in changes:
                self.harness.replace(module, old, new)
        for old, new in SHORTER_WAITS:
            self.harness.replace("run/profile_step.py", old, new)
        self.mended = root / "mended"
        fault = [f"FAKE_FAULT=fill:{moment}", f"FAKE_MENDED={self.mended}"] if moment else []
        # slow tokens: how much the log of a load grows says little of how fast the machine is
        self.harness.case("good", SLOW)
        self.harness.case("other", SLOW, *fault)

    def run(self) -> OnDisk:
        self.done = self.harness.run(*self.cases)
        self.left = self.harness.left_over()
        path = self.harness.logs / "summary.json"
        self.summary = json.loads(path.read_text()) if path.exists() else None
        self.kept = (self.harness.logs / "good_client.json").exists()
        return self

    def resume(self) -> OnDisk:
        """Go on with it on a disk that has room."""
        self.mended.touch()
        (self.harness.out / "ballast").unlink(missing_ok=True)
        for old, new in SHORTER_WAITS:
            self.harness.replace("run/profile_step.py", new, old)
        grown = ["mount", "-o", "remount,size=64m", str(self.harness.out)]
        subprocess.run(grown, check=True, capture_output=True)
        self.resumed: Done = self.harness.run(*self.cases, "--resume")
        return self

    @property
    def statuses(self) -> dict[str, str]:
        return {each["label"]: each["status"] for each in self.summary["launches"]}

    @property
    def said(self) -> str:
        return " ".join((self.done.out + self.done.err).split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int | str, OnDisk]]:
    """A run a size, and one a moment at which something else fills the disk."""
    root = tmp_path_factory.mktemp("disk")
    disks: dict[int | str, OnDisk] = {size: OnDisk(root / str(size), size) for size in SIZES}
    disks |= {moment: OnDisk(root / moment, 2 << 20, moment) for moment in MOMENTS}
    try:
        if not all(mounted(each.harness.out, each.size) for each in disks.values()):
            pytest.skip("needs to mount tmpfs (root)")
        at_once({key: each.run for key, each in disks.items()})
        at_once({key: disks[key].resume for key in RESUMED})
        yield disks
    finally:
        for each in disks.values():
            each.harness.__exit__()
            subprocess.run(
                ["umount", "-l", str(each.harness.out)], check=False, capture_output=True
            )


@pytest.mark.parametrize("key", [*SIZES, *MOMENTS])
def test_it_ends_by_itself_without_a_traceback_and_names_the_disk(
    key: int | str, runs: dict[int | str, OnDisk]
):
    run = runs[key]
    assert run.left == []
    assert "Traceback" not in run.said
    assert run.done.status in (0, 1, 2)
    if run.done.status:
        assert "the disk of" in run.said or "No space left on device" in run.said, run.done.lines
        assert "free some" in run.said


@pytest.mark.parametrize("key", [*SIZES, *MOMENTS])
def test_a_run_that_began_leaves_a_summary_of_what_it_measured(
    key: int | str, runs: dict[int | str, OnDisk]
):
    run = runs[key]
    if run.done.status == 2:
        assert run.summary is None
        return
    assert run.summary is not None, run.done.lines
    assert set(run.statuses.values()) <= {"ok", "failed"}
    for launch in run.summary["launches"]:
        assert launch["status"] == "failed" or launch["metrics"]["completed"] == 2, launch


@pytest.mark.parametrize("key", RESUMED)
def test_resume_goes_on_once_there_is_room(key: int | str, runs: dict[int | str, OnDisk]):
    run = runs[key]
    assert run.resumed.status == 0, run.resumed.lines
    assert run.harness.statuses() == dict.fromkeys(run.cases[1].split(","), "ok")
    if run.summary and run.statuses.get("good") == "ok":
        assert [line for line in run.resumed.out.splitlines() if line == "good"] == []


def test_the_sizes_meet_different_steps(runs: dict[int | str, OnDisk]):
    ends = [
        tuple(runs[size].statuses.values()) if runs[size].summary else runs[size].done.status
        for size in SIZES
    ]
    assert {2, ("failed", "failed"), ("ok", "failed")} <= set(ends), ends


@pytest.mark.parametrize("moment", ["measure", "profile"])
def test_what_was_measured_before_the_disk_was_full_is_kept(
    moment: str, runs: dict[int | str, OnDisk]
):
    run = runs[moment]
    assert run.statuses == {"other": "failed"}
    (other,) = run.summary["launches"]
    assert other["metrics"]["completed"] == 2, "the client's result had no room"
    assert "the disk of" in other["reason"]


def test_the_wait_for_traces_names_the_disk(runs: dict[int | str, OnDisk]):
    assert "log or traces may not get written" in runs["profile"].said
