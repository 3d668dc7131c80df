"""Sends streams and reads their responses: what both readers share, and the one of threads."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable

import requests

from .clock import KernelClock, clock_ns
from .server import Server, describe_io_error
from .stream import Stream

CONNECT_TIMEOUT_S = 10.0


class Reader:
    """Sends streams and puts each on `finished` when its response has ended, well or not."""

    name = ""

    def __init__(self, server: Server) -> None:
        self.finished: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.clock = KernelClock()
        self.clock.sample()
        self._server = server

    def connect(self, stream: Stream) -> None:
        """Do ahead of sending what can be done ahead."""

    def send(self, stream: Stream) -> None:
        """Send the request and return; sets `sent_ns`."""
        raise NotImplementedError

    def look_after(self, active: Iterable[Stream], now_ns: int) -> None:
        """End streams that have been silent for longer than --stall-timeout; bound the memory."""

    def close(self) -> None:
        """Stop reading and drop what is still open."""

    def _read_reply(self, stream: Stream, reply: requests.Response) -> None:
        """Read a response that `requests` holds, to its end."""
        error = None
        content_type = reply.headers.get("Content-Type", "")
        stream.answer.expect_body(reply.status_code, content_type)
        # Only a chunked body is handed over as it comes; any other is read to its end.
        framed = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
        try:
            with reply:
                for data in reply.iter_content(None if framed else 1):
                    stream.last_ns = clock_ns()
                    stream.reads.append((stream.last_ns, data, 0, len(data), None))
        except OSError as exc:  # requests.RequestException is one
            error = describe_io_error(exc, "reading", self._server.url)
        self._end(stream, error)

    def _end(self, stream: Stream, error: str | None) -> None:
        stream.error = stream.error or error
        stream.end_ns = clock_ns()
        self.finished.put(stream)


class ThreadReader(Reader):
    """A thread a stream, over `requests` alone, for compressed bodies and odd systems. Dearer."""

    name = "threads"

    def send(self, stream: Stream) -> None:
        stream.sent_ns = clock_ns()
        threading.Thread(target=self._exchange, args=(stream,), daemon=True).start()

    def _exchange(self, stream: Stream) -> None:
        server = self._server
        try:
            reply = server.session.send(
                server.prepare(stream.body),
                timeout=(CONNECT_TIMEOUT_S, server.options.stall_timeout_s),
                **server.settings,
            )
        except OSError as exc:  # requests.RequestException is one
            self._end(stream, describe_io_error(exc, "connecting or sending", server.url))
        else:
            self._read_reply(stream, reply)
