"""A process by pid: does it still run, what is it called, who is in its session?"""

from __future__ import annotations

from pathlib import Path


def _stat(pid: int) -> list[str]:
    """/proc/<pid>/stat from the state on: state, parent, group, session, ...; empty for none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    # the command name may itself hold spaces and brackets
    return stat.rpartition(")")[2].split()


def alive(pid: int) -> bool:
    """True while the process runs; a zombie that waits for its parent does not."""
    stat = _stat(pid)
    return bool(stat) and stat[0] not in ("Z", "X")


def session(leader: int) -> list[int]:
    """The live processes of the session that `leader` began, by pid; empty where it began none."""
    pids = sorted(int(path.name) for path in Path("/proc").glob("[0-9]*"))
    found = ((pid, _stat(pid)) for pid in pids)
    return [
        pid for pid, stat in found if stat and stat[0] not in ("Z", "X") and stat[3] == str(leader)
    ]


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
