"""The tools that read the code: shellcheck, ruff, mypy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted([*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh"), *ROOT.glob("repro_pp_graphs/*/*.sh")])


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="needs shellcheck")
def test_shell_scripts_pass_shellcheck():
    names = [str(path.relative_to(ROOT)) for path in SCRIPTS if ".venv" not in str(path)]
    assert "run_repro.sh" in names and "repro_pp_graphs/sh/setup.sh" in names
    run("shellcheck", "-x", ".ci/run", *names)


def test_python_passes_ruff():
    run(sys.executable, "-m", "ruff", "check", ".")


def test_python_is_formatted():
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types_check():
    run(sys.executable, "-m", "mypy")
