"""A fault injected into a copy of the checkout, what it led to, and what there is to object to."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fake_sglang.harness import CHECKOUT, LIMIT_S, MARK, PYTHON, Harness
from fault_commands import RUN, Fault
from forked import Ended, ForkServer

NOBODY = 65534
MEMORY = 8 << 30  # bytes: a fault may ask for all there is
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
CHANGED = {"__pycache__", ".state"}  # what any command may write into a checkout


@dataclass(frozen=True)
class Outcome:
    """What a fault led to."""

    status: int
    out: str
    err: str
    left: list[str]  # processes and files

    @property
    def complaint(self) -> list[str]:
        """The lines of the last complaint on stderr: `program: what is wrong`, and those that it
        was wrapped to."""
        lines = self.err.splitlines()
        first = [n for n, line in enumerate(lines) if re.match(r"[\w.]+: ", line)]
        return lines[first[-1] :] if first else lines

    @property
    def said(self) -> str:
        """The complaint on one line; where there is none, the last line of what is printed."""
        text = " ".join(self.complaint) or (self.out.strip().splitlines() or [""])[-1]
        return " ".join(text.split())


def _tree(root: Path) -> set[str]:
    found = (path.relative_to(root) for path in root.rglob("*"))  # through no link
    return {str(path) for path in found if not CHANGED & set(path.parts)}


@lru_cache
def python_of_nobody() -> tuple[str, str] | tuple[()]:
    """A Python that other users may run, too, and a PYTHONPATH with what the harness needs; empty
    for none."""
    packages = list(Path(PYTHON).parents[1].glob("lib/python3.*/site-packages"))
    for python in (PYTHON, "/usr/bin/python3"):
        env = {"PYTHONPATH": os.pathsep.join(map(str, packages))}
        words = [python, "-c", "import numpy, msgspec, requests"]
        with contextlib.suppress(OSError):
            done = subprocess.run(words, env=env, capture_output=True, check=False, user=NOBODY)
            if done.returncode == 0 and os.access(CHECKOUT, os.X_OK):
                return python, env["PYTHONPATH"]
    return ()


@lru_cache
def _forks() -> ForkServer:
    """Where commands in Python are run that need no Python of their own."""
    with tempfile.TemporaryDirectory() as folder, Harness(Path(folder, "any")) as harness:
        env = {name: value for name, value in harness.env.items() if name != MARK}
    server = ForkServer(PYTHON, {**env, "PYTHONDONTWRITEBYTECODE": "1"}, MEMORY)
    atexit.register(server.end)
    return server


def _ended(fault: Fault, words: list[str], root: Path, env: dict[str, str]) -> Ended:
    """Run it: in a fork where it is a command in Python, started as everybody else's."""
    if words[0] == PYTHON and not (fault.shell or fault.env or fault.user):
        program, *more = words[2:] if words[1] == "-m" else [str(root / words[1]), *words[2:]]
        return _forks().run(program, more, root, env)
    done = subprocess.run(
        ["bash", "-c", f'ulimit -v {MEMORY >> 10}; "$@" {fault.shell}', "bash", *words],
        cwd=root,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
        user=fault.user or None,
        group=fault.user or None,
        extra_groups=[] if fault.user else None,
    )
    return Ended(done.returncode, done.stdout, done.stderr, alive=False)


def inject(fault: Fault, root: Path) -> Outcome:
    """Run the command in a copy of the checkout at `root`, and look at what it left."""
    with Harness(root) as harness:
        shutil.copy2(CHECKOUT / "collect_env.sh", root)
        if fault.user:
            for path in (root, *root.iterdir()):
                os.chown(path, fault.user, fault.user, follow_symlinks=False)
        fault.prepare(harness)
        if not fault.user:
            harness.know_answers()
        before = _tree(root)
        python = PYTHON
        if fault.user:
            python, more = python_of_nobody() or (PYTHON, "")
            harness.env["PYTHONPATH"] += f"{os.pathsep}{more}"
        words = [word.replace("ROOT", str(root)) for word in fault.words]
        words = [python if word == PYTHON else word for word in words]
        words = [word.replace("PORT", str(harness.port)) for word in words]
        if fault.words[:2] == RUN:
            words[1] = str(root / words[1])
        env = {name: value.replace("ROOT", str(root)) for name, value in fault.env.items()}
        env = {**harness.env, "PYTHONDONTWRITEBYTECODE": "1", **env}
        done = _ended(fault, words, root, env)
        left = [f"process {line}" for line in harness.left_over()] + ["a process"] * done.alive
        files = sorted(_tree(root) - before)
        left += [name for name in files if not (fault.leaves and re.match(fault.leaves, name))]
    shutil.rmtree(root)
    out, err = (text.decode(errors="surrogateescape") for text in (done.out, done.err))
    return Outcome(done.status, out, err, left)


def objections(fault: Fault, outcome: Outcome) -> list[str]:
    """Why an outcome is none that a reader can use; empty where it is."""
    found = []
    said = outcome.out + outcome.err if fault.status < 2 else outcome.err
    if outcome.status != fault.status:
        found.append(f"exit status {outcome.status}")
    if " ".join(fault.says.split()) not in " ".join(said.split()):
        found.append("does not say so")
    if "Traceback" in outcome.out + outcome.err:
        found.append("a traceback")
    if RAW.search(outcome.out + outcome.err):
        found.append("a control character reaches the terminal")
    if fault.status == 2 and not 1 <= len(outcome.complaint) <= 5 and fault.says:
        found.append(f"{len(outcome.complaint)} lines")
    if any(len(line) > 80 and " " in line.strip()[20:] for line in outcome.err.splitlines()):
        found.append("lines of more than 80 columns")
    return found + [f"left {name}" for name in outcome.left]


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder that any user may enter."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)
