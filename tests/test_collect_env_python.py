"""The Python that collects: any from 3.8 on will do, and one that has sglang is asked."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from collect_env_harness import (
    CLOSED_PORT,
    NVIDIA_SMI,
    ROOT,
    SCRIPT,
    SECTIONS,
    bare,
    collect,
    run,
    tool,
)
from programs import ran

pytestmark = pytest.mark.launches


def pythons() -> Iterator[Path]:
    """The interpreters of this machine from 3.8 on, the oldest first."""
    for minor in range(8, sys.version_info.minor):
        found = [shutil.which(f"python3.{minor}") or ""]
        found += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        for python in filter(None, found):
            answer = ran([python, "-V"])
            if answer.stdout.startswith(f"Python 3.{minor}."):
                yield Path(python)
    yield Path(sys.executable)


def test_the_oldest_python_here_collects_the_same(tmp_path: Path) -> None:
    oldest = next(pythons())
    path = tool(tmp_path / "bin", "nvidia-smi", NVIDIA_SMI)
    tool(tmp_path / "bin", "python3", f'#!/bin/bash\nexec {oldest} "$@"\n')
    env = bare(path, NCCL_DEBUG="INFO", MY_TOKEN="xyzzy-xyzzy", NCCL_X="xyzzy-xyzzy")
    facts = collect("--no-redact", env=env)
    (tmp_path / "bin" / "python3").unlink()
    newer = collect("--no-redact", env=env)
    assert facts["environment"]["NCCL_X"] == "<masked>"
    # a Python that has no time to answer, on a busy machine, is another test's matter
    answered = not any("Python probe" in its["software"] for its in (facts, newer))
    sections = [name for name in SECTIONS if answered or name not in ("software", "summary")]
    # other people's servers come and go meanwhile
    keys, newer_keys = (
        {name: [key for key in its[name] if key[:8] != "process "] for name in sections}
        for its in (facts, newer)
    )
    assert keys == newer_keys
    options = ("--json", "--no-redact", "--port", CLOSED_PORT)  # the path may hold a user's name
    asked = json.loads(run(*options, "--python", str(oldest)).stdout)
    places = (str(oldest.parent), str(oldest.resolve().parent))  # a venv's is its own
    assert asked["software"]["Python executable"].startswith(places)


def test_the_oldest_python_here_imports_all_that_any_python_may_run() -> None:
    names = sorted(path.stem for path in (ROOT / "repro_pp_graphs/environment").glob("[a-z]*.py"))
    modules = ", ".join(f"repro_pp_graphs.environment.{name}" for name in names)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"
    subprocess.run([next(pythons()), "-I", "-S", "-c", code], check=True)


@pytest.mark.parametrize("path", sorted((ROOT / "repro_pp_graphs/environment").glob("*.py")))
def test_what_any_python_runs_is_written_for_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
        )
    }
    assert imported <= {*sys.stdlib_module_names, "repro_pp_graphs"}


def python_with(folder: Path, package: str) -> None:
    """A python whose only package besides the standard library's is an empty `package`."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    where = f'PYTHONPATH={folder} exec {sys.executable} -S "$@"'
    tool(folder / "bin", "python", f"#!/bin/bash\n{where}\n")


@pytest.mark.parametrize(
    ("default", "taken"), [("torch", ".venv-cpu"), ("sglang", "default"), (None, ".venv-cpu")]
)
def test_an_environment_made_here_is_asked_where_the_default_python_has_no_sglang(
    tmp_path: Path, default: str | None, taken: str
) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    package = tmp_path / "repro_pp_graphs" / "environment"
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", package)
    python_with(tmp_path / ".venv-0.5.2", "torch")
    python_with(tmp_path / ".venv-cpu", "sglang")
    if default:
        python_with(tmp_path / "default", default)
    env = bare(PYTHON=f"{tmp_path}/default/bin/python")
    options = ("--json", "--no-redact", "--port", CLOSED_PORT)
    software = json.loads(run(*options, env=env, script=script).stdout)["software"]
    assert software["sglang found"] == f"{tmp_path}/{taken}/sglang/__init__.py"
    given = run(*options, "--python", f"{tmp_path}/.venv-0.5.2/bin/python", env=env, script=script)
    asked = json.loads(given.stdout)["software"]
    assert asked["torch found"] == f"{tmp_path}/.venv-0.5.2/torch/__init__.py"


def test_called_through_a_link_from_elsewhere_it_finds_its_package(tmp_path: Path) -> None:
    (tmp_path / "link.sh").symlink_to(SCRIPT)
    done = run("--port", CLOSED_PORT, script=tmp_path / "link.sh")
    assert "Python executable" in done.stdout


def test_no_bytecode_is_written_where_that_is_asked_for(tmp_path: Path) -> None:
    script = Path(shutil.copy(SCRIPT, tmp_path))
    package = tmp_path / "repro_pp_graphs" / "environment"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "repro_pp_graphs" / "environment", package, ignore=leave)
    for setting, written in (("1", False), ("", True)):
        env = bare(PYTHONDONTWRITEBYTECODE=setting)
        facts = json.loads(run("--json", "--port", CLOSED_PORT, env=env, script=script).stdout)
        assert "torch" in facts["summary"]  # not the short list
        assert any(tmp_path.rglob("*.pyc")) is written
