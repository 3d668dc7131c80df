"""Chrome trace files in blocks: gzip or plain, whole or cut short, in bounded memory.

Kineto writes one event after another with a fixed indentation, so a file can be cut between two
top-level events without parsing it. A file laid out differently is read in one piece instead.
"""

from __future__ import annotations

import gzip
import importlib
import io
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, cast

import msgspec

from repro_pp_graphs.traces.read.numbers import number
from repro_pp_graphs.traces.read.salvage import (
    BETWEEN,
    NO_JSON,
    ONE_VALUE,
    Damage,
    mend,
    take_apart,
    utf_8,
)

try:  # twice as fast as zlib, but no part of an sglang environment
    igzip: ModuleType | None = importlib.import_module("isal.igzip")
except ImportError:
    igzip = None

# What is made of a block should stay in the cache: with a MiB reading takes a fifth longer.
BLOCK_BYTES = 1 << 17
# A raw newline cannot stand inside a JSON string, so this always lies between two objects.
EVENT_GAP = b",\n  "
BOUNDARY = b"}" + EVENT_GAP + b"{"
BLANK = b"\xef\xbb\xbf \t\r\n"  # as some editors begin a file
OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')
FIRST_EVENT = re.compile(rb'[^{}](?=\{\s*"(?:ph|cat|name)"\s*:\s*")')
LONGEST_OTHER = 1 << 24  # bytes; results of clients are shorter
MERGED_HEAD = 4096  # bytes, in which a trace of all ranks says so
# Real traces unpack to 10 to 40 times their size; gzip can say a thousand times as much.
USUALLY_UNPACKED = 40
MOST_UNPACKED = 200
ALWAYS_UNPACKED = 1 << 28  # bytes of the JSON
LONGEST_PIECE = 1 << 30  # bytes without a place between two events: an array in one line
GUNZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile) + (
    (igzip.IsalError,) if igzip is not None and hasattr(igzip, "IsalError") else ()
)

Value = int | float | str | None
# A closing bracket of the array is looked for among this many last ones.
BRACKETS = 8


class Header(msgspec.Struct):
    """What a trace says about itself outside its events."""

    distributedInfo: Any = None
    baseTimeNanoseconds: Any = None
    host_name: Any = None
    deviceProperties: Any = None


class _WholeFile(Header, kw_only=True):
    traceEvents: list[msgspec.Raw]


def open_trace(path: Path) -> IO[bytes]:
    """Open a trace for reading; gzip is recognised by its first two bytes, not by the name."""
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    if not zipped:
        return path.open("rb")
    return cast(IO[bytes], (igzip or gzip).open(path, "rb"))


class _OtherFile(msgspec.Struct):
    traceEvents: msgspec.Raw | None = None


def is_other_json(path: Path) -> bool:
    """Whether a file is whole JSON, but no trace: an object without traceEvents, as what a client
    writes. One that is long, damaged or unreadable is not known to be."""
    with suppress(OSError, *GUNZIP_ERRORS, msgspec.DecodeError), open_trace(path) as stream:
        text = stream.read(LONGEST_OTHER + 1)
        if len(text) <= LONGEST_OTHER:
            return msgspec.json.decode(text, type=_OtherFile).traceEvents is None
    return False


def is_merged(path: Path) -> bool:
    """Whether a file is a trace of all ranks, as `merge` writes them: it says so at its head."""
    with suppress(OSError, *GUNZIP_ERRORS), open_trace(path) as stream:
        return b'"mergedFrom"' in stream.read(MERGED_HEAD)
    return False


def plain(value: Value) -> Value:
    """A pid or tid, one that is digits in a string as the number."""
    if type(value) is int:
        return value
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


class TraceFile:
    """One trace file as JSON arrays of complete events.

    `blocks()` may be walked once; `header`, `problems` and `damage` (of its end) are complete after
    it. `at` is the byte of the JSON with which the block begins that was yielded last.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = Header()
        self.problems: list[str] = []
        self.damage: list[Damage] = []
        self.at = 0
        self._most_bytes = math.inf
        self._most_held = LONGEST_PIECE

    def blocks(self) -> Iterator[memoryview]:
        """Yield JSON arrays of top-level events, of about BLOCK_BYTES where the layout allows.

        All stand in the same memory, which is faster than new one: one is lost with the next.
        """
        try:
            stream = open_trace(self.path)
        except OSError as error:
            self._unreadable(error)
            return
        with stream:
            if isinstance(stream, gzip.GzipFile):
                stored = self.path.stat().st_size
                self._most_bytes = max(ALWAYS_UNPACKED, stored * MOST_UNPACKED)
                usual = max(ALWAYS_UNPACKED, stored * USUALLY_UNPACKED)
                self._most_held = min(LONGEST_PIECE, usual)
            yield from self._arrays(stream)

    def _arrays(self, stream: IO[bytes]) -> Iterator[memoryview]:
        room, held, begin, more = bytearray(BLOCK_BYTES), 0, -1, True
        passed = 0  # bytes of the stream
        while more:
            got, more = self._fill(stream, memoryview(room)[held:], passed)
            passed += got
            end, seen = held + got, max(0, held - len(BOUNDARY))
            if begin < 0:
                begin = self._skip_header(room[:end])
            cut = room.rfind(BOUNDARY, max(begin, seen), end) if begin >= 0 else -1
            if cut >= 0:
                room[cut + 1] = ord("]")  # in the comma's place
                self.at = passed - end + begin
                yield memoryview(room)[begin : cut + 2]
                room[: end - cut - 1] = b"[" + room[cut + 2 : end]
                begin, end = 0, end - cut - 1
            held = end
            if begin < 0 and held > LONGEST_OTHER:
                break
            if passed > self._most_bytes or held > self._most_held:
                self._too_long(passed)
                return
            if held == len(room):
                room = room + bytes(held)
        if begin < 0 and not self.problems:
            begin = self._skip_damage(bytes(room[:held]))
            if more:
                self.problems.append(f"no more than its first {LONGEST_OTHER >> 20} MiB were read")
        if begin >= 0:
            self.at = passed - held + begin
            last = self._close(bytes(room[begin + 1 : held]))
            if last is not None:
                yield memoryview(last)

    def _too_long(self, passed: int) -> None:
        times = "unpacks to more than 200 times its size" if passed > self._most_bytes else ""
        why = times or f"{self._most_held >> 20} MiB without a place between two events"
        self.problems.append(f"{why}: damaged, or no trace; read up to there")

    def _fill(self, stream: IO[bytes], room: memoryview, passed: int) -> tuple[int, bool]:
        """Read into the room, after so many bytes: how many more, and whether to go on."""
        try:
            got = cast(io.BufferedIOBase, stream).readinto(room)
            return got, got > 0
        except GUNZIP_ERRORS:
            self.problems.append("the gzip stream is cut short or damaged: read up to there")
            return self._last(room, passed), False
        except OSError as error:
            self._unreadable(error)
        return 0, False

    def _last(self, room: memoryview, passed: int) -> int:
        """Recover the bytes before the place where a gzip stream breaks off: how many."""
        got = 0
        with suppress(OSError, *GUNZIP_ERRORS), gzip.open(self.path) as stream:
            stream.seek(passed)
            while got < len(room) and (read := stream.readinto1(room[got:])):
                got += read
        return got

    def _unreadable(self, error: OSError) -> None:
        self.problems.append(f"cannot be read: {error.strerror or error}")

    def _skip_header(self, head: bytearray) -> int:
        """Where the array of events opens, -1 where it is not there yet."""
        if head.lstrip(BLANK)[:1] == b"[":
            return head.index(b"[")
        opening = OPENING.search(head)
        if not opening:
            return -1
        about = bytes(head[: opening.start()]).lstrip(BLANK)
        if self._take(Header, about + b'"traceEvents": []}') is None:
            self._take_singly(about.decode(errors="replace"))
        return opening.end() - 1

    def _skip_damage(self, text: bytes) -> int:
        """The byte before the first event where no array opens, -1 where there is none."""
        first = FIRST_EVENT.search(text)
        if first:
            self._take_singly(text[: first.start()].decode(errors="replace"))
            return first.start()
        self.problems.append("holds no traceEvents" if text.strip() else "is empty")
        return -1

    def _take_singly(self, text: str) -> None:
        """Take from a header that is no JSON those of its fields that are."""
        for name in Header.__struct_fields__:
            found = re.search(rf'"{name}"\s*:\s*', text)
            with suppress(ValueError, RecursionError):
                if found:
                    setattr(self.header, name, ONE_VALUE.raw_decode(text, found.end())[0])
        names = {"rank": "distributedInfo", "clock": "baseTimeNanoseconds", "host": "host_name"}
        lacks = [word for word, name in names.items() if getattr(self.header, name) is None]
        self.problems.append(
            "the header is not valid JSON: "
            + (f"{', '.join(lacks)} not known" if lacks else "its rank, clock and host are")
        )

    def _take(self, kind: type[Header], text: bytes) -> list[msgspec.Raw] | None:
        """Decode the text, keep the header fields it holds; its events, None if it is no JSON."""
        for version in (utf_8, mend):
            with suppress(*NO_JSON):
                found = msgspec.json.decode(version(text), type=kind)
                break
        else:
            return None
        for name in Header.__struct_fields__:
            if value := getattr(found, name, None):
                setattr(self.header, name, value)
        return found.traceEvents if isinstance(found, _WholeFile) else []

    def _close(self, rest: bytes) -> bytes | None:
        """The last array: what is left up to the closing bracket, or as much of it as is JSON."""
        for wrapped in (b'{"traceEvents": [' + rest, b'{"traceEvents": [' + rest + b"}"):
            events = self._take(_WholeFile, wrapped)
            if events is not None:
                return b"[" + EVENT_GAP.join(events) + b"]" if events else None
        whole, damage = take_apart(rest)
        if not self._ends(damage) and not self.problems:
            self.problems.append("is not valid JSON to its end: read up to there")
        self.damage += damage
        return b"[" + EVENT_GAP.join(whole) + b"]" if whole else None

    def _ends(self, damage: list[Damage]) -> bool:
        """Whether the last stretch holds the array's end; it is taken from the damage, and so are
        the remains of an event with which the file breaks off."""
        if not damage:
            return False
        at, text = damage.pop()
        for bracket in list(re.finditer(rb"\}?\s*\]", text))[: -BRACKETS - 1 : -1]:
            after = text[bracket.end() :]
            if after.strip() and self._take(Header, b'{"traceEvents": []' + after) is None:
                continue
            lost = text[: bracket.start()]
            damage += [Damage(at, lost)] if lost.strip(BETWEEN) else []
            return True
        return False
