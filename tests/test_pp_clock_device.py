"""The clock of a GPU, tied to the host's: when a batch began and ended, and which it missed."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from fake_gpu_clock import CUDA, FakeEvent

from repro_pp_graphs.pp_clock import device


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    for name, value in (("queued_ms", 0.0), ("capturing", False), ("stuck", False)):
        monkeypatch.setattr(CUDA, name, value)
    written: list[tuple[int, ...]] = []
    clock = device.DeviceClock(CUDA, lambda *row: written.append(row))
    return clock, written


def find_a_base(clock: device.DeviceClock) -> None:
    """Until the host was not preempted between its two looks."""
    while clock._base is None:
        clock.renew(time.monotonic_ns())
        time.sleep(0.01)


def batch(clock: device.DeviceClock, turn: int) -> None:
    """One batch that is launched and whose end is noted."""
    clock.expect()
    clock.begin()
    clock.end(turn)


def test_a_batch_is_written_once_it_has_ended_on_the_hosts_clock(gpu):
    clock, written = gpu
    find_a_base(clock)
    still_runs, length_ms = False, 10
    while not still_runs:  # when it was looked at: this process may have been preempted until later
        length_ms *= 2
        clock.read()  # that of the try before
        written.clear()
        before_ns = time.monotonic_ns()
        clock.expect()
        clock.begin()
        after_ns = time.monotonic_ns()
        CUDA.queued_ms = CUDA.now_ms() + length_ms  # the graph that has been launched
        clock.end(7)
        clock.read()
        still_runs = CUDA.now_ms() < CUDA.queued_ms
    assert written == []  # nothing is waited for
    while CUDA.now_ms() < CUDA.queued_ms:
        time.sleep(0.001)
    clock.read()
    ((turn, begin_ns, end_ns, width_ns),) = written
    assert turn == 7
    assert before_ns - width_ns <= begin_ns <= after_ns + width_ns
    assert abs(end_ns - (CUDA.begin_ns + CUDA.queued_ms * 1e6)) <= width_ns + 1000


@pytest.mark.parametrize("in_c", [False, True])
def test_nothing_is_recorded_while_a_stream_captures(gpu, in_c):
    clock, written = gpu
    if in_c:  # torch's own function, without the one in Python around it
        native = SimpleNamespace(_cuda_isCurrentStreamCapturing=lambda: CUDA.capturing)
        clock = device.DeviceClock(CUDA, lambda *row: written.append(row), native)
    find_a_base(clock)
    CUDA.capturing = True
    batch(clock, 1)
    CUDA.capturing = False
    clock.end(2)  # no begin of its own
    clock.read()
    assert written == [] and clock.missed["captured"] == 1


def test_a_forward_outside_a_batch_is_no_batch(gpu):
    clock, written = gpu
    find_a_base(clock)
    clock.begin()  # of a warm-up, say
    early_ns = time.monotonic_ns()
    clock.expect()
    clock.begin()
    clock.begin()  # a draft model's in the same batch: the first counts
    clock.end(3)
    clock.begin()
    clock.read()
    ((turn, begin_ns, _, width_ns),) = written
    assert turn == 3 and begin_ns >= early_ns - width_ns


def test_without_a_base_that_passes_there_are_no_times(gpu):
    clock, written = gpu
    CUDA.stuck = True
    for turn in range(3):
        clock.renew(time.monotonic_ns())
        batch(clock, turn)
    clock.read()
    assert written == []


def test_a_gpu_that_is_stuck_costs_no_memory(gpu):
    clock, written = gpu
    find_a_base(clock)
    CUDA.queued_ms = 1e9
    for turn in range(1000):
        batch(clock, turn)
    clock.read()
    assert written == []
    assert clock.missed == {"untied": 0, "unread": 1000 - device.MOST_PENDING, "captured": 0}


def run_batches(clock: device.DeviceClock, turns: int) -> None:
    """Batches that end at once, each read after the launch of the next."""
    for turn in range(turns):
        batch(clock, turn)
        clock.read()


def test_events_are_used_again_and_not_made_anew(gpu, monkeypatch):
    clock, written = gpu
    find_a_base(clock)
    made: list[FakeEvent] = []
    monkeypatch.setattr(CUDA, "Event", lambda enable_timing: made.append(FakeEvent(True)))
    run_batches(clock, 50)
    assert [row[0] for row in written] == list(range(50)) and made == []


def test_an_event_goes_to_the_stream_that_is_current_then(monkeypatch):
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    current, recorded, asked = ["a"], [], []
    monkeypatch.setattr(CUDA, "current_device", lambda: 3, raising=False)
    monkeypatch.setattr(
        CUDA, "current_stream", lambda: asked.append(current[0]) or current[0], raising=False
    )
    monkeypatch.setattr(CUDA, "passes_ms", lambda stream: recorded.append(stream) or CUDA.now_ms())

    def raw_stream(index: int) -> int:
        assert index == 3
        return {"a": 0, "b": 77}[current[0]]  # 0: the default stream

    native = SimpleNamespace(_cuda_getCurrentRawStream=raw_stream)
    clock = device.DeviceClock(CUDA, lambda *_: None, native)
    find_a_base(clock)
    recorded.clear()
    for stream in "aabba":
        current[0] = stream
        run_batches(clock, 1)
    assert recorded == [stream for stream in "aabba" for _ in range(2)]
    assert asked == ["a", "b", "a"]  # when it is another than before only


def test_a_batch_that_was_just_launched_is_not_asked_whether_it_has_ended(gpu, monkeypatch):
    clock, written = gpu
    find_a_base(clock)
    asked: list[FakeEvent] = []
    query = FakeEvent.query
    for turn in range(3):
        batch(clock, turn)
    monkeypatch.setattr(FakeEvent, "query", lambda event: asked.append(event) or query(event))
    clock.read(running=3)
    assert (written, asked) == ([], [])
    clock.read(running=1)
    assert [row[0] for row in written] == [0, 1]
    clock.read(running=1)
    assert len(written) == 2
    clock.read()
    assert [row[0] for row in written] == [0, 1, 2]
