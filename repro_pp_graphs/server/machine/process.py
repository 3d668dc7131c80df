"""Processes by pid, from /proc: do they run, who descends from whom, which sockets are theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

# in the environment of a process that Slurm started for a server of ours: its leader's pid
MARK = "REPRO_SERVER_OF"
_STATE, _PARENT, _SESSION, _START = 0, 1, 3, 19  # fields of /proc/PID/stat after the command's name


def stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat after the command's name; empty where there is no such pid."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    # the name may itself hold spaces and brackets
    return text.rpartition(b")")[2].decode("ascii", "replace").split()


def alive(pid: int) -> bool:
    """True while the process runs; a zombie that waits for its parent does not."""
    fields = stat(pid)
    return bool(fields) and fields[_STATE] not in ("Z", "X")


def start_ticks(pid: int) -> str:
    """When the process began, in clock ticks since boot: a recycled pid has another one. Empty
    where there is no such process."""
    fields = stat(pid)
    return fields[_START] if fields else ""


def session(leader: int) -> list[int]:
    """The live processes of the session that `leader` began, by pid, and those that Slurm started
    for it on this machine; empty where there are none."""
    marked = _marked(leader)
    found = ((pid, stat(pid)) for pid in sorted(_pids()))
    return [
        pid
        for pid, fields in found
        if fields
        and fields[_STATE] not in ("Z", "X")
        and (fields[_SESSION] == str(leader) or pid in marked)
    ]


def _marked(leader: int) -> set[int]:
    """The processes whose environment names `leader`: what Slurm starts descends from Slurm."""
    found: set[int] = set()
    if "SLURM_JOB_ID" not in os.environ:  # outside of a job there are none
        return found
    for pid in _pids():
        with contextlib.suppress(OSError):
            if variable(pid, MARK) == str(leader):
                found.add(pid)
    return found


def name(pid: int) -> str:
    """The name that the kernel keeps, at most 15 characters; empty for no process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except OSError:
        return ""


def title(pid: int) -> str:
    """The start of its command line, or its name."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        words = b""
    return words.decode("utf-8", "replace").strip()[:60] or name(pid)


def variable(pid: int, name: str) -> str:
    """A variable of its environment; empty where it is not set. Raises OSError where the process
    may not be looked into."""
    head = f"{name}=".encode()
    words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((os.fsdecode(word[len(head) :]) for word in words if word.startswith(head)), "")


def _pids() -> list[int]:
    with os.scandir("/proc") as found:
        return [int(each.name) for each in found if each.name.isdigit()]


def family(pid: int) -> set[int]:
    """The process, its descendants, whoever is in the session that it leads, and those that Slurm
    started for it."""
    parents: dict[int, int] = {}
    found = {pid} | _marked(pid)
    for each in _pids():
        if fields := stat(each):
            parents[each] = int(fields[_PARENT])
            if int(fields[_SESSION]) == pid:
                found.add(each)
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def socket_inodes(pids: Iterable[int]) -> set[str]:
    """The sockets that these processes hold open, by their numbers; without those of processes
    that may not be looked into."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for path in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(path.readlink())
                    if target.startswith("socket:["):
                        found.add(target[len("socket:[") : -1])
    return found


def owners(inode: str) -> list[int]:
    """The processes that hold a socket open, as far as they may be looked into."""
    return [pid for pid in sorted(_pids()) if inode in socket_inodes([pid])]
