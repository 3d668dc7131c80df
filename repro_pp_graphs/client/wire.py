"""HTTP/1.1 responses: head and framing taken off, however they are cut into reads."""

from __future__ import annotations

import math
import re

LINE_FEED = ord("\n")
HEX = re.compile(rb"[0-9A-Fa-f]{1,15}")  # int() would take -5, +5, 0x5 and 5_0 too
DIGITS = re.compile("[0-9]{1,18}")
LONGEST_HEAD = 1 << 16  # bytes of a response's head, or of a chunk's size line


class Body:
    """Takes the framing off an HTTP/1.1 response, however it is cut into reads."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self.error: str | None = None  # why it is no HTTP; nothing is read after that
        self._chunked = False
        self._left: float = math.inf  # bytes to come, of the body or of a chunk and its line end
        self.pending = b""  # of the head or of a chunk's size line

    def expect(self, status: int, content_type: str) -> None:
        """What comes is a body without head, framing and compression."""
        self.status, self.headers = status, {"content-type": content_type}

    def compressed(self) -> bool:
        """Whether the body is coded in some way that is not undone here."""
        names = (self.headers.get(f"{what}-encoding", "") for what in ("content", "transfer"))
        codings = {coding.strip().lower() for name in names for coding in name.split(",")}
        return bool(codings - {"", "identity", "chunked"})

    def lone_event(self, data: bytes) -> bytes:
        """What follows `data:` where one event of one line, in a chunk or bare, is all of `data`.

        That is the usual. Empty for all else.
        """
        start, end = 0, len(data)
        if self._chunked:
            start, end = data.find(b"\n", 0, 10) + 1, end - 2
            size = end - start  # as servers write it; what else it may look like, `feed` knows
            if self._left != 0 or self.pending or size <= 0:
                return b""
            line = data[:start]
            if line != b"%x\r\n" % size and line != b"%X\r\n" % size:
                return b""
        elif self._left != math.inf:
            return b""
        if data[start : start + 5] != b"data:" or data.find(b"\n", start) != end - 2:
            return b""
        payload = data[start + 5 : end]
        return payload if payload[-1] == LINE_FEED and payload.find(b"\r") < 0 else b""

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`; sets `error` where it is no HTTP."""
        if self.error is not None:
            return b""
        raw, self.pending = self.pending + data, b""
        while self.status is None:
            head, ended, rest = raw.partition(b"\r\n\r\n")
            if not ended or len(head) > LONGEST_HEAD:
                self._hold(raw, "response head")
                return b""
            self._read_head(head.decode("latin-1").split("\r\n"))
            if self.error is not None:
                return b""
            raw = rest
        pieces, at = [], 0
        while at < len(raw) and not self.complete:
            if self._chunked and self._left == 0:
                line_end = raw.find(b"\r\n", at)
                if line_end < 0:
                    self._hold(raw[at:], "HTTP chunk size")
                    break
                found = HEX.fullmatch(raw[at:line_end].split(b";")[0].strip(b" \t"))
                if not found:
                    self._refuse(f"bad HTTP chunk size {raw[at:line_end][:20]!r}")
                    break
                size = int(found[0], 16)
                at, self._left, self.complete = line_end + 2, size + 2, size == 0
                continue
            piece = raw[at : at + int(min(self._left, len(raw)))]
            at += len(piece)
            framing = 2 if self._chunked else 0
            pieces.append(piece[: int(max(0, min(len(piece), self._left - framing)))])
            self._left -= len(piece)
            self.complete = self._left == 0 and not self._chunked
        return b"".join(pieces)

    def _hold(self, raw: bytes, what: str) -> None:
        """Keep what is not whole yet, unless it is too long to become it."""
        if len(raw) > LONGEST_HEAD:
            self._refuse(f"no end of the {what} in {LONGEST_HEAD} bytes")
        else:
            self.pending = raw

    def _refuse(self, why: str) -> None:
        self.error = f"malformed: {why}"
        self._left = math.nan  # no chunk begins any more

    def _read_head(self, lines: list[str]) -> None:
        fields = lines[0].split(None, 2)
        if (
            len(fields) < 2
            or not fields[0].startswith("HTTP/")
            or not re.fullmatch("[0-9]{3}", fields[1])
        ):
            self._refuse(f"not an HTTP response: {lines[0][:60]!r}")
            return
        if int(fields[1]) < 200:  # 100 Continue: the head proper follows
            return
        self.status = int(fields[1])
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        if self._chunked:
            self._left = 0
        elif DIGITS.fullmatch(length):
            self._left, self.complete = int(length), int(length) == 0
