"""DIR/run.lock: whose it is, when it no longer counts, and that only one takes it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from repro_pp_graphs.run.folder import lock
from repro_pp_graphs.run.folder.lock import LockError, Owner, held, owner_of, parse, take

ROOT = Path(__file__).resolve().parents[1]
HERE = owner_of(os.getpid())


def stored(folder: Path, owner: Owner) -> Path:
    path = folder / lock.NAME
    path.write_text(owner.line(), encoding="utf-8")
    return path


@pytest.fixture
def ended() -> Owner:
    """A process that has ended, as it was."""
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        return owner_of(process.pid)


def test_a_lock_names_its_owner_and_refuses_a_second_run(tmp_path):
    assert take(tmp_path, os.getpid()) == ""
    assert parse((tmp_path / lock.NAME).read_text(encoding="utf-8")) == HERE._replace(
        since=parse((tmp_path / lock.NAME).read_text(encoding="utf-8")).since,
        folder=quote(str(tmp_path.resolve())),
    )
    with pytest.raises(LockError) as refused:
        take(tmp_path, os.getppid())
    told = str(refused.value)
    assert f"pid {os.getpid()} on {HERE.host}" in told and "--out" in told and str(tmp_path) in told
    assert [path.name for path in tmp_path.iterdir()] == [lock.NAME]


def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path, ended):
    stored(tmp_path, ended)
    assert ended.pid in take(tmp_path, os.getpid())
    assert f" {os.getpid()} " in (tmp_path / lock.NAME).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, "at work"),
        ({"start": "1"}, ""),  # its pid is another process's by now
        ({"boot": "another"}, ""),  # this machine was started anew
        ({"boot": "another", "host": "other"}, "remove"),
        ({"boot": "another", "machine": "other"}, "remove"),
        ({"boot": "another", "machine": "unknown"}, "remove"),
        ({"pid_space": "1"}, "remove"),  # a container's: its pids are not seen here
        ({"pid_space": "1", "start": "1"}, "remove"),
    ],
)
def test_a_lock_counts_unless_its_owner_is_known_to_have_ended(changes, counts):
    here = HERE._replace(machine="m")
    found = held(here._replace(**changes), here)
    assert bool(found) == bool(counts) and counts in found


def test_a_lock_of_another_machine_says_whose_it_is_and_how_to_remove_it(tmp_path):
    path = stored(tmp_path, HERE._replace(boot="another", host="gpu9", pid="77"))
    with pytest.raises(LockError) as refused:
        take(tmp_path, os.getpid())
    assert "pid 77 on gpu9" in str(refused.value)
    assert str(refused.value).endswith(f"remove {path}")
    assert parse(path.read_text(encoding="utf-8")).host == "gpu9", "it was taken all the same"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder copied while this process holds the lock of `a run`, beside it."""
    (tmp_path / "a run").mkdir()
    take(tmp_path / "a run", os.getpid())
    shutil.copytree(tmp_path / "a run", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_lock_that_was_copied_is_said_to_be_so_and_taken_over(copy):
    original = copy.with_name("a run")
    assert lock.objection(copy, os.getppid()) == ""
    assert lock.objection(original, os.getppid()).startswith(f"{original}: run_repro.sh (pid ")
    said = take(copy, os.getppid())
    assert f"of the run in {original} (pid {os.getpid()}), copied from there: taken" in said
    assert parse((copy / lock.NAME).read_text(encoding="utf-8")).pid == str(os.getppid())
    with pytest.raises(LockError, match="at work there"):
        take(original, os.getppid())


def test_a_copy_counts_where_the_lock_that_it_is_of_is_not_there_to_compare(copy):
    copy.with_name("a run").rename(copy.with_name("moved"))
    for folder in (copy, copy.with_name("moved")):
        assert "at work there" in lock.objection(folder, os.getppid())


def test_another_path_to_the_folder_that_is_worked_in_is_no_copy(copy):
    link = copy.with_name("link")
    link.symlink_to(copy.with_name("a run"))
    assert "at work there" in lock.objection(link, os.getppid())
    again = copy.with_name("again")
    again.mkdir()
    os.link(copy.with_name("a run") / lock.NAME, again / lock.NAME)
    assert "at work there" in lock.objection(again, os.getppid())


def test_a_lock_that_names_no_folder_counts(tmp_path):
    stored(tmp_path, HERE)
    assert "at work there" in lock.objection(tmp_path, os.getppid())


@pytest.mark.parametrize("text", ["{}\n", "a b c\n", "one two three four five six seven\n", "\0\0"])
def test_a_file_that_is_no_lock_is_not_removed(tmp_path, text):
    path = tmp_path / lock.NAME
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LockError, match="no lock of this harness: remove it"):
        take(tmp_path, os.getpid())
    assert path.read_text(encoding="utf-8") == text


def test_an_empty_lock_is_waited_for_and_then_not_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "WAIT_S", 0.2)
    (tmp_path / lock.NAME).touch()
    with pytest.raises(LockError, match="no lock"):
        take(tmp_path, os.getpid())


TAKER = """
import os, sys, pathlib
from repro_pp_graphs.run.folder import lock
if sys.argv[2] == "no links":
    def link(*_):
        raise PermissionError(1, "Operation not permitted")
    os.link = link
print("ready", flush=True)
input()
try:
    lock.take(pathlib.Path(sys.argv[1]), os.getpid())
    print("taken", flush=True)
except lock.LockError:
    print("refused", flush=True)
input()
"""


@pytest.mark.parametrize("links", ["links", "no links"])
@pytest.mark.parametrize("stale", [True, False], ids=["stale", "none"])
def test_of_many_processes_at_once_one_takes_it(tmp_path, ended, links, stale):
    if stale:
        stored(tmp_path, ended)
    command = [sys.executable, "-c", TAKER, str(tmp_path), links]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    takers = [subprocess.Popen(command, cwd=ROOT, **pipes) for _ in range(6)]
    try:
        for word in ("ready", "taken"):
            answers = [taker.stdout.readline().strip() for taker in takers]
            assert answers.count(word) == (6 if word == "ready" else 1), answers
            for taker in takers:  # the one that has it must not end before all have tried
                taker.stdin.write("\n")
                taker.stdin.flush()
    finally:
        for taker in takers:
            taker.communicate()
    assert parse((tmp_path / lock.NAME).read_text(encoding="utf-8")).pid in {
        str(taker.pid) for taker in takers
    }


def test_a_folder_that_takes_no_file_is_an_error_of_the_disk(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        take(tmp_path / "nowhere", os.getpid())


def test_a_link_that_nfs_reports_twice_is_still_ours(tmp_path, monkeypatch):
    real = os.link

    def repeated(source: Path, target: Path) -> None:
        real(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", repeated)
    assert take(tmp_path, os.getpid()) == ""
