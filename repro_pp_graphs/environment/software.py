"""Facts on the software: an interpreter is asked about itself, programs for their versions."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.environment.fact_lines import LOOK_AT, read_facts
from repro_pp_graphs.environment.facts import Facts
from repro_pp_graphs.environment.programs import Answer, Program, Programs
from repro_pp_graphs.environment.system import first

# without importing it; a folder of that name in the current directory is none
_HAS_SGLANG = """import importlib.util as u, sys
sys.exit(not getattr(u.find_spec("sglang"), "origin", 0))"""
_ABOUT_ITSELF = """import sys
if sys.version_info < (3, 8): sys.exit("%s: Python 3.8 or newer is needed" % sys.version.split()[0])
sys.path[:] = [p for p in sys.path if p] + sys.argv[1:]
from repro_pp_graphs.environment import interpreter; interpreter.main()"""
_SERVERS = """import sys
sys.path.insert(0, sys.argv[2])
from repro_pp_graphs.environment import running_servers; running_servers.main(int(sys.argv[1]))"""
_LIMIT_S = 4


def choose_python(programs: Programs, root: Path) -> str:
    """$PYTHON or python3; where it has no sglang, an environment of run_repro.sh that has it."""
    default = os.environ.get("PYTHON") or ("python3" if shutil.which("python3") else sys.executable)
    made_here = [str(python) for python in sorted(root.glob(".venv-*/bin/python"))]
    pythons = [default, *filter(shutil.which, made_here)]
    if len(pythons) == 1:
        return default
    checks = [programs.start(2, python, "-c", _HAS_SGLANG) for python in pythons]
    return next((p for p, check in zip(pythons, checks) if check.answer().ok), default)


class Software(NamedTuple):
    """The programs that are asked, at work."""

    python: str
    interpreter: Program
    servers: Program
    checkout: Program
    nvcc: Program
    versions: list[tuple[str, Program]]

    @classmethod
    def start(cls, programs: Programs, root: Path, python: str, port: int) -> Software:
        """All at once (port 0: no server); the servers are asked by this interpreter in a process
        of its own, which may be left behind where /proc hangs."""
        # -I ignores PYTHONDONTWRITEBYTECODE
        alone = (*(("-B",) if sys.dont_write_bytecode else ()), "-I", "-S", "-c")
        describe = ("git", "-C", str(root), "describe", "--always", "--tags", "--dirty")
        return cls(
            python,
            programs.start(_LIMIT_S, python, "-c", _ABOUT_ITSELF, str(root)),
            programs.start(_LIMIT_S, sys.executable, *alone, _SERVERS, str(port), str(root)),
            programs.start(2, *describe),
            programs.start(2, _nvcc(), "--version"),
            [(name, programs.start(2, name, "--version")) for name in ("nsys", "ncu", "gcc")],
        )


def _nvcc() -> str:
    path = f"{os.environ.get('CUDA_HOME') or '/usr/local/cuda'}/bin/nvcc"
    return path if os.access(path, os.X_OK) else "nvcc"


def collect(facts: Facts, asked: Software, port: int) -> None:
    """The sections "software" and "server", and what they say for the summary."""
    checkout = asked.checkout.answer()
    facts.add("software", "this checkout", checkout.text if checkout.ok else "")
    found = asked.interpreter.answer()
    if not found.ok:
        text = found.text or f"{asked.python}: failed without a word"
        facts.add("software", "Python probe", text)
    _add_printed(facts, found)
    servers = asked.servers.answer()
    if not servers.ok:
        where = f"port {port}" if port else "processes"
        facts.add("server", where, servers.text or "asking failed without a word")
    _add_printed(facts, servers)
    answer = asked.nvcc.answer()
    release = first("release (.*)", answer.text) if answer.ok else ""
    facts.add("software", "nvcc", f"{release} {_nvcc()}" if release else answer.text)
    for name, program in asked.versions:
        answer = program.answer()
        version = first(r"([0-9]+(?:\.[0-9]+)+)", answer.text) if answer.ok else ""
        facts.add("software", name, version or answer.text)


def _add_printed(facts: Facts, answer: Answer) -> None:
    """The facts that a program has printed, as far as it got."""
    for fact in read_facts(f"{answer.text}\n{answer.partial}"):
        if fact.key == LOOK_AT:
            facts.note(fact.value)
        else:
            facts.add(*fact)
