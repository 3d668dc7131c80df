"""What run_repro.sh refuses before it asks any interpreter: one line, exit 2, nothing left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from programs import ran

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As much of a checkout as the shell's part needs."""
    return _checkout(tmp_path / "checkout")


def _checkout(at: Path) -> Path:
    shutil.copytree(ROOT / "repro_pp_graphs" / "sh", at / "repro_pp_graphs" / "sh")
    shutil.copy(ROOT / "run_repro.sh", at)
    return at


def run(checkout: Path, *words: str, closed: str = "") -> subprocess.CompletedProcess[str]:
    script = checkout / "run_repro.sh"
    return ran(
        ["bash", "-c", f'exec bash "$@" {closed}', "x", script, *words],
        errors="surrogateescape",
        stdin=subprocess.DEVNULL,
        cwd=checkout,
    )


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What it said, on one line."""
    assert done.returncode == 2
    assert done.stderr.startswith("run_repro.sh:"), done.stderr
    assert max(map(len, done.stderr.splitlines())) < 400
    return " ".join(done.stderr.split())


@pytest.mark.parametrize("words", [["--out", ""], ["--out="]])
def test_an_empty_out_is_no_folder(checkout, words):
    assert "--out '': name a folder" in refused(run(checkout, "--dry-run", *words))


def test_a_closed_stdout_is_said_at_once(checkout):
    assert "stdout is closed" in refused(run(checkout, "--dry-run", closed=">&-"))


def test_with_stderr_closed_it_ends_without_a_word(checkout):
    done = run(checkout, "--out", "", closed="2>&-")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("program", ["true", "yes", "cat", "echo"])
def test_what_is_no_python_is_refused_whatever_it_prints(checkout, program):
    path = shutil.which(program)
    said = refused(run(checkout, "--dry-run", "--python", path))
    assert "it cannot find sglang" in said and "--release" in said


def test_a_python_without_sglang_is_named_and_control_characters_are_not_obeyed(checkout):
    said = refused(run(checkout, "--dry-run", "--python", "/no/\x1b[31m\x9b"))
    assert "/no/?[31m" in said and "\x1b" not in said


@pytest.mark.parametrize("name", ["a:b", "a\x1b[31mb", "a\nb"])
def test_a_checkout_that_pythonpath_cannot_name_is_refused(tmp_path, name):
    said = refused(run(_checkout(tmp_path / name), "--dry-run", "--python", sys.executable))
    assert "move the checkout" in said and "\x1b" not in said


def test_a_state_folder_that_others_can_write_is_not_believed(checkout):
    state = checkout / ".state"
    state.mkdir()
    state.chmod(0o777)
    said = refused(run(checkout, "--dry-run", "--python", sys.executable))
    assert ".state: another user can write it" in said


def test_a_state_that_is_no_folder_is_refused(checkout):
    (checkout / ".state").symlink_to("/nowhere")
    assert ".state" in refused(run(checkout, "--dry-run", "--python", sys.executable))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_state_folder_of_another_user_is_not_believed(checkout):
    state = checkout / ".state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    assert ".state" in refused(run(checkout, "--dry-run", "--python", sys.executable))
    os.chown(checkout, 65534, 65534)  # root in a container, on the user's checkout
    assert ".state" not in refused(run(checkout, "--dry-run", "--python", "/bin/true"))


def test_a_full_stdout_is_one_line(checkout):
    done = run(checkout, "--help", closed=">/dev/full")
    assert done.returncode != 0 and len(done.stderr.splitlines()) == 1
