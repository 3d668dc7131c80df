"""The turn that a rank is in, and the rows that it leaves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from threading import get_ident
from time import monotonic_ns
from typing import Any

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.device import LATE_NS, RENEW_NS, DeviceClock
from repro_pp_graphs.pp_clock.rows import CODES, LAST_OF_WORK, RowFile
from repro_pp_graphs.server.patching.replace import replace

_LAUNCH, _TURN, _OWN_BATCH = CODES["launch"], CODES["turn"], CODES["own_batch"]
_EXCHANGE = CODES["exchange"]
MOST_NOTED = 1 << 10  # rows; a turn has some ten

Call = Callable[..., Any]
_log = logging.getLogger(__name__)


class Clock:
    """One rank's clock: the turn that it is in, and the file that its rows go to.

    What runs between the results of a turn and the next launch delays the GPU, microsecond by
    microsecond: there a row is noted, no more. After the launch, or in a turn without work, what
    was noted is written (`_settle`), messages are counted and the GPU's events read: what a server
    loses that is killed are its rows since its last launch.
    """

    def __init__(self, file: RowFile, alternate: int, profiled: Callable[[], bool]) -> None:
        self.file = file
        self.on = True  # rows are written; off in every second window, and after a fault
        self.turn = 0
        self.device: DeviceClock | None = None
        self.profiled = profiled
        # for a wait while a profile runs: what its messages are called, and an annotation
        self.name_of_works: Callable[[Any], str] = lambda _works: ""
        self.span: Callable[[str], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        self.thread = get_ident()  # the scheduler's
        self._alternate = alternate
        self._taken: list[tuple[Any, str, Call, Call]] = []  # owner, name, its own, the clock's
        self._begin_ns = 0
        self._noted: list[tuple[int, ...]] = []  # rows, as RowFile.write takes them
        self.later: list[Callable[[], None]] = []  # what else is done after a launch
        self._mark = 0  # rows noted before this turn's
        self._work = False
        self._flags = self._batch_size = self._without_work = 0
        self._missed = 0  # batches, as the header has them
        self._failed = False

    def take(self, owner: Any, name: str, wrapped: Call, always: bool) -> None:  # noqa: ANN401
        """Put a wrapped function in place; one that is not there `always` is taken away while the
        clock is off, so that its windows are without what the clock costs. Raises TypeError."""
        own = getattr(owner, name)
        replace(owner, name, wrapped)
        if not always and name in getattr(owner, "__dict__", ()):
            self._taken.append((owner, name, own, wrapped))

    @property
    def alternates(self) -> bool:
        """Whether it is off now and then."""
        return self._alternate > 0

    def _switch(self, on: bool) -> None:
        if on == self.on:
            return
        self.on = on
        for owner, name, own, wrapped in self._taken:
            before, after = (own, wrapped) if on else (wrapped, own)
            if getattr(owner, name) is before:  # not what another shim has put over it since
                replace(owner, name, after)

    def fail(self, what: str, error: Exception) -> None:
        """Stop for good, and say why."""
        try:
            self.stop(f"turn {self.turn}: {what}: {type(error).__name__}: {error}")
            _log.warning("repro shim pp_clock: stopped (%s: %r); the server goes on", what, error)
        except Exception:
            _log.exception("repro shim pp_clock: stopped; the server goes on")

    def stop(self, why: str) -> None:
        """No rows from now on; the file's header says why."""
        self._failed, self.on, self.device = True, False, None
        with contextlib.suppress(Exception):  # it may be what failed
            self._settle()
        self.file.describe(failed=why)

    def write(self, kind: int, begin_ns: int, end_ns: int) -> None:
        """A call of this turn."""
        if not self.on or get_ident() != self.thread:
            return
        noted = self._noted
        noted.append((begin_ns, end_ns, self.turn, kind))
        if kind <= LAST_OF_WORK or kind == _EXCHANGE:
            self._work = True
        if len(noted) > MOST_NOTED:  # no launch is seen here, nor a turn
            self._written()

    def _written(self) -> None:
        """What was noted is written, or the clock stops."""
        try:
            self._settle()
        except Exception as error:
            self.fail("a row", error)

    def _settle(self) -> None:
        """Write down what was noted. Raises what the file, or `later`, raises."""
        noted, self._noted, self._mark = self._noted, [], 0  # none is written twice after a fault
        for each in self.later:
            each()
        write = self.file.write
        for row in noted:
            write(*row)

    def batch(self, decode: bool, size: int) -> None:
        """The batch of this turn, before it is launched."""
        self._work = True
        self._flags |= rows.DECODE if decode else rows.PREFILL
        self._batch_size = min(size, 0xFFFF)
        if self.device and self.on:
            self.device.expect()

    def before_kernels(self) -> None:
        """The batch's first kernel is launched next."""
        if self.device and self.on and get_ident() == self.thread:
            try:
                self.device.begin()
            except Exception as error:
                self.fail("the event before a batch", error)

    def launched(self, begin_ns: int, end_ns: int, graph: bool) -> None:
        """The batch of this turn was launched: the GPU is busy, and earlier batches are read."""
        if self.device and self.on:
            try:
                self.device.end(self.turn)
                self.device.read(running=1)
                self.device.renew(end_ns)
            except Exception as error:
                self.fail("the events of a batch", error)
        self.write(_LAUNCH, begin_ns, end_ns)
        if graph:
            self._flags |= rows.GRAPH
        if self.on and get_ident() == self.thread:
            self._written()

    def next_turn(self) -> None:
        """A turn begins: the one before is over."""
        if self._failed or get_ident() != self.thread:
            return
        try:
            self._next_turn(monotonic_ns())
        except Exception as error:
            self.fail("a turn", error)

    def _next_turn(self, now_ns: int) -> None:
        worked = self._work
        if self._begin_ns:
            self._close(now_ns)
            self.turn += 1
        self._begin_ns, self._work, self._batch_size = now_ns, False, 0
        self._flags = rows.PROFILED if self.profiled() else 0
        if self._alternate:
            self._switch(self.turn // self._alternate % 4 in rows.ON_OF_FOUR)
            self._flags |= 0 if self.on else rows.OFF
        if not worked:  # no launch may follow for long
            self._settle()
        if self.device and self.on:
            if not worked:
                self.device.read()
                self._count_missed(self.device.missed)
            # behind a batch just launched the event may not pass: CUDA_DEVICE_MAX_CONNECTIONS=1
            self.device.renew(now_ns, LATE_NS if worked else RENEW_NS)
        self._mark = len(self._noted)

    def _count_missed(self, missed: dict[str, int]) -> None:
        """In the header, which batches the GPU's clock did not time, where there are more now."""
        if sum(missed.values()) > self._missed:
            self._missed = sum(missed.values())
            self.file.describe(missed=missed)

    def _close(self, now_ns: int) -> None:
        if not self._work:  # a server without requests turns thousands of times a second
            del self._noted[self._mark :]
            self._without_work += 1
            return
        found = self._flags, self._batch_size, self._without_work
        self._noted.append((self._begin_ns, now_ns, self.turn, _TURN, *found))
        self._without_work = 0

    def own_batch(self, turn: int, begin_ns: int, end_ns: int, width_ns: int) -> None:
        """What the GPU did for a batch of an earlier turn."""
        self.file.write(begin_ns, end_ns, turn, _OWN_BATCH, 0, 0, width_ns)
