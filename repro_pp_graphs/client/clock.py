"""When bytes arrived: the kernel's receive stamps, put on this process's monotonic clock."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
import time

TICK_S = 0.25
# asm-generic/socket.h and linux/net_tstamp.h; Python's socket module has no names for them.
SO_TIMESTAMPING = SCM_TIMESTAMPING = 37
SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE = 1 << 3, 1 << 4
SCM_TIMESTAMPING_BYTES = 48  # three timespecs of 64 bits; the first is the software stamp
ANCILLARY_BYTES = socket.CMSG_SPACE(SCM_TIMESTAMPING_BYTES) if hasattr(socket, "CMSG_SPACE") else 0
TIMESPEC = struct.Struct("=qq")
clock_ns = time.monotonic_ns
Ancillary = list[tuple[int, int, bytes]] | None  # what came with a read, as recvmsg_into has it


class KernelClock:
    """Turns the kernel's receive stamps, CLOCK_REALTIME, into CLOCK_MONOTONIC.

    NTP slews both clocks alike, so their difference only changes when somebody sets the time. It is
    sampled every tick; reads that came near such a step keep the time at which they returned.
    """

    def __init__(self) -> None:
        self.reads = 0
        self.lags_ns: list[int] = []  # of stamped reads: from the kernel's stamp to the return
        self.rounds_ns: list[int] = []  # from a wake-up to the return of its last read
        self.sampled_ns = 0
        self._offsets: list[tuple[int, int, int]] = []  # (valid from, real - monotonic, width) ns
        self._near_steps: list[tuple[int, int]] = []  # (from, to) ns in which no stamp is used

    def sample(self) -> None:
        """Measure the difference, each reading of one clock between two of the other."""
        readings = [(clock_ns(), time.time_ns(), clock_ns()) for _ in range(5)]
        width_ns, before_ns, real_ns = min((c - a, a, b) for a, b, c in readings)
        self.note(before_ns, real_ns - before_ns - width_ns // 2, width_ns)

    def note(self, now_ns: int, offset_ns: int, width_ns: int) -> None:
        """Take a sample in; if it differs by more than the samples' widths, the time was set."""
        if not self._offsets:
            self._offsets.append((0, offset_ns, width_ns))
        _, known_ns, known_width_ns = self._offsets[-1]
        if abs(offset_ns - known_ns) > width_ns + known_width_ns + 1_000:
            self._near_steps.append((self.sampled_ns, now_ns + round(TICK_S * 1e9)))
            self._offsets.append((now_ns, offset_ns, width_ns))
        self.sampled_ns = now_ns

    def arrival_ns(self, returned_ns: int, ancillary: Ancillary) -> int:
        """When the last packet of a read reached the kernel; else when the read returned."""
        self.reads += 1
        stamps = ancillary[0][2] if ancillary else b""
        if len(stamps) != SCM_TIMESTAMPING_BYTES:
            return returned_ns
        seconds, nanoseconds = TIMESPEC.unpack_from(stamps)
        offset_ns = self._offsets[-1][1]
        if len(self._offsets) > 1:
            if any(begin <= returned_ns <= end for begin, end in self._near_steps):
                return returned_ns
            offset_ns = max(known for known in self._offsets if known[0] <= returned_ns)[1]
        arrival_ns: int = seconds * 1_000_000_000 + nanoseconds - offset_ns
        lag_ns = returned_ns - arrival_ns
        if not -100_000 < lag_ns < 60_000_000_000:
            return returned_ns
        self.lags_ns.append(lag_ns)
        return arrival_ns


def ask_for_stamps(sock: socket.socket) -> None:
    """Have the kernel stamp what this socket receives, where it can."""
    if sys.platform == "linux":
        flags = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)
