"""What the ranks of a server that hangs are doing: their last lines, and their stacks.

The stacks go to logs/<label>_hang.txt, by py-spy, or where that is missing or not permitted by
Python's own faulthandler: sglang enables it in every rank, and an abort prints all threads to the
server's log. It ends the rank, so it is only for a server that is ended next.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sys
import textwrap
import time
from pathlib import Path

from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.environment import masking
from repro_pp_graphs.files import write_whole
from repro_pp_graphs.server.log import log_lines
from repro_pp_graphs.server.machine import process
from repro_pp_graphs.terminal import wrapped

DUMP_LIMIT_S = 20.0  # for py-spy to read one process
ALL_DUMPS_LIMIT_S = 120.0
ABORT_LIMIT_S = 5.0  # for an aborted rank's stacks to reach the log
MOST_RANKS = 8  # on the terminal
RANK_NAME = "sglang::schedul"  # as the kernel keeps it, of sglang::scheduler_PP1


def rank_lines(text: str) -> list[str]:
    """For the terminal: what each rank said last, the longest silent first."""
    last = log_lines.last_by_rank(log_lines.lines(text))
    if not last:
        return []
    width = max(map(len, last))
    shown = list(last.items())[:MOST_RANKS]
    lines = ["    ranks, each with its last step or stage, longest silent first:"]
    for rank, line in shown:
        head = f"      {rank:<{width}} {line.when[-8:]} "
        text = visible(masking.excerpt(line.text))
        lines.append(head + textwrap.shorten(text, 79 - len(head), placeholder=" ..."))
    if len(last) > len(shown):
        lines.append(f"      and {len(last) - len(shown)} ranks that spoke later")
    return lines


def find_py_spy(python: str) -> str | None:
    """py-spy beside the server's interpreter or this one, or on the PATH; None for none."""
    beside = (str(Path(one).parent) for one in (python, sys.executable))
    return next(filter(None, (shutil.which("py-spy", path=one) for one in beside)), None) or (
        shutil.which("py-spy")
    )


def dump(py_spy: str, pid: int) -> str:
    """The stacks of a process's threads. Raises OSError with what py-spy says where it fails."""
    import subprocess  # noqa: PLC0415 - 4 ms, and most steps run no program

    try:
        done = subprocess.run(
            [py_spy, "dump", "--pid", str(pid)],
            capture_output=True,
            text=True,
            timeout=DUMP_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(f"py-spy had not read it in {DUMP_LIMIT_S:.0f} s") from None
    if done.returncode:
        raise OSError(" ".join(done.stderr.split()) or f"py-spy: exit {done.returncode}")
    return done.stdout


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):  # it may have ended
            os.kill(pid, number)


def abort_for_stacks(pids: list[int], leader: int, log_path: Path) -> str:
    """End ranks so that faulthandler prints their stacks; what the server's log gained by it.

    One after the other, as all write to one file. The rest is stopped meanwhile: neither the main
    process nor a peer may end a rank before its turn.
    """
    before = log_path.stat().st_size
    _send([leader, *pids], signal.SIGSTOP)
    for pid in pids:
        with contextlib.suppress(OSError):
            # no core file of a rank's memory: 1 stops a core pattern that is a pipe, too
            resource.prlimit(pid, resource.RLIMIT_CORE, (1, 1))
        _send([pid], signal.SIGABRT)
        _send([pid], signal.SIGCONT)
        end_s = time.monotonic() + ABORT_LIMIT_S
        while process.alive(pid) and time.monotonic() < end_s:
            time.sleep(0.02)
    _send([leader, *pids], signal.SIGCONT)
    with log_path.open("rb") as file:
        file.seek(before)
        return file.read().decode("utf-8", "replace")


def stacks(pid: int, python: str, log_path: Path) -> tuple[str, str]:
    """The stacks of the ranks of the server `pid`, and in a few words whose and how."""
    members = process.session(pid)
    ranks = [one for one in members if process.name(one).startswith(RANK_NAME)]
    py_spy = find_py_spy(python)
    why = "py-spy is missing" if py_spy is None else ""
    parts, left = [], []
    end_s = time.monotonic() + ALL_DUMPS_LIMIT_S
    for one in ranks or members:
        try:
            if py_spy is None or time.monotonic() > end_s:
                raise OSError(why or f"no time left after {ALL_DUMPS_LIMIT_S:.0f} s")
            parts.append(dump(py_spy, one))
        except OSError as error:
            why = str(error)
            left.append(one)
            parts.append(f"process {one} ({masking.excerpt(process.title(one))}): {why}\n")
    got = len(parts) - len(left)
    said = [f"{got} of {len(parts)} processes by py-spy"] if got else []
    why = textwrap.shorten(why, 60, placeholder=" ...")
    if left and ranks:
        printed = abort_for_stacks(left, pid, log_path)
        parts.append(f"Stacks that the ranks printed when aborted for it:\n{printed}")
        number = printed.count("most recent call first")
        said.append(f"{number} threads by faulthandler ({why})")
    elif left:
        said.append(f"none of {len(left)} processes ({why})")
    return "\n".join(parts), ", ".join(said) or "the server has no process left"


def report(logs: Path, label: str, pid: int, python: str) -> list[str]:
    """Write logs/<label>_hang.txt; lines for the terminal."""
    log_path = logs / f"{label}_server.log"
    lines = rank_lines(log_lines.read_logs(log_path))
    found, how = stacks(pid, python, log_path)
    path = logs / f"{label}_hang.txt"
    write_whole(path, "\n".join([*lines, "", found]))
    return [*lines, *wrapped(f"{path}: {how}", "    stacks: ")]
