"""An interpreter is asked for its sglang as a server would import it, and remembered so."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plan_harness import gpus

from repro_pp_graphs.run import make_plan
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.release.installed import CachedProbe, ProbeError, Release
from repro_pp_graphs.server.shim_names import ENV_NAME

ARGUMENTS = """
class ServerArgs:
    @staticmethod
    def add_cli_args(parser):
        for name in ("model-path", "pp-size", "port", "pp-max-micro-batch-size"):
            parser.add_argument(f"--{name}")
"""
AS_A_REHEARSAL_ALONE = """
import os, torch
if os.environ.get("SGLANG_USE_CPU_ENGINE") != "1":
    raise RuntimeError("operator x::nms does not exist")
"""
FACTS = "Metadata-Version: 2.1\nName: sglang\n"
CPU_TORCH = 'cuda = None\nhip = None\n__version__ = "2.9.0+cpu"\n'
REHEARSAL = {ENV_NAME: "cpu,keep_profilers"}


def interpreter(folder: Path, *, imports: str = "", torch: str = CPU_TORCH) -> str:
    """A Python that has this sglang and this torch, and nothing else."""
    files = {
        "sglang/__init__.py": "",
        "sglang/srt/__init__.py": "",
        "sglang/srt/server_args.py": imports + ARGUMENTS,
        "sglang-0.5.21.dist-info/METADATA": FACTS + "Version: 0.5.21\n",
        "torch/__init__.py": "from torch import version\n",
        "torch/version.py": torch,
    }
    for name, text in files.items():
        path = folder / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    python = folder / "python"
    script = f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{folder}/site" exec {sys.executable} -S "$@"\n'
    python.write_text(script, encoding="utf-8")
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def cpu_only(tmp_path: Path) -> str:
    """Its sglang loads as a rehearsal does alone."""
    return interpreter(tmp_path, imports=AS_A_REHEARSAL_ALONE)


def asked(kept: Path, python: str, env: dict[str, str], *, assumed: bool = False) -> Release | str:
    """What a run gets that has not asked before; the refusal's text."""
    try:
        return CachedProbe(kept, dry_run=assumed, assumed=assumed)(python, env) or "no sglang"
    except ProbeError as error:
        return str(error)


def test_what_a_rehearsal_was_told_is_no_answer_for_gpus(cpu_only: str, tmp_path: Path):
    for kept in (tmp_path / "none", tmp_path / "kept"):
        if kept.name == "kept":
            assert isinstance(asked(kept, cpu_only, REHEARSAL), Release)
        refused = asked(kept, cpu_only, {})
        assert isinstance(refused, str)
        assert "its torch 2.9.0+cpu is built for the CPU alone" in refused
        assert "operator x::nms does not exist" in refused and "--cpu rehearses" in refused


def test_gpus_of_another_machine_need_not_be_served_by_this_one(cpu_only: str, tmp_path: Path):
    first = asked(tmp_path / "none", cpu_only, {}, assumed=True)
    rehearsed = asked(tmp_path / "kept", cpu_only, REHEARSAL)
    assert isinstance(first, Release) and first.cpu_torch == "2.9.0+cpu"
    assert first == rehearsed == asked(tmp_path / "kept", cpu_only, {}, assumed=True)


def test_a_cuda_build_that_wants_a_driver_is_planned_with_on_a_login_node(tmp_path: Path):
    torch = CPU_TORCH.replace("cuda = None", "cuda = '12.8'").replace("+cpu", "+cu128")
    python = interpreter(tmp_path, imports=AS_A_REHEARSAL_ALONE, torch=torch)
    found = asked(tmp_path / "kept", python, {}, assumed=True)
    assert isinstance(found, Release) and found.cpu_torch == ""
    # where GPUs are counted, the import's own words are the cause
    refused = str(asked(tmp_path / "other", python, {}))
    assert "cannot be imported (RuntimeError: operator x::nms" in refused and "CPU" not in refused


@pytest.mark.parametrize("assumed", [False, True])
def test_an_sglang_that_is_broken_everywhere_is_refused(assumed: bool, tmp_path: Path):
    python = interpreter(tmp_path, imports="import nosuch\n")
    assert "No module named 'nosuch'" in str(asked(tmp_path, python, {}, assumed=assumed))


def test_each_environment_of_a_case_has_an_answer_of_its_own(tmp_path: Path):
    python = interpreter(tmp_path)
    other = tmp_path / "other"
    interpreter(other)
    facts = other / "site" / "sglang-0.5.21.dist-info"
    named = other / "site" / "sglang-0.5.9.dist-info"
    facts.rename(named)
    (named / "METADATA").write_text(f"{FACTS}Version: 0.5.9\n")
    probe = CachedProbe(tmp_path / "kept", dry_run=False)
    found = [probe(python, {}), probe(python, {"PYTHONPATH": f"{other}/site"})]
    assert [release and release.version for release in found] == ["0.5.21", "0.5.9"]
    # shims that change how messages go do not change what sglang is
    assert probe(python, {ENV_NAME: "sync_send"}) is found[0]


def test_a_cpu_build_of_torch_that_loads_is_refused_before_a_server_dies_of_it(tmp_path: Path):
    python = interpreter(tmp_path, imports="import torch\n")
    (tmp_path / "server_args_base.txt").write_text("--model-path m\n--pp-size 2\n")
    (tmp_path / "server_args_one.txt").write_text("--port 3000\n")
    given = ["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--python", python]
    given += ["--no-pp-clock", "--cases", "one", "--"]
    probe = CachedProbe(tmp_path / "kept", dry_run=True)
    here = run_options.parse([*given, "--dry-run"])
    with pytest.raises(PlanError, match="built for the CPU alone"):
        make_plan.make(here, gpus(2), None, probe)
    there = run_options.parse([*given, "--dry-run", "--gpus", "2"])
    (launch,) = make_plan.make(there, gpus(2), None, probe).launches
    assert "built for the CPU alone" in " ".join(launch.notes)
