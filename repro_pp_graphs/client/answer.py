"""The response to one request, from its raw bytes to one record a prompt."""

from __future__ import annotations

import contextlib
import re
import zlib

from .errors import (
    CHECK_PATH,
    COMPRESSED,
    JSON,
    not_understood,
    run_together,
    words_of,
    wrong_answer,
)
from .events import KEPT_BYTES, EventStream
from .options import Options
from .payload import NOT_UNDERSTOOD, fail, take_event
from .quick_count import is_quick, quick_count
from .record import Record
from .wire import Body

SECRETS = re.compile(r"(?<=//)[^/]*@|[?#].*")  # in an address: a password, a token
UNCOUNTED = (
    "uncounted: the server sent text without token counts; "
    "it has to support stream_options.include_usage"
)


class Answer:
    """The response to one request: its reads go in, `records` get the tokens, one a prompt."""

    def __init__(self, prompts: int) -> None:
        self.records = [Record() for _ in range(prompts)]
        self._body = Body()
        self._stream = EventStream()
        self._error: str | None = None
        self._error_body = b""  # of an HTTP error
        self._done = False
        self._quick: bool | None = None  # whether quick_count and the JSON parser agreed here

    @property
    def status(self) -> int | None:
        return self._body.status

    def expect_body(self, status: int, content_type: str = "") -> None:
        """The reads are the decoded body: no HTTP framing."""
        self._body.expect(status, content_type)

    def complete(self) -> bool:
        """Whether nothing more can come, even on a connection that stays open."""
        return self._done or self._body.complete or (self._error or self._body.error) is not None

    def has_output(self) -> bool:
        """Whether an event with output has been parsed."""
        return any(record.events or record.uncounted_ns for record in self.records)

    def ignored_lines(self) -> list[bytes]:
        """What the rules for event streams say to ignore, of an answer that is otherwise well."""
        failed = any(record.error for record in self.records)
        return [] if failed else self._stream.strange().splitlines()

    def feed(self, arrival_ns: int, data: bytes) -> None:
        """Parse one read."""
        body = self._body
        if self._stream.between:
            payload = body.lone_event(data)
            if payload:
                self._take(arrival_ns, b"", payload)
                return
        text = body.feed(data)
        if body.status == 200:
            for event in self._stream.feed(arrival_ns, text):
                self._take(*event)
        elif len(self._error_body) < KEPT_BYTES:
            self._error_body += text

    def finish(self, stream_error: str | None, options: Options) -> list[Record]:
        """The records, with the error of each that failed; `stream_error` is the reader's."""
        error = self._whole_error(stream_error)
        for record in self.records:
            if record.error is not None:
                continue
            if error is not None:
                record.error = error
            elif record.finish_reason is None or (record.went_on and not self._done):
                record.error = self._cut_error(stream_error, record.went_on)
            elif record.uncounted_ns:
                record.error = UNCOUNTED
            elif not record.events or (
                options.ignore_eos and record.tokens < options.max_new_tokens
            ):
                record.error = (
                    f"short: {record.tokens} of {options.max_new_tokens} tokens "
                    f"(finish reason {record.finish_reason})"
                )
        return self.records

    def _whole_error(self, stream_error: str | None) -> str | None:
        """What went wrong with the response as a whole, if it is known from its bytes."""
        body = self._body
        if self.status is None:
            if not body.pending and body.error is None:
                return None
            cut = "malformed: the connection closed before a whole response head"
            return stream_error or body.error or cut
        if self.status != 200:
            return self._http_error()
        if body.compressed():
            return COMPRESSED
        return self._error or body.error

    def _http_error(self) -> str:
        body, location = self._error_body, self._body.headers.get("location")
        if location and 300 <= (self.status or 0) < 400:
            place = SECRETS.sub("", location)
            return f"http {self.status}: moved to {place}; {CHECK_PATH}"
        if self._body.compressed():
            with contextlib.suppress(zlib.error):
                body = zlib.decompressobj(wbits=47).decompress(body, KEPT_BYTES)
        return f"http {self.status}: {words_of(body.decode('utf-8', 'replace'))}"

    def _cut_error(self, stream_error: str | None, went_on: bool) -> str:
        """Why a prompt has no finish reason; with `went_on`, none after its last text."""
        strange, error = self._stream.strange(), None
        if strange:
            content_type = self._body.headers.get("content-type", "")
            error = wrong_answer(strange, content_type, self._stream.fields)
        if error or stream_error:
            return error or stream_error or ""
        left = self._stream.unended().decode("utf-8", "replace")
        if run_together(left):
            return not_understood(left)
        note = f" (it also holds lines that are no event: {strange[:60]!r})" if strange else ""
        if went_on:
            return f"truncated: text came after a finish reason, and no [DONE] at the end{note}"
        end = "[DONE] came" if self._done else "the stream ended"
        return f"truncated: {end} without a finish reason{note}"

    def _take(self, arrival_ns: int, name: bytes, data: bytes) -> None:
        """Count the tokens of an event, or note its error."""
        records = self.records
        if self._quick and not name:
            quick = quick_count(data, len(records))
            # a prompt's first event tells how long the prompt is, its last one may not come
            if quick is not None and quick[0] < len(records) and records[quick[0]].events:
                records[quick[0]].add(arrival_ns, quick[1])
                return
        self._stream.fields = True
        text = data.decode("utf-8", "replace").strip()
        self._done = self._done or text == "[DONE]"
        if self._done or not text or text.startswith(":"):  # a proxy wrapped a comment up as data
            return
        if name.lower() == b"error":
            fail(records, words_of(text))
            return
        try:
            taken = take_event(records, arrival_ns, JSON.decode(text))
        except NOT_UNDERSTOOD:
            if name in (b"", b"message"):  # events of another name, as pings, may be anything
                self._error = self._error or not_understood(text)
            return
        if self._quick is None and taken is not None and not name:
            self._quick = is_quick(data, len(records), taken)
