"""Ask a program or a file of this machine, which may hang, fail, or not be there."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

_MOST_BYTES = 4_000_000  # read of a program that prints without end
_TO_DIE_S = 0.2  # for a program that was asked to end, before it is killed
PATIENCE = "REPRO_COLLECT_PATIENCE"  # in the environment: so many times every time limit


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _begin() -> None:
    """In a program before it begins: to be ended as a group, and by signals."""
    os.setpgrp()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def patience() -> float:
    """1 to 1000: by what the time limits are multiplied."""
    try:
        return min(1000.0, max(1.0, float(os.environ.get(PATIENCE, "1"))))
    except ValueError:
        return 1.0


class Answer(NamedTuple):
    """What a program printed, or a sentence on why it did not answer; its status (127: not
    found, 124: no answer in time), and what it had printed by then."""

    status: int
    text: str
    partial: str = ""

    @property
    def ok(self) -> bool:
        """Whether the text is what the program printed, to its end."""
        return self.status == 0


class Programs:
    """Programs asked one by one or side by side, within a number of seconds for all together."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds * patience()
        self._end = time.monotonic() + self.seconds
        self._started: list[Program] = []

    def left(self) -> float:
        """Seconds; 0 when they are used up."""
        return max(0.0, self._end - time.monotonic())

    def start(self, limit_s: float, *command: str) -> Program:
        """A program set to work; `answer` waits for it. A signal acts once it is known, so that
        `stop` ends it too."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self._started.append(Program(self, limit_s, *command))
            return self._started[-1]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def ask(self, limit_s: float, *command: str) -> Answer:
        """What a program answers."""
        return self.start(limit_s, *command).answer()

    def stop(self) -> None:
        """End all that still run."""
        for program in self._started:
            program.stop()


class Program:
    """A program at work beside us, from the moment it is made; `answer` waits for it.

    A program that gives no answer is killed with its children; one that no signal can end is
    left behind.
    """

    def __init__(self, programs: Programs, limit_s: float, *command: str) -> None:
        self._name = command[0]
        self._limit_s = min(limit_s * patience(), programs.left())
        self._end = time.monotonic() + self._limit_s
        self._answer: Answer | None = None
        self._process: subprocess.Popen[bytes] | None = None
        program = shutil.which(command[0])
        if program is None:
            self._answer = Answer(127, f"{self._name}: not found")
        elif not self._limit_s:
            text = f"skipped, the time limit of {programs.seconds:.0f} s is used up"
            self._answer = Answer(124, f"{self._name}: {text}")
        else:
            self._start([program, *command[1:]])

    def _start(self, command: list[str]) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # /dev/null may be missing
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
                preexec_fn=_begin,  # noqa: PLW1509 # no threads here
            )
        except OSError as error:
            self._answer = Answer(126, f"{self._name}: {error.strerror}")
            return
        if self._process.stdin:
            self._process.stdin.close()

    def answer(self) -> Answer:
        """What it answers; waits to its time limit."""
        if self._answer is None and self._process is not None:
            self._answer = self._wait(self._process)
        return self._answer or Answer(127, f"{self._name}: not started")

    def _wait(self, process: subprocess.Popen[bytes]) -> Answer:
        ended, said = self._read(process)
        text = said.decode("utf-8", "surrogateescape").rstrip("\n")
        if ended:
            try:
                return Answer(process.wait(max(0.1, self._end - time.monotonic())), text)
            except subprocess.TimeoutExpired:
                pass
        self.stop()
        return Answer(124, f"{self._name}: no answer in {self._limit_s:.0f} s", text)

    def _read(self, process: subprocess.Popen[bytes]) -> tuple[bool, bytes]:
        """Whether it closed its output in time, and the output."""
        said = b""
        if process.stdout is None:
            return True, said
        while (
            len(said) < _MOST_BYTES
            and select.select([process.stdout], [], [], max(0.0, self._end - time.monotonic()))[0]
        ):
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                return True, said
            said += part
        return False, said

    def stop(self) -> None:
        """End it, where it still runs."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        try:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(_TO_DIE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        except OSError:
            pass  # it has just ended


def slurp(path: str | Path) -> str:
    """The text of a file without its last line feeds; empty where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return ""
    return data.decode("utf-8", "surrogateescape").rstrip("\n")
