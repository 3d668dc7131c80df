"""Chrome trace files in blocks: gzip or plain, whole or cut short, in bounded memory.

Kineto writes one event after another with a fixed indentation, so a file can be cut between two
top-level events without parsing it. A file laid out differently is read in one piece instead.
"""

from __future__ import annotations

import gzip
import importlib
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, TypeVar, cast

import msgspec

try:  # twice as fast as zlib, but no part of an sglang environment
    igzip: ModuleType | None = importlib.import_module("isal.igzip")
except ImportError:
    igzip = None

# What is made of a block should stay in the cache: with a MiB reading takes a fifth longer.
BLOCK_BYTES = 1 << 17
# A raw newline cannot stand inside a JSON string, so this always lies between two objects.
EVENT_GAP = b",\n  "
BOUNDARY = b"}" + EVENT_GAP + b"{"
NON_JSON_NUMBER = re.compile(rb"(:\s*)-?(?:inf|nan|Infinity|NaN)\b")
SALVAGE_TRIES = 64
GUNZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile) + (
    (igzip.IsalError,) if igzip is not None and hasattr(igzip, "IsalError") else ()
)

NO_JSON = (msgspec.DecodeError, UnicodeDecodeError)

Value = int | float | str | None
Decoded = TypeVar("Decoded")
RAW_EVENTS = msgspec.json.Decoder(list[msgspec.Raw])


class Header(msgspec.Struct):
    """What a trace says about itself outside its events."""

    distributedInfo: Any = None
    baseTimeNanoseconds: int = 0
    host_name: str = ""


class _WholeFile(msgspec.Struct):
    traceEvents: list[msgspec.Raw]
    distributedInfo: Any = None
    baseTimeNanoseconds: int = 0
    host_name: str = ""


def open_trace(path: Path) -> IO[bytes]:
    """Open a trace for reading; gzip is told by its first two bytes, not by the name."""
    with path.open("rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    if not zipped:
        return path.open("rb")
    return cast(IO[bytes], (igzip or gzip).open(path, "rb"))


def mend(block: bytes) -> bytes:
    """The block with numbers JSON has no word for (inf, nan) as null, and as UTF-8."""
    mended = NON_JSON_NUMBER.sub(rb"\1null", block)
    return mended if mended.isascii() else mended.decode(errors="replace").encode()


def each_of(array: bytes, decoder: msgspec.json.Decoder[Decoded]) -> tuple[list[Decoded], int]:
    """The events of an array one by one, and how many hold what no event does (`"cat": null`).

    Raises one of NO_JSON where the array is no JSON.
    """
    found: list[Decoded] = []
    events = RAW_EVENTS.decode(array)
    for event in events:
        try:
            found.append(decoder.decode(event))
        except NO_JSON:
            continue
    return found, len(events) - len(found)


class TraceFile:
    """One trace file as JSON arrays of complete events.

    `blocks()` may be walked once; `header`, `problems` and `sound` (nothing had to be mended or
    left out) are complete after it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = Header()
        self.problems: list[str] = []
        self.sound = True

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
                yield memoryview(room)[begin : cut + 2]
                room[: end - cut - 1] = b"[" + room[cut + 2 : end]
                begin, end = 0, end - cut - 1
            held = end
            if held == len(room):
                room = room + bytes(held)
        if begin >= 0:
            last = self._close(bytes(room[begin + 1 : held]))
            if last is not None:
                yield memoryview(last)
        elif not self.problems:
            blank = not room[:held].strip()
            self.problems.append("is empty" if blank else "holds no traceEvents")

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
        """What a gzip stream has before it breaks off: a read that meets that place gives none."""
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
        if head.lstrip()[:1] == b"[":
            return head.index(b"[")
        key = head.find(b'"traceEvents"')
        bracket = head.find(b"[", key) if key >= 0 else -1
        if bracket >= 0:
            about = bytes(head[:key]) + b'"traceEvents": []}'
            if self._take(Header, about) is None:
                self.problems.append("the header is not valid JSON: rank, clock, host not known")
        return bracket

    def _take(self, kind: type[msgspec.Struct], text: bytes) -> list[msgspec.Raw] | None:
        """Decode the text, keep the header fields it holds; its events, None if it is no JSON."""
        try:
            found = msgspec.json.decode(mend(text), type=kind, strict=False)
        except NO_JSON:
            return None
        for name in Header.__struct_fields__:
            if value := getattr(found, name, None):
                setattr(self.header, name, value)
        return found.traceEvents if isinstance(found, _WholeFile) else []

    def _close(self, rest: bytes) -> bytes | None:
        """The last array: what is left up to the closing bracket, or as much as still parses."""
        for wrapped in (b'{"traceEvents": [' + rest, b'{"traceEvents": [' + rest + b"}"):
            events = self._take(_WholeFile, wrapped)
            if events is not None:
                return b"[" + EVENT_GAP.join(events) + b"]" if events else None
        self.sound = False
        if not self.problems:
            self.problems.append("is not valid JSON to its end: read up to there")
        end = len(rest)
        for _ in range(SALVAGE_TRIES):
            end = rest.rfind(b"}", 0, end)
            if end < 0:
                break
            events = self._take(_WholeFile, b'{"traceEvents": [' + rest[: end + 1] + b"]}")
            if events is not None:
                return b"[" + EVENT_GAP.join(events) + b"]"
        return None
