"""A fault: a command with something wrong, and short ways to write one for each command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fake_sglang.harness import PYTHON, Harness

RUN, CLIENT = ("bash", "run_repro.sh"), (PYTHON, "client_benchmark.py")
ENV, COMMAND = ("bash", "collect_env.sh"), (PYTHON, "-m", "repro_pp_graphs")
REAL = ("--cpu", "--python", PYTHON, "--out", "out")
DRY = (*REAL, "--port", "PORT", "--dry-run")
CASE = ("--cases", "x")

Prepare = Callable[[Harness], None]


def nothing(_: Harness) -> None:
    pass


@dataclass(frozen=True)
class Fault:
    """A command with something wrong: `says` must be in what it says on stderr, or on stdout where
    the exit status is 0. ROOT in a word is the checkout's folder."""

    what: str
    words: tuple[str, ...]
    says: str
    status: int = 2
    prepare: Prepare = nothing
    shell: str = ""  # a redirection or a pipe, behind the command
    env: dict[str, str] = field(default_factory=dict)
    user: int = 0  # as whom, where the tests run as root
    leaves: str = ""  # a pattern of files that it may leave
    needs_root: bool = False  # to give a file away

    @property
    def command(self) -> str:
        """How it is injected, for the table."""
        words = " ".join(Path(word).name if word == PYTHON else word for word in self.words)
        env = " ".join(f"{name}={value}" for name, value in self.env.items())
        shown = f"{env} {words} {self.shell}".strip()
        as_whom = " (as a user)" if self.user else ""
        return ascii(shown)[1:-1].replace("\\\\", "\\")[:90] + as_whom


def run(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*RUN, *REAL, *words), says, **more)  # type: ignore[arg-type]


def dry(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*RUN, *DRY, *words), says, **more)  # type: ignore[arg-type]


def plan(what: str, *words: str, says: str, **more: object) -> Fault:
    """The step in which run_repro.sh refuses it, as it is called there; that the script ends with
    what this step says and leaves nothing, the faults of `run` and `dry` show."""
    own = ("--root", "ROOT", "--out", "ROOT/out", "--python", PYTHON, "--command", "run_repro.sh")
    return command(what, "plan", *own, "--", *REAL, *words, says=says, **more)


def client(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*CLIENT, *words), says, **more)  # type: ignore[arg-type]


def env(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*ENV, *words), says, **more)  # type: ignore[arg-type]


def command(what: str, *words: str, says: str, **more: object) -> Fault:
    return Fault(what, (*COMMAND, *words), says, **more)  # type: ignore[arg-type]
