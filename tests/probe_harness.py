"""The probe in processes of its own on the CPU, with hooks in its ranks, and what it leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from pathlib import Path

from fake_sglang.harness import CHECKOUT, PYTHON, wait_until

MARK = "PROBE_TEST_RUN"  # every process of a run carries it in its environment
LIMIT_S = 600.0  # for what hangs; a busy machine takes minutes
TINY = ["--device", "cpu", "--hidden", "64", "--layers", "4", "--reps", "1"]

# runs before anything else of a Python process that has its folder on PYTHONPATH
HOOK = """
import os
if os.environ.get("RANK") == "{rank}":
    from repro_pp_graphs.probe.messages import Blocking
    send, recv = Blocking.send, Blocking.recv
{code}
"""


class Probe:
    """One run of the probe; as a context it ends whatever stays."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        module: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [PYTHON, *module, "-m", "repro_pp_graphs", "probe", *TINY, *options],
            cwd=folder,
            env={
                **os.environ,
                MARK: self.run,
                "TMPDIR": str(folder),  # a launcher that is killed leaves its folder there
                "PYTHONPATH": os.pathsep.join([str(folder), str(CHECKOUT)]),
                **(env or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.left_over():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def end(self) -> tuple[int, str, str]:
        """Wait for it; exit status, stdout, stderr."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, out, err

    def left_over(self) -> dict[int, str]:
        """Living processes of this run: rank by pid, "" for the launcher."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                variables = dict(
                    each.partition("=")[::2]
                    for each in (place / "environ").read_text(errors="replace").split("\0")
                )
                zombie = (place / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if variables.get(MARK) == self.run and not zombie:
                    found[int(place.name)] = variables.get("RANK", "")
        return found

    def pid_of(self, rank: int) -> int:
        (pid,) = (pid for pid, number in self.left_over().items() if number == str(rank))
        return pid

    def until(self, path: Path) -> None:
        """Until a file is there, which is when a repetition has ended."""
        wait_until(lambda: path.exists() or self.process.poll() is not None, LIMIT_S)
        assert self.process.poll() is None, self.process.communicate()


def plant(folder: Path, rank: int, code: str) -> None:
    """Have a rank run `code` first: it may replace Blocking's `send` and `recv`."""
    folder.mkdir(parents=True, exist_ok=True)
    body = "".join(f"    {line}\n" for line in code.strip().splitlines())
    (folder / "sitecustomize.py").write_text(HOOK.format(rank=rank, code=body))
