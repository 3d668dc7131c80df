"""Moving an earlier run aside: whole, never over something else, also across disks."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from repro_pp_graphs.run.folder import previous

NAMES = ("logs/run.json", "logs/A_client.json", "trace/A/1.gz", "trace/A_chrome_trace.json")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    filled(tmp_path)
    return tmp_path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A folder on another disk."""
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs /dev/shm as another disk")
    with tempfile.TemporaryDirectory(dir=shm) as folder:
        yield Path(folder)


def filled(out: Path, began: str = "2026-11-24 03:15:00") -> None:
    """What a run leaves, as far as it matters here."""
    for name in NAMES:
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"began": "{began}"}}' if "run.json" in name else name)
    (out / "logs" / ".gitkeep").touch()


def files(folder: Path) -> list[str]:
    """Every file, also through links, relative."""
    found = []
    for root, _, names in os.walk(folder, followlinks=True):
        found += [str(Path(root, name).relative_to(folder)) for name in names]
    return sorted(found)


def test_an_earlier_run_is_moved_aside_whole(out):
    kept = previous.move_aside(out)
    assert kept == out / "previous" / "20261124_031500"
    assert files(kept) == sorted(NAMES)
    assert files(out / "logs") == [".gitkeep"] and files(out / "trace") == []
    assert (kept / "trace/A/1.gz").read_text() == "trace/A/1.gz"


def test_tries_that_are_repeated_go_to_a_folder_of_their_own(out):
    tried = previous.move_aside(out, ["logs/A_client.json", "trace/A/", "logs/none"])
    assert tried.name.startswith("20261124_031500_resumed_2")
    assert files(tried) == ["logs/A_client.json", "trace/A/1.gz"]
    assert previous.move_aside(out).name == "20261124_031500"


def test_a_clock_that_was_set_back_overwrites_nothing(out, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda *_: "2026-11-24 04:00:00")
    first = previous.move_aside(out, ["trace/A"], "other")
    filled(out)
    second = previous.move_aside(out, ["trace/A"], "other")
    whole = previous.move_aside(out)
    filled(out)
    again = previous.move_aside(out)
    assert second.name == f"{first.name}_2" and again.name == f"{whole.name}_2"
    assert files(first) == files(second) == ["trace/A/1.gz"]
    assert files(again) == sorted(NAMES)


@pytest.mark.parametrize("part", ["logs", "trace", "previous", "logs and trace"])
def test_a_folder_on_another_disk_keeps_what_was_in_it_there(out, elsewhere, part):
    for name in part.split(" and "):
        if (out / name).exists():
            subprocess.run(["mv", str(out / name), str(elsewhere / name)], check=True)
        (elsewhere / name).mkdir(exist_ok=True)
        (out / name).symlink_to(elsewhere / name)
    kept = previous.move_aside(out)
    assert files(kept) == sorted(NAMES)
    assert kept.parent == out / "previous"
    for name in ("logs", "trace"):
        left = [each for each in files(out / name) if not each.startswith(".previous/")]
        assert left == ([".gitkeep"] if name == "logs" else [])
        place = (kept / name / NAMES[name == "trace"].split("/")[-1]).resolve()
        here = name in part or part == "previous"
        assert (place.is_relative_to(elsewhere)) == (name in part), "copied across disks"
        assert (".previous" in place.parts) == here
    filled(out)
    assert files(previous.move_aside(out)) == sorted(NAMES), "the second time"
    assert files(kept) == sorted(NAMES)


def test_where_one_cannot_be_moved_all_come_back(out, monkeypatch):
    before = files(out)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "A_chrome_trace.json":
            raise OSError(errno.EBUSY, "Device or resource busy", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="busy"):
        previous.move_aside(out)
    assert files(out) == before
    assert list((out / "previous").iterdir()) == []


def test_across_disks_too_all_come_back(out, elsewhere, monkeypatch):
    subprocess.run(["mv", str(out / "trace"), str(elsewhere / "trace")], check=True)
    (out / "trace").symlink_to(elsewhere / "trace")
    before = files(out)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "run.json":
            raise OSError(errno.EIO, "Input/output error", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="Input/output"):
        previous.move_aside(out)
    assert files(out) == before
    assert (out / "trace").is_symlink()


def test_the_plan_is_moved_last_so_that_a_killed_move_is_gone_on_with(out, monkeypatch):
    class Killed(BaseException):
        pass

    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name == "run.json":
            raise Killed
        return real(self, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "rename", rename)
        previous.move_aside(out)
    assert (out / "logs/run.json").exists()
    rest = previous.move_aside(out)
    assert files(rest) == ["logs/run.json"]
    assert files(out / "previous" / "20261124_031500") == sorted(NAMES[1:])


def test_a_link_to_elsewhere_is_moved_as_one_and_still_points_there(out, tmp_path):
    (out / "real").mkdir()
    (out / "real" / "x").write_text("x")
    (out / "trace" / "B").symlink_to("../real")
    kept = previous.move_aside(out)
    assert (kept / "trace" / "B" / "x").read_text() == "x"
    assert (out / "real" / "x").exists() and not (out / "trace" / "B").exists()


@pytest.mark.parametrize("began", ["", "../../elsewhere", "now", "2026-11-24", "/tmp/x"])
def test_a_foreign_plans_time_is_no_path(out, began):
    filled(out, began)
    kept = previous.move_aside(out)
    assert kept.parent == out / "previous" and files(kept) == sorted(NAMES)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"began": 5}', "null"])
def test_a_foreign_plan_is_moved_as_any(out, text):
    (out / "logs/run.json").write_text(text)
    assert files(previous.move_aside(out)) == sorted(NAMES)


def test_clear_names_what_it_moved_and_says_nothing_where_there_is_nothing(out):
    assert previous.clear(out, ["trace/none", "logs/none"]) == ""
    assert not (out / "previous").exists()
    line = previous.clear(out, [*NAMES[1:], "trace/none"])
    assert line.startswith("not of this launch: logs/A_client.json, trace/A/1.gz, trace/A_chrome")
    assert "moved to" in line
