"""The reader of one thread that waits for all sockets at once; the hot path."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator

import urllib3

from .clock import ANCILLARY_BYTES, TICK_S, Ancillary, clock_ns
from .handover import HandOver, _HandsOver, receive_tls
from .reader import CONNECT_TIMEOUT_S, Reader
from .server import Server, describe_io_error
from .stream import Stream

READ_BYTES = 1 << 16
SLAB_BYTES = 1 << 22
RAW_BYTES_KEPT = 64 << 20
READS_A_STEP = 50
GATHER_NS = 1_000_000


class EpollReader(Reader):
    """One thread reads every socket, response heads included, so that a first token that comes in
    the same packet as the head is stamped like any other. `requests` sends."""

    name = "epoll"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._poller = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._stop_reader, self._stop = socket.socketpair()
        self._poller.register(self._stop_reader, select.EPOLLIN)
        self._unparsed: list[Stream] = []
        self._parsing = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def connect(self, stream: Stream) -> None:
        stream.prepared = self._server.prepare(stream.body)
        if self._server.plain():
            parts = self._server.parts
            connection = urllib3.connection.HTTPConnection(
                parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S
            )
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):  # send() reports it
                connection.connect()
                _HandsOver.opened.append(connection.sock)

    def send(self, stream: Stream) -> None:
        server = self._server
        prepared = stream.prepared or server.prepare(stream.body)
        prepared.headers["Connection"] = "close"  # not of what requests pools: it would race
        stream.prepared, stream.sent_ns = None, clock_ns()
        try:
            reply = server.adapter.send(
                prepared,
                timeout=(CONNECT_TIMEOUT_S, server.options.stall_timeout_s),
                **server.settings,
            )
        except HandOver as given:
            stream.sock, stream.sent_ns = given.sock, given.sent_ns
            stream.sock.setblocking(False)
            if isinstance(stream.sock, ssl.SSLSocket):
                stream.receive = functools.partial(receive_tls, stream.sock)
            else:
                stream.receive = stream.sock.recvmsg_into
            self._unparsed.append(stream)
            self._streams[stream.sock.fileno()] = stream
            self._poller.register(stream.sock, select.EPOLLIN)
        except OSError as exc:  # requests.RequestException is one
            self._end(stream, describe_io_error(exc, "connecting or sending", server.url))
        else:
            threading.Thread(target=self._read_reply, args=(stream, reply), daemon=True).start()

    def look_after(self, active: Iterable[Stream], now_ns: int) -> None:
        limit_s = self._server.options.stall_timeout_s
        self.clock.sample()
        for stream in active:
            silent_s = (now_ns - max(stream.last_ns, stream.sent_ns)) / 1e9
            if stream.sock is None or silent_s < 2 * TICK_S:
                continue
            with self._parsing:
                stream.parse_reads(self.clock, self.clock.sampled_ns)
            if silent_s > limit_s:
                stream.error = f"stalled: no byte for {limit_s:g} s (--stall-timeout)"
            if silent_s > limit_s or stream.answer.complete():
                with contextlib.suppress(OSError):  # the reader may have closed it just now
                    stream.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stop.send(b"s")
        self._thread.join()
        left = [stream.sock for stream in self._streams.values() if stream.sock]
        for sock in [*left, *_HandsOver.opened, self._stop, self._stop_reader]:
            sock.close()
        _HandsOver.opened.clear()
        self._poller.close()

    def _read(self) -> None:
        """Read until close() is called.

        Waking up costs several times what a read costs. With the kernel's stamps nothing is lost by
        gathering, so busy rounds start GATHER_NS apart, or a quarter of the shortest time between
        two reads of one stream: what comes to a stream in between would bear one stamp.
        """
        poll, streams = self._poller.poll, self._streams
        rounds_ns = self.clock.rounds_ns
        slab, at, held = bytearray(SLAB_BYTES), 0, 0
        room = memoryview(slab)
        parsing: Iterator[None] | None = None
        woken_ns = renew_ns = 0
        shortest_ns = last_shortest_ns = 4 * GATHER_NS
        stamped: Ancillary = None
        while True:
            ready = poll()
            before_ns, woken_ns = woken_ns, clock_ns()
            now_ns = woken_ns
            for fd, _ in ready:
                stream = streams.get(fd)
                if stream is None or stream.receive is None:
                    return
                error = None
                try:
                    size, ancillary, _, _ = stream.receive((room[at:],), ANCILLARY_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError as exc:
                    size, ancillary = 0, None
                    error = describe_io_error(exc, "reading", self._server.url)
                now_ns = clock_ns()
                end = at + size
                if size:
                    stream.reads.append((now_ns, room, at, end, ancillary))
                    shortest_ns = min(shortest_ns, now_ns - stream.last_ns)
                    stream.last_ns, stamped = now_ns, ancillary
                if not size or slab.endswith(b"\r\n0\r\n\r\n", at, end):
                    self._drop(fd, stream)
                    self._end(stream, error)
                at = end
                if SLAB_BYTES - at < READ_BYTES:
                    held += at
                    slab, at = bytearray(SLAB_BYTES), 0
                    room = memoryview(slab)
            rounds_ns.append(now_ns - woken_ns)
            if held > RAW_BYTES_KEPT:
                parsing, held = parsing or self._parse_backlog(), 0
            if parsing is not None and next(parsing, parsing) is parsing:
                parsing = None
            gather_ns = min(shortest_ns, last_shortest_ns) // 4
            if stamped and woken_ns - before_ns < 2 * gather_ns and gather_ns > GATHER_NS // 10:
                time.sleep(max(0, woken_ns + gather_ns - clock_ns()) / 1e9)
            if woken_ns > renew_ns:
                renew_ns = woken_ns + 100 * GATHER_NS
                shortest_ns, last_shortest_ns = 4 * GATHER_NS, shortest_ns

    def _parse_backlog(self) -> Iterator[None]:
        """Parse what has come, a little at a step; another thread would fight for the GIL."""
        streams, self._unparsed = self._unparsed, []
        for stream in streams:
            more = True
            while more:
                with self._parsing:
                    more = stream.parse_reads(self.clock, self.clock.sampled_ns, READS_A_STEP)
                yield
            if stream.reads or stream.end_ns == 0:
                self._unparsed.append(stream)

    def _drop(self, fd: int, stream: Stream) -> None:
        self._poller.unregister(fd)
        del self._streams[fd]
        if stream.sock is not None:
            stream.sock.close()
