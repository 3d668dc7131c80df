"""Sends what is due, and waits until every stream has ended."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
import queue
import select
import time
from collections import deque
from collections.abc import Iterator

from .clock import TICK_S, clock_ns
from .epoll import EpollReader
from .options import Options
from .progress import Progress
from .reader import ThreadReader
from .run import Run
from .server import Server
from .stream import Stream

RETRY_S = 0.25  # under --duration: a dead server must not be asked thousands of times a second


class Driver:
    """Sends what is `ahead`, at most --concurrency streams at a time, until all have ended."""

    def __init__(
        self,
        ahead: Iterator[Stream],
        server: Server,
        options: Options,
        label: str,
        beside: Iterator[Stream] | None = None,
    ) -> None:
        """`beside`: requests that are sent when they are due for as long as others are active."""
        self._ahead, self._beside = ahead, beside or iter(())
        self._duration_s = options.duration_s
        self._open_loop = options.request_rate is not None
        self._limit = options.concurrency
        self._free: deque[tuple[int, int]] = deque()  # (lane, free since)
        self._active: set[Stream] = set()
        threaded = options.reader == "threads" or not hasattr(select, "epoll")
        self._reader = ThreadReader(server) if threaded else EpollReader(server)
        self._progress = Progress(label)
        self._run = Run(reader=self._reader.name, clock=self._reader.clock)

    def run(self) -> Run:
        """Returns when all is done, or at once on Ctrl-C or SIGTERM: then `interrupted`."""
        run = self._run
        run.begin_ns = next_tick_ns = clock_ns()
        gc.disable()
        try:
            upcoming = self._begin()
            visitor = next(self._beside, None)
            while upcoming is not None or self._active:
                upcoming = self._send_due(upcoming)
                visitor = self._send_beside(upcoming, visitor)
                now_ns = clock_ns()
                if now_ns >= next_tick_ns:
                    self._reader.look_after(self._active, now_ns)
                    self._progress.show(run, self._active, now_ns)
                    next_tick_ns = now_ns + round(TICK_S * 1e9)
                wake_ns = next_tick_ns
                if upcoming is not None and self._free:
                    wake_ns = min(wake_ns, self._due_ns(upcoming))
                if visitor is not None:
                    wake_ns = min(wake_ns, self._due_ns(visitor))
                self._collect(max(0, wake_ns - now_ns) / 1e9)
        except KeyboardInterrupt:
            run.interrupted = True
            for stream in self._active:
                stream.error = stream.error or "interrupted: stopped by a signal"
        finally:
            run.end_ns = clock_ns()
            run.cpu_s += time.process_time()
            self._reader.close()
            run.clock.sample()
            gc.enable()
            self._progress.clear()
        return run

    def _begin(self) -> Stream | None:
        """Connect the first wave of a closed loop, so that it leaves together; start the clock."""
        wave = [] if self._open_loop else list(itertools.islice(self._ahead, self._limit))
        for stream in wave:
            self._reader.connect(stream)
        self._ahead = itertools.chain(wave, self._ahead)
        self._run.begin_ns, self._run.cpu_s = clock_ns(), -time.process_time()
        self._free.extend((lane, self._run.begin_ns) for lane in range(self._limit or 1))
        return next(self._ahead, None)

    def _due_ns(self, stream: Stream) -> int:
        if stream.due_offset_ns is not None:
            return self._run.begin_ns + stream.due_offset_ns
        return self._free[0][1]

    def _send_due(self, upcoming: Stream | None) -> Stream | None:
        """Send all that is due and has a free lane; the first that is not, or None at the end."""
        begin_ns = self._run.begin_ns
        end_ns = begin_ns + self._duration_s * 1e9 if self._duration_s else math.inf
        while upcoming is not None and self._free:
            due_ns = self._due_ns(upcoming)
            if max(due_ns, clock_ns()) >= end_ns:
                return None
            if due_ns > clock_ns():
                break
            upcoming.intended_ns = upcoming.start_ns = due_ns
            if self._limit is not None:
                upcoming.lane, _ = self._free.popleft()
            if self._open_loop:
                upcoming.lane = len(self._run.streams)
            self._run.streams.append(upcoming)
            self._active.add(upcoming)
            self._reader.send(upcoming)
            if not self._open_loop:
                upcoming.start_ns = upcoming.sent_ns
            upcoming = next(self._ahead, None)
        return upcoming

    def _send_beside(self, upcoming: Stream | None, visitor: Stream | None) -> Stream | None:
        """Send what is due beside the load; the first that is not, or None once the load has
        ended."""
        while visitor is not None and self._due_ns(visitor) <= clock_ns():
            visitor.intended_ns = visitor.start_ns = self._due_ns(visitor)
            visitor.lane = -1
            self._run.streams.append(visitor)
            self._active.add(visitor)
            self._reader.send(visitor)
            visitor = next(self._beside, None)
        working = upcoming is not None or any(not each.beside for each in self._active)
        return visitor if working else None

    def _collect(self, timeout_s: float) -> None:
        """Take in the streams that have ended, waiting for the first up to `timeout_s`."""
        with contextlib.suppress(queue.Empty):
            stream = self._reader.finished.get(timeout=timeout_s)
            while True:
                self._active.discard(stream)
                if self._limit is not None and not stream.beside:
                    pause_ns = round(RETRY_S * 1e9) if stream.failed_early() else 0
                    self._free.append((stream.lane, stream.end_ns + pause_ns))
                stream = self._reader.finished.get_nowait()
