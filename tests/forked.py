"""Commands of the package, each in a fork of one process that has imported them all.

A start of Python with these imports is 60 to 200 ms of CPU, the command itself often a few. What a
fork shows is what the command does, says and leaves, and its exit status; how Python starts is for
tests that start one.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Command:
    """`python -m MODULE`, or the script of that path; stdin is empty. `out` and `err`: files that
    take what it prints."""

    program: str
    words: list[str]
    cwd: str
    env: dict[str, str]
    out: str
    err: str


@dataclass(frozen=True)
class Ended:
    """`alive`: whether a process that it started outlives it."""

    status: int
    out: bytes
    err: bytes
    alive: bool


class ForkServer:
    """A process of that Python, in that environment, in which commands are run one at a time, each
    with so many bytes of memory at most."""

    def __init__(self, python: str, env: dict[str, str], memory: int) -> None:
        self._turn = threading.Lock()
        self._process = subprocess.Popen(
            [python, str(Path(__file__).resolve()), str(memory)],
            env={**env, "PYTHONPATH": os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, words: list[str], cwd: Path, env: dict[str, str]) -> Ended:
        """One command with that environment and no other."""
        assert self._process.stdin and self._process.stdout
        with self._turn, tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder, "out"), Path(folder, "err")
            command = Command(program, words, str(cwd), env, str(out), str(err))
            self._process.stdin.write(json.dumps(asdict(command)) + "\n")
            self._process.stdin.flush()
            status, alive = json.loads(self._process.stdout.readline())
            return Ended(status, out.read_bytes(), err.read_bytes(), alive)

    def end(self) -> None:
        self._process.communicate()


def _serve() -> Command:
    """Fork for each command; returns it in the child."""
    for line in sys.stdin:
        command = Command(**json.loads(line))
        pid = os.fork()
        if not pid:
            return command
        _, status = os.waitpid(pid, 0)
        try:
            os.killpg(pid, signal.SIGKILL)
            alive = True
        except ProcessLookupError:
            alive = False
        print(json.dumps([os.waitstatus_to_exitcode(status), alive]), flush=True)
    sys.exit(0)


def _become(command: Command) -> None:
    """Be the process that the command would have been started as; a hang ends by a signal."""
    os.setsid()
    signal.alarm(600)
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    os.chdir(command.cwd)
    os.environ.clear()
    os.environ.update(command.env)
    files = [
        (os.devnull, os.O_RDONLY),
        *((path, os.O_WRONLY | os.O_CREAT) for path in (command.out, command.err)),
    ]
    for number, (path, flags) in enumerate(files):
        opened = os.open(path, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = [command.program, *command.words]


def _main() -> None:
    import gc  # noqa: PLC0415
    import importlib  # noqa: PLC0415
    import runpy  # noqa: PLC0415

    from repro_pp_graphs.__main__ import COMMANDS, STEPS  # noqa: PLC0415

    for module, _ in (COMMANDS | STEPS).values():
        importlib.import_module(f"repro_pp_graphs.{module}")
    importlib.import_module("repro_pp_graphs.client.command")
    del sys.modules["repro_pp_graphs.__main__"]  # it is run, as `python -m` runs it
    gc.freeze()
    command = _serve()
    _become(command)
    if command.program.endswith(".py"):
        runpy.run_path(command.program, run_name="__main__")
    else:
        runpy.run_module(command.program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
