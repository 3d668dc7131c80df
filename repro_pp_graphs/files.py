"""Files that are written whole or not at all, also on a full disk, and JSON read with its types."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import Any, cast

from repro_pp_graphs.conform import misfit
from repro_pp_graphs.terminal import complain

LOW_BYTES = 32 << 20  # less free than this is worth a word where a write fails or is awaited
FULL_BYTES = 1 << 16  # less free than this stops a log
RESERVE = ".reserve"  # in a run's logs folder: given up when the disk is full
RESERVE_BYTES = 1 << 20
OVERHEAD_BYTES = 8192  # of a file that is written: its last block, its folder
DRAFT_SUFFIX = ".part"  # run_repro.sh knows it too
LAST_ROOM = "the room that was kept there for results is now in use; free some space"
FULL = (errno.ENOSPC, errno.EDQUOT)


class BadFile(ValueError):
    """A result file that holds something else; the message names file and fault."""


class NotThereError(ValueError):
    """What was named is not in the file that should hold it; the message says what there is."""


def is_full(error: OSError) -> bool:
    """True where a disk, or the user's quota on it, is full."""
    return error.errno in FULL


def draft_of(path: Path) -> Path:
    """Where a file is written until it is whole: beside it. A device or a pipe is itself."""
    path = path.resolve()
    special = path.exists() and not path.is_file()
    return path if special else path.with_name(f"{path.name}.{os.getpid()}{DRAFT_SUFFIX}")


def write_whole(path: Path, text: str) -> None:
    """Write `text` so that no reader, and no crash, ever sees a part of it.

    On a full disk the folder's reserve makes room for it. Raises OSError, the earlier file being
    untouched.
    """
    while True:
        try:
            return _write(path, text)
        except OSError as error:
            if not is_full(error) or not _draw_on_reserve(path.parent, len(text.encode())):
                raise


def write_json(path: Path, value: object) -> None:
    """write_whole for a JSON value, with a line a key."""
    write_whole(path, json.dumps(value, indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    draft = draft_of(path)
    if draft == path.resolve():
        path.write_text(text, encoding="utf-8")
        return
    try:
        with draft.open("w", encoding="utf-8") as file:
            _close_as(path, file.fileno())
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path.resolve())
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def _close_as(path: Path, descriptor: int) -> None:
    """Of a file that is to replace another: nobody reads it who could not read that one, and its
    owner still does."""
    with contextlib.suppress(OSError):
        there = path.stat()
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & there.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(descriptor, there.st_uid, there.st_gid)


def sync(path: Path) -> None:
    """Wait until a file's content is on its disk. Raises OSError."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def hold_reserve(folder: Path) -> None:
    """Take, or fill up, the room in a folder that write_whole may use once the disk is full.
    Raises OSError where there is too little."""
    hold_room(folder / RESERVE, RESERVE_BYTES)


def hold_room(path: Path, size: int) -> None:
    """Make a file of `size` bytes of disk, zeros. Raises OSError where there is too little room."""
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None


def _draw_on_reserve(folder: Path, size: int) -> bool:
    """Free `size` bytes and a little of the folder's reserve, no more than that: whoever else
    fills the disk takes the rest. False where nothing of it is left."""
    path = folder / RESERVE
    try:
        left = path.stat().st_size
        if left == RESERVE_BYTES:
            complain("run_repro.sh", f"the disk of {folder} is full: {LAST_ROOM}")
        os.truncate(path, max(0, left - size - OVERHEAD_BYTES))
    except OSError:
        return False
    return left > 0


def low_space(*folders: Path, below: int | None = None) -> str:
    """`the disk of /data has 3.1 MB free` for the first folder with less than `below` bytes
    (LOW_BYTES) of room; else empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            disk = os.statvfs(folder)
            free = disk.f_bavail * disk.f_frsize
            if free < (LOW_BYTES if below is None else below):
                return f"the disk of {folder} has {free / 1e6:.1f} MB free"
    return ""


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex; empty where it cannot be read."""
    import hashlib  # noqa: PLC0415 - loads OpenSSL, and most steps need none

    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def read_object(path: Path, hint: object = dict[str, Any]) -> dict[str, Any]:
    """The JSON object in a file, checked against a type hint (conform.py).

    Raises OSError where it cannot be read, BadFile where it is empty, cut off, or something else.
    """
    value = read_json(path)
    if fault := misfit(value, hint):
        raise not_ours(path, fault)
    return cast("dict[str, Any]", value)


def read_json(path: Path) -> object:
    """The JSON value in a file. Raises OSError, and BadFile where it is empty, cut off, or none."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text.strip("\0 \t\r\n"):
        raise BadFile(f"{path} is empty")
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        ends = isinstance(error, json.JSONDecodeError) and error.pos >= len(text.rstrip()) - 1
        what = "is cut off" if ends or "Unterminated" in str(error) else "is not JSON"
        raise BadFile(f"{path} {what}") from None
    return value


def not_ours(path: Path, fault: str) -> BadFile:
    """The error for a file of another form; `fault` says where, and what is wrong there."""
    return BadFile(f"{path} is not what this harness writes ({fault})")
