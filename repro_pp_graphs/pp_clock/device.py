"""When a rank's own batches ran on its GPU, on the host's clock, without ever waiting for the GPU.

Two CUDA events lie around a batch's kernels; they are read after a later launch, once both have
passed. A base event ties the GPU's time to the host's: it is recorded on an idle stream between two
looks at the host's clock, and asked for in between. It is renewed twice a second, for CUDA gives
the time between two events as a float of ms, which is good for less than 1 us only up to some
seconds.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

RENEW_NS = 500_000_000
LATE_NS = 1_500_000_000  # of a base that no launch has renewed: tried at a turn's begin too
TRY_AGAIN_NS = 100_000_000
OLDEST_NS = 4_000_000_000  # 2 ** 12 ms in a float32: steps of 0.24 us
PATIENCE_NS = 200_000  # for a base event to pass; between the two looks
MOST_PENDING = 64
SPARE = 4  # batches whose events are made at the start; more are made when needed

# Why a batch is not timed: what a header counts, and how a warning says it.
MISSED = {
    "untied": "nothing tied the GPU's clock to the host's",
    "unread": f"{MOST_PENDING} batches before them had not been read",
    "captured": "a CUDA graph was being captured",
}

Write = Callable[[int, int, int, int], None]  # turn, begin ns, end ns, uncertainty ns


class _Base(NamedTuple):
    event: Any
    host_ns: int  # the middle of the two looks
    width_ns: int  # between them


class DeviceClock:
    """The events of one rank. Its methods belong to the scheduler's thread.

    The GPU waits while an event is recorded before its batch. So torch's functions in C are called
    themselves where `native`, torch._C, has them: each of torch.cuda's own in Python costs 1 us or
    two on a server's host, and its current_stream() makes an object.
    """

    def __init__(
        self,
        cuda: Any,  # noqa: ANN401 - torch.cuda
        write: Write,
        native: Any = None,  # noqa: ANN401
    ) -> None:
        self._cuda = cuda
        self._write = write
        self._idle = cuda.Stream(priority=-1)
        capturing = getattr(native, "_cuda_isCurrentStreamCapturing", None)
        self._capturing: Callable[[], bool] = capturing or cuda.is_current_stream_capturing
        event = getattr(native, "_CudaEventBase", cuda.Event)
        self._record_on: Callable[[Any, Any], None] = event.record
        # the current stream of a device as a number
        raw_stream = getattr(native, "_cuda_getCurrentRawStream", None)
        self._raw_stream: Callable[[int], int] | None = raw_stream
        self._device: int = cuda.current_device() if raw_stream else 0
        self._number = raw_stream(self._device) if raw_stream else 0  # of the stream known
        self._stream: Any = cuda.current_stream() if raw_stream else None
        self._free = [cuda.Event(enable_timing=True) for _ in range(2 * SPARE)]
        self._pending: deque[tuple[int, Any, Any, _Base]] = deque()
        self._base: _Base | None = None
        self._tried_ns = 0
        self._begun: Any = None
        self._expected = False
        self.missed = dict.fromkeys(MISSED, 0)  # batches that are not timed, by reason

    def _record(self) -> Any:  # noqa: ANN401
        """An event on the current stream."""
        event = self._free.pop() if self._free else self._cuda.Event(enable_timing=True)
        if self._raw_stream is None:
            event.record()
            return event
        number = self._raw_stream(self._device)
        if number != self._number:
            self._number, self._stream = number, self._cuda.current_stream()
        self._record_on(event, self._stream)
        return event

    def expect(self) -> None:
        """A batch is about to be launched: the next `begin` is its."""
        self._expected, self._begun = True, None

    def begin(self) -> None:
        """Right before a batch's first kernel is launched, on the stream that it goes to."""
        if not self._expected:
            return
        self._expected = False
        if self._base is None:
            self.missed["untied"] += 1
        elif len(self._pending) >= MOST_PENDING:
            self.missed["unread"] += 1
        elif self._capturing():
            self.missed["captured"] += 1
        else:
            self._begun = self._record()

    def end(self, turn: int) -> None:
        """Right after its last kernel was launched."""
        begun, self._begun, self._expected = self._begun, None, False
        if begun is None or self._base is None:
            return
        self._pending.append((turn, begun, self._record(), self._base))

    def read(self, running: int = 0) -> None:
        """Write down the batches that have ended by now, two at most, since a launch adds one; of
        the newest `running` it is not even asked."""
        for _ in range(min(2, len(self._pending) - running)):
            if not self._pending[0][2].query():
                return
            turn, begun, ended, base = self._pending.popleft()
            self._write(turn, _host_ns(base, begun), _host_ns(base, ended), base.width_ns)
            self._free += (begun, ended)

    def renew(self, now_ns: int, due_ns: int = RENEW_NS) -> None:
        """Tie the GPU's time to the host's anew, where the last time is `due_ns` ago."""
        base = self._base
        age_ns = now_ns - base.host_ns if base else OLDEST_NS
        if age_ns < due_ns or now_ns - self._tried_ns < TRY_AGAIN_NS:
            return
        self._tried_ns = now_ns
        event = self._cuda.Event(enable_timing=True)
        before_ns = time.monotonic_ns()
        event.record(self._idle)
        passed = event.query()
        after_ns = time.monotonic_ns()
        while not passed and after_ns - before_ns <= PATIENCE_NS:
            passed = event.query()
            after_ns = time.monotonic_ns()
        if passed and after_ns - before_ns <= PATIENCE_NS:
            self._base = _Base(event, (before_ns + after_ns) // 2, after_ns - before_ns)
        elif age_ns >= OLDEST_NS:
            self._base = None  # too old to be exact: no times rather than wrong ones


def _host_ns(base: _Base, event: Any) -> int:  # noqa: ANN401
    since_base_ms: float = base.event.elapsed_time(event)
    return base.host_ns + round(since_base_ms * 1e6)
