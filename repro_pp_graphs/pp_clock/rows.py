"""A rank's rows: a file of fixed size that is mapped into memory. Standard library only: the server
writes it, and what was written outlives a kill -9 of the server.

The first HEADER_BYTES hold a JSON object, the rest rows. Row number n (from 1) lies at place
(n - 1) % capacity and begins and ends with its number, so that a torn row is recognised. Once full,
the newest rows overwrite the oldest.
"""

from __future__ import annotations

import gzip
import json
import mmap
import os
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from repro_pp_graphs.conform import misfit

HEADER_BYTES = 8192
# number, begin ns, end ns, turn, kind, flags, batch size, 0, value, number (low bits)
LAYOUT = struct.Struct("<QqqIBBHIQI")
ROW_BYTES = LAYOUT.size
_pack_into = LAYOUT.pack_into
CAPACITY = 1 << 20  # rows a rank: 48 MiB, 15 minutes of 1,000 rows a second
LEAST_CAPACITY = 1 << 12
MOST_CAPACITY = 1 << 24  # 768 MiB a rank, four hours of 1,000 rows a second
MOST_RANKS = 1 << 16  # as for traces; more is damage, and so is a longer loop
DISK_SHARE = 32  # a rank's file takes at most this part of what is free
PREFIX_ENV = "REPRO_PP_CLOCK"  # where a server's ranks put their files: the start of their paths
NUMBERS_ENV = "REPRO_PP_CLOCK_NUMBERS"  # 0: no profile comes that messages are numbered for
CLOCK = "_pp_clock"  # that start, after a launch's label
SUFFIX = ".rows"
NOT_STARTED = "not started"  # how a header's `failed` begins, and the reason in the server's log
LOG_NOT_STARTED = "repro shim pp_clock: not started"
NO_WORD = "the server's log says why"
LOW = 0xFFFFFFFF
# What is read of a header, and how large its numbers can be (conform.py); any may be missing.
_LIMITS = {
    **dict.fromkeys(("pp_rank", "tp_rank", "pp_size", "loop_size"), MOST_RANKS),
    **{"capacity": MOST_CAPACITY, "alternate": LOW},
}
_SHAPE: dict[str, object] = {
    **dict.fromkeys(_LIMITS, int),
    **dict.fromkeys(("found", "lacks"), dict[str, str]),
    "missed": dict[str, int],
    "unix_ahead_ns": int,
    **dict.fromkeys(("boot_id", "failed"), str),
}

# What a row times; the first seven, and an exchange, make a turn one with work.
KINDS = {
    1: "launch",  # run_batch: the host's launch of a graph or of an eager batch
    2: "send_tokens",
    3: "recv_tokens",
    4: "send_hidden",
    5: "recv_hidden",
    6: "wait_sent_tokens",  # an earlier asynchronous send is waited for
    7: "wait_sent_hidden",
    8: "wait_sent_requests",
    9: "send_requests",
    10: "recv_requests",
    11: "wait_results",  # for the copy of the token ids to the host
    12: "process",  # the host's work on results; up to 0.5.6 with that copy in it
    13: "turn",
    14: "own_batch",  # on the GPU, from the batch's first kernel to its last, on the host's clock
    15: "exchange",  # a turn's sends and receives in one batch (the shim batched_p2p)
}
CODES = {name: code for code, name in KINDS.items()}
LAST_OF_WORK = CODES["wait_sent_hidden"]
# of a rank's host: it sends, receives, or waits for either or for its results
WAITS = frozenset(
    name for name in CODES if name.startswith(("send_", "recv_", "wait_")) or name == "exchange"
)

# Where the clock alternates: of four windows of turns, those with it on. Turns grow longer with the
# context, which so favours neither.
ON_OF_FOUR = (0, 3)
DECODE, PREFILL, GRAPH, OFF, PROFILED = 1, 2, 4, 8, 16  # flags of a row


class RowsError(ValueError):
    """A file that holds no rows; the message names it."""


class Row(NamedTuple):
    """One timed call, or one turn."""

    number: int  # from 1, over all rows of the rank
    begin_ns: int  # CLOCK_MONOTONIC
    end_ns: int
    turn: int  # of the rank's loop, from 0: micro-batch = turn % loop_size
    kind: int
    flags: int
    batch_size: int
    unused: int  # 0; in older files the P2P messages that the rank had begun by then
    value: int  # turn: turns without work before it; own_batch: uncertainty of the clock, ns


def host_clock() -> dict[str, object]:
    """For a header: this host's boot, and by how much its Unix time is ahead of CLOCK_MONOTONIC,
    ns. Rows of two boots have no clock in common but Unix time."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return {"boot_id": boot, "unix_ahead_ns": time.time_ns() - time.monotonic_ns()}


def path_of(prefix: str, pp_rank: int, tp_rank: int) -> Path:
    """The file of a rank."""
    return Path(f"{prefix}_PP{pp_rank}_TP{tp_rank}{SUFFIX}")


def capacity_for(folder: Path, wanted: int) -> int:
    """Rows that a rank's file may hold: fewer than wanted on a disk that is nearly full."""
    free = shutil.disk_usage(folder).free
    return max(LEAST_CAPACITY, min(wanted, MOST_CAPACITY, free // DISK_SHARE // ROW_BYTES))


class RowFile:
    """A rank's rows while they are written; by one thread."""

    def __init__(self, path: Path, capacity: int) -> None:
        """Take the room on disk, so that no write can fail for lack of it. Raises OSError."""
        size = HEADER_BYTES + capacity * ROW_BYTES
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            self.map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self.capacity = capacity
        self.count = 0
        self._header: dict[str, Any] = {"format": 1, "capacity": capacity}

    def describe(self, **facts: object) -> None:
        """Add facts to the header; what does not fit there is left out, and says so."""
        self._header.update(facts)
        data = json.dumps(self._header).encode()
        if len(data) >= HEADER_BYTES:
            data = json.dumps({"format": 1, "capacity": self.capacity, "cut": True}).encode()
        self.map[:HEADER_BYTES] = data.ljust(HEADER_BYTES, b"\0")

    def write(  # noqa: PLR0917 - names cost time
        self,
        begin_ns: int,
        end_ns: int,
        turn: int,
        kind: int,
        flags: int = 0,
        batch_size: int = 0,
        value: int = 0,
    ) -> None:
        """Append a row."""
        count = self.count
        number = count + 1
        _pack_into(
            self.map,
            HEADER_BYTES + count % self.capacity * ROW_BYTES,
            number,
            begin_ns,
            end_ns,
            turn,
            kind,
            flags,
            batch_size,
            0,
            value,
            number & LOW,
        )
        self.count = number


class Rows(NamedTuple):
    """What a rank's file holds: its header, its whole rows by number, what is missing."""

    header: dict[str, Any]
    rows: list[Row]
    lost: int  # rows that newer ones have overwritten
    torn: int  # rows of which a part was written, or that say what cannot be


def _header(data: bytes, path: Path) -> dict[str, Any]:
    try:
        found = json.loads(data.rstrip(b"\0"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("format") != 1:
        raise RowsError(f"{path} has no header of the clock's: the rank died while it began")
    fault = misfit(found, _SHAPE) or next(
        (
            f"{name}: not from 0 to {most}"
            for name, most in _LIMITS.items()
            if not 0 <= found.get(name, 0) <= most
        ),
        "",
    )
    if fault:
        raise RowsError(f"{path} has a damaged header ({fault})")
    return found


def _unpacked(data: bytes) -> Iterator[tuple[int, ...]]:
    """The whole rows up to the last that was written: most of a file's room is zeros, as a rule."""
    used = len(data.rstrip(b"\0"))
    rows = min(-(-used // ROW_BYTES), len(data) // ROW_BYTES)
    return LAYOUT.iter_unpack(memoryview(data)[: rows * ROW_BYTES])


def _content(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header, and the bytes of as many rows as it says that there is room for."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = _header(file.read(HEADER_BYTES), path)
            return header, file.read(header.get("capacity", CAPACITY) * ROW_BYTES)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise RowsError(f"{path} is cut short or damaged") from None


def read(path: Path) -> Rows:
    """The rows of a rank, from its file or a compressed copy (.gz). Raises RowsError, OSError."""
    header, data = _content(path)
    found, torn = [], 0
    for fields in _unpacked(data):
        row = Row(*fields[:-1])
        if row.number & LOW != fields[-1]:
            torn += 1
        elif row.number and row.kind in KINDS and row.begin_ns <= row.end_ns:
            found.append(row)
        else:
            torn += row.number > 0
    found.sort()
    return Rows(header, found, found[0].number - 1 if found else 0, torn)


def keep(path: Path) -> Path:
    """Compress a rank's file beside it, without the rows never written, and remove it; the copy.

    Raises RowsError where it has neither header nor rows, OSError.
    """
    data = path.read_bytes()
    used = data.rstrip(b"\0")
    if len(used) <= HEADER_BYTES:
        _header(data[:HEADER_BYTES], path)
    target = path.with_name(path.name + ".gz")
    draft = target.with_name(target.name + ".part")
    rest = -(len(used) - HEADER_BYTES) % ROW_BYTES if len(used) > HEADER_BYTES else 0
    size = max(HEADER_BYTES, len(used) + rest)
    try:
        draft.write_bytes(gzip.compress(data[:size], 6, mtime=0))
        draft.replace(target)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    path.unlink()
    return target
