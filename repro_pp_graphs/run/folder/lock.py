"""One run at a time in a folder: DIR/run.lock, which names the run that is at work there.

It is made by a hard link, or with O_EXCL where the file system has no links: both hold on NFS.
run_repro.sh removes it when it ends; one that kill -9 left is known by its owner having ended.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from repro_pp_graphs.server.machine import process

NAME = "run.lock"
STAMP = "%Y-%m-%dT%H:%M:%S"
WAIT_S = 5.0  # for another process that is just making, or removing, a lock


class LockError(RuntimeError):
    """Somebody else's lock; the message says whose, and what to do."""


class Owner(NamedTuple):
    """Who holds a lock, in the order of its line; run_repro.sh compares the first three."""

    boot: str  # the kernel's boot id
    pid: str
    start: str  # when the process began, in clock ticks since boot
    pid_space: str  # the container, as pids go
    machine: str  # a digest of /etc/machine-id; "unknown" where there is none
    host: str
    since: str
    folder: str = ""  # where it took the lock, as in a URL; older releases of this did not say

    def line(self) -> str:
        """As stored."""
        return " ".join(self).rstrip() + "\n"


def owner_of(pid: int, out: Path | None = None) -> Owner:
    """The process as an owner, now; of the folder `out`."""
    return Owner(
        _read("/proc/sys/kernel/random/boot_id"),
        str(pid),
        process.start_ticks(pid) or "gone",
        _pid_space(),
        _machine(),
        socket.gethostname() or "unknown",
        time.strftime(STAMP),
        quote(os.fsencode(out.resolve())) if out else "",
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def _pid_space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return "unknown"


def _machine() -> str:
    # machine-id(5) asks that it is not published as it is
    found = _read("/etc/machine-id")
    digest = hashlib.sha256(f"repro_pp_graphs {found}".encode()).hexdigest()
    return found if found == "unknown" else digest[:16]


def parse(text: str) -> Owner | None:
    """The owner that a lock names; None where it is no lock of ours."""
    words = text.split()
    known = len(Owner._fields)
    return Owner(*words) if len(words) in (known - 1, known) and words[1].isdigit() else None


def copied_from(path: Path, text: str, owner: Owner, here: Owner) -> str:
    """The folder that `owner` works in, where `path` is a copy of the lock that is there, with the
    same `text`; empty where that is not certain."""
    if not owner.folder or (owner.boot, owner.pid_space) != (here.boot, here.pid_space):
        return ""
    folder = os.fsdecode(unquote_to_bytes(owner.folder))
    its = Path(f"/proc/{owner.pid}/root{folder}") / NAME  # as that process sees it
    try:
        same = its.read_text(encoding="utf-8", errors="replace") == text
        # by the inode alone: one file system may be mounted twice
        return folder if same and its.stat().st_ino != path.stat().st_ino else ""
    except OSError:
        return ""


def held(owner: Owner, here: Owner) -> str:
    """Why a lock still counts, seen by `here`; empty where its owner has ended."""
    who = f"run_repro.sh (pid {owner.pid} on {owner.host}, since {owner.since.replace('T', ' ')})"
    if (owner.boot, owner.pid_space) == (here.boot, here.pid_space):
        pid = int(owner.pid)
        if process.alive(pid) and process.start_ticks(pid) == owner.start:
            return f"{who} is at work there: wait for it, or choose another --out"
        return ""
    known = "unknown" not in (owner.machine, here.machine)
    same = known and (owner.machine, owner.host) == (here.machine, here.host)
    if same and owner.boot != here.boot:
        return ""  # this machine has been started anew since
    return f"{who} began on another machine or in another container; once it has ended, remove"


def take(out: Path, pid: int) -> str:
    """Lock `out` for the process `pid`; returns a word on a stale lock that was there, or "".

    Raises LockError where a run is, or may be, at work there; OSError where it cannot be written.
    """
    path, mine, word = out / NAME, owner_of(pid, out), ""
    end_s = time.monotonic() + WAIT_S
    while not _make(path, mine.line()):
        with contextlib.suppress(FileNotFoundError), _alone(path):
            text = path.read_text(encoding="utf-8", errors="replace")
            owner = parse(text)
            if (text.strip() or time.monotonic() > end_s) and (why := _objection(path, text, mine)):
                raise LockError(why)
            if owner:
                copied = copied_from(path, text, owner, mine)
                path.unlink()
                whose = f"a run that has ended (pid {owner.pid})"
                if copied:
                    whose = f"the run in {copied} (pid {owner.pid}), copied from there"
                word = f"{path} of {whose}: taken over"
        time.sleep(0.05)
    return word


def objection(out: Path, pid: int) -> str:
    """Why the process `pid` could not lock `out` now; empty where nothing speaks against it."""
    try:
        text = (out / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return _objection(out / NAME, text, owner_of(pid)) if text.strip() else ""


def _objection(path: Path, text: str, here: Owner) -> str:
    """Why the lock that holds `text` still counts; empty where its owner has ended."""
    owner = parse(text)
    if owner is None:
        return f"{path} is no lock of this harness: remove it if no run is at work there"
    why = "" if copied_from(path, text, owner, here) else held(owner, here)
    return why and f"{path.parent}: {why}{f' {path}' if why.endswith('remove') else ''}"


def _make(path: Path, line: str) -> bool:
    """Make the lock with its line in it; False where there is one. Raises OSError."""
    draft = path.with_name(f"{NAME}.{socket.gethostname()}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            # NFS may repeat a link that it has made: then the draft has two names
            return draft.stat().st_nlink == 2
        except OSError:
            return _make_exclusively(path, line)
        return True
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _make_exclusively(path: Path, line: str) -> bool:
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(line)
    except OSError:
        path.unlink()
        raise
    return True


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of the processes of this machine only one judges, and removes, a lock at a time."""
    where = path.parent.stat()
    name = f"\0repro_pp_graphs lock {where.st_dev} {where.st_ino}"
    with socket.socket(socket.AF_UNIX) as mutex:
        end_s = time.monotonic() + WAIT_S
        while True:
            try:
                mutex.bind(name)
                break
            except OSError:
                if time.monotonic() > end_s:
                    raise LockError(f"{path}: another run is taking it: try again") from None
                time.sleep(0.02)
        yield
