"""The kernel's receive stamps on the client's monotonic clock."""

import socket
import struct
import time

import pytest
from client_harness import LINUX
from fake_sglang.harness import wait_until

from repro_pp_graphs.client.clock import (
    ANCILLARY_BYTES,
    SCM_TIMESTAMPING,
    KernelClock,
    ask_for_stamps,
)


def stamp(realtime_ns):
    whole = struct.pack("=6q", *divmod(realtime_ns, 10**9), 0, 0, 0, 0)
    return [(socket.SOL_SOCKET, SCM_TIMESTAMPING, whole)]


def test_a_kernel_stamp_is_put_on_the_monotonic_clock():
    clock = KernelClock()
    clock.note(0, 10**18, 100)
    assert clock.arrival_ns(5_000_000, stamp(10**18 + 4_000_000)) == 4_000_000
    assert clock.lags_ns == [1_000_000]


@pytest.mark.parametrize(
    "ancillary",
    [None, [], [(1, 37, b"short")], stamp(10**18 + 6_000_000), stamp(10**18 - 10**11)],
    ids=["none", "empty", "32 bit", "later than the read", "minutes old"],
)
def test_a_read_without_a_plausible_stamp_keeps_the_time_it_returned(ancillary):
    clock = KernelClock()
    clock.note(0, 10**18, 100)
    assert clock.arrival_ns(5_000_000, ancillary) == 5_000_000
    assert (clock.reads, clock.lags_ns) == (1, [])


def test_stamps_around_a_step_of_the_clock_are_not_trusted_and_later_ones_are():
    second, step = 10**9, 3 * 10**6
    clock = KernelClock()
    for now in (1, 2, 3):
        clock.note(now * second, 10**18 + (step if now == 3 else 0), 100)
    clock.note(4 * second, 10**18 + step + 50, 100)
    read = [round(at * second) for at in (1.5, 2.5, 3.1, 3.9)]
    old, unsure, near, new = (
        clock.arrival_ns(at, stamp(10**18 + at - 1000 + (step if at > 2.2 * second else 0)))
        for at in read
    )
    assert (old, unsure, near, new) == (read[0] - 1000, read[1], read[2], read[3] - 1000)


def stamped(ours: socket.socket, theirs: socket.socket) -> bool:
    """Whether what one socket sends to the other is stamped yet: the first socket that asks in a
    system waits for its stamps."""
    theirs.send(b"?")
    _, ancillary, _, _ = ours.recvmsg_into([bytearray(1)], ANCILLARY_BYTES)
    return bool(ancillary)


@LINUX
def test_the_kernels_stamps_tell_when_data_came_not_when_it_was_read():
    clock, pairs, sent_ns = KernelClock(), [], []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(3):
            ours = socket.create_connection(listener.getsockname())
            ask_for_stamps(ours)
            pairs.append((ours, listener.accept()[0]))
    for pair in pairs:
        wait_until(lambda pair=pair: stamped(*pair))
    for _, theirs in pairs:
        sent_ns.append(time.monotonic_ns())
        theirs.send(b"data: token\n\n")
        time.sleep(0.03)
    clock.sample()
    reading_ns, room = time.monotonic_ns(), bytearray(100)
    arrivals = []
    for ours, theirs in pairs:
        size, ancillary, _, _ = ours.recvmsg_into([room], ANCILLARY_BYTES)
        assert size == 13
        arrivals.append(clock.arrival_ns(time.monotonic_ns(), ancillary))
        ours.close()
        theirs.close()
    assert len(clock.lags_ns) == 3
    order = [at for pair in zip(sent_ns, arrivals, strict=True) for at in pair]
    assert order == sorted(order)
    assert arrivals[-1] < reading_ns
