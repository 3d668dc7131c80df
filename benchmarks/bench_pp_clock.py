"""python benchmarks/bench_pp_clock.py [--turn-ms MS] [--rows N] [--messages N]: the clock's cost.

Wraps a function that does nothing, as the shim pp_clock wraps sglang's, and times both in a loop:
nanoseconds a wrapped call, a numbered message, a turn, and (on a machine with a GPU) a batch's two
CUDA events. From these the share of a turn that the clock takes, by the calls that a turn has.
Run it with the Python that has sglang's torch. On a busy machine take the smallest of several runs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.device import DeviceClock
from repro_pp_graphs.server.shims.pp_clock import Clock, Messages, Wrappers

CALLS = 500  # shorter than a time slice of a busy machine
REPEATS = 400
LIMIT = 0.005


def nothing(*_args: object, **_more: object) -> None:
    """What is wrapped."""


def each_ns(call: Callable[[], Any], calls: int = CALLS) -> float:
    """Nanoseconds a call, the smallest of several rounds; the loop's own are in it."""
    best = float("inf")
    for _ in range(REPEATS):
        begin_ns = time.perf_counter_ns()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter_ns() - begin_ns) / calls)
    return best


def profiler_check() -> Callable[[], bool]:
    """torch's own, or a stand-in where there is no torch."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        print("no torch here: the check for a running profile is left out")
        return lambda: False
    check: Callable[[], bool] = torch.autograd._profiler_enabled
    return check


def costs(clock: Clock) -> dict[str, float]:
    """Nanoseconds by what the clock does."""
    wrap = Wrappers(clock, lambda: (None, None, None))
    plain = each_ns(nothing)
    batch = SimpleNamespace(forward_mode=SimpleNamespace(is_decode=lambda: True), reqs=[1] * 8)
    timed, launch = wrap.timed("process", nothing), wrap.launch(nothing)
    message = Messages(clock, 0, {}, lambda _: None).numbered(nothing, True)
    turn = wrap.turn(nothing)
    return {
        "call": each_ns(timed) - plain,
        "launch": each_ns(lambda: launch(batch)) - each_ns(lambda: nothing(batch)),
        "message": each_ns(lambda: message(None, 1)) - each_ns(lambda: nothing(None, 1)),
        "turn": each_ns(turn) - plain,
    }


def longest_row_us(clock: Clock, seconds: float) -> tuple[int, float]:
    """Rows written within that time, and the longest of them: page faults, writing back."""
    end, worst, count = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        begin_ns = time.monotonic_ns()
        clock.write(rows.CODES["process"], begin_ns, begin_ns)
        worst = max(worst, time.monotonic_ns() - begin_ns)
        count += 1
    return count, worst / 1e3


def device_ns(clock: Clock) -> float | None:
    """A batch's events and their reading; None without a GPU."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    device = DeviceClock(torch.cuda, clock.own_batch)
    while device._base is None:
        device.read(time.monotonic_ns())

    def batch() -> None:
        device.expect()
        device.begin()
        device.end(0)
        device.read(time.monotonic_ns())

    return each_ns(batch, 100)


def main() -> None:
    """Print the costs, and the share of a turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turn-ms", type=float, default=10.0, help="a turn (default 10)")
    parser.add_argument("--rows", type=int, default=11, help="timed calls a turn (default 11)")
    parser.add_argument("--messages", type=int, default=12, help="messages a turn (default 12)")
    parser.add_argument("--folder", type=Path, help="where the rows go (default: a new one)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of writing rows (default 5)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        clock = Clock(rows.RowFile(Path(folder, "x.rows"), 1 << 20), 0, profiler_check())
        found = costs(clock)
        count, worst_us = longest_row_us(clock, options.seconds)
        gpu = device_ns(clock)
    for name, ns in found.items():
        print(f"{name:<10}{ns:>8.0f} ns")
    print(f"{'events':<10}" + (f"{gpu:>8.0f} ns" if gpu else "  no GPU here"))
    print(f"longest of {count} rows in {options.seconds:.0f} s: {worst_us:.0f} us")
    total = (options.rows - 1) * found["call"] + found["launch"] + found["turn"]
    total += options.messages * found["message"] + (gpu or 0)
    share = total / options.turn_ms / 1e6
    word = "under" if share < LIMIT else "OVER"
    print(
        f"{options.rows} calls and {options.messages} messages: {total / 1e3:.1f} us a turn, "
        f"{share:.3%} of {options.turn_ms:g} ms: {word} {LIMIT:.1%}"
    )


if __name__ == "__main__":
    main()
