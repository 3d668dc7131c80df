"""python benchmarks/bench_pp_clock.py [--turn-ms MS] [--rows N] [--messages N]: the clock's cost.

Wraps a function that does nothing, as the shim pp_clock wraps sglang's, and times both: nanoseconds
a wrapped call, a numbered message, a turn, a row, and (with a GPU) a batch's two CUDA events.
From these the share of a turn that the clock takes, by the calls that a turn has.

In a loop every call finds its code and data in the processor's caches: the least that it can take.
In the second column other work, which fills a core's caches, lies before each: the most. A server
is in between; what it pays is measured by benchmarks/pp_clock_on_off.sh.
Run it with the Python that has sglang's torch. On a busy machine take the smallest of several runs.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
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
from repro_pp_graphs.pp_clock.on_off import LIMIT
from repro_pp_graphs.server.shims.pp_clock.clock import Clock
from repro_pp_graphs.server.shims.pp_clock.message_numbers import Messages
from repro_pp_graphs.server.shims.pp_clock.wrappers import Wrappers

CALLS = 500  # shorter than a time slice of a busy machine
REPEATS = 400
ROWS_NOTED = 12  # of a turn, written after its launch: one by one they cost more


def nothing(*_args: object, **_more: object) -> None:
    """What is wrapped."""


Timer = Callable[[Callable[[], Any]], float]


def in_a_loop_ns(call: Callable[[], Any]) -> float:
    """Nanoseconds a call, the smallest of several rounds; the loop's own are in it."""
    best = float("inf")
    for _ in range(REPEATS):
        begin_ns = time.perf_counter_ns()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter_ns() - begin_ns) / CALLS)
    return best


_SPACE = bytearray(4 << 20)  # more than a core's own caches
_TEXT = json.dumps([{"name": number, "values": [str(number)] * 3} for number in range(60)])
_WORDS = re.compile(r"\w+")


def other_work() -> None:
    """What a scheduler does between two calls, as far as caches see it: other code, other data."""
    _SPACE.count(1)
    words = _WORDS.findall(json.dumps(json.loads(_TEXT)))
    compile(repr(sorted(words)[:50]), "other", "exec")


def after_other_work_ns(call: Callable[[], Any]) -> float:
    """Nanoseconds a call, the median of many with other work before each."""
    times = []
    for _ in range(REPEATS):
        other_work()
        begin_ns = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin_ns)
    return statistics.median(times)


def profiler_check() -> Callable[[], bool]:
    """torch's own, or a stand-in where there is no torch."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        print("no torch here: the check for a running profile is left out")
        return lambda: False
    check: Callable[[], bool] = torch.autograd._profiler_enabled
    return check


def costs(clock: Clock, timer: Timer) -> dict[str, float]:
    """Nanoseconds by what the clock does."""
    sent = [1]
    wrap = Wrappers(clock, SimpleNamespace(send_output_work=None, send_proxy_work=sent))
    plain = timer(nothing)
    batch = SimpleNamespace(forward_mode=SimpleNamespace(is_decode=lambda: True), reqs=[1] * 8)
    results = None, SimpleNamespace(synchronize=lambda: None)
    timed, launch = wrap.timed("process", nothing), wrap.launch(nothing)
    wait, exchange = wrap.wait_sent(nothing), wrap.wait_results(lambda: results)
    message = Messages(clock, 0, {}, lambda _: None).numbered(nothing, True)
    turn = wrap.turn(nothing)
    noted = [(1, 2, 3, rows.CODES["process"])] * ROWS_NOTED

    def written() -> None:
        clock._noted += noted
        clock._settle()

    def wait_for_results() -> None:
        exchange()[-1].synchronize()

    return {
        "call": timer(timed) - plain,
        "launch": timer(lambda: launch(batch)) - timer(lambda: nothing(batch)),
        "wait_sent": timer(lambda: wait(sent)) - timer(lambda: nothing(sent)),
        "wait_results": timer(wait_for_results) - plain,
        "message": timer(lambda: message(None, 1)) - timer(lambda: nothing(None, 1)),
        "turn": timer(turn) - plain,
        "row": timer(written) / ROWS_NOTED,
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


def device_costs(clock: Clock, timer: Timer) -> dict[str, float]:
    """The event before a batch, the one after it, and their reading once it has ended; empty
    without a GPU. For the first the GPU waits."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    device = DeviceClock(torch.cuda, clock.own_batch, torch._C)
    while device._base is None:
        device.renew(time.monotonic_ns())
        time.sleep(0.1)

    def before() -> None:
        device.expect()
        device.begin()

    def one() -> None:
        before()
        device._free.append(device._begun)

    def both() -> None:
        before()
        device.end(0)
        device._free += device._pending.popleft()[1:3]

    def read_later() -> None:
        before()
        device.end(0)
        device.read()

    first, events, read = timer(one), timer(both), timer(read_later)
    return {
        "event before": first,
        "event after": max(0.0, events - first),
        "reading": max(0.0, read - events),
    }


def total_ns(found: dict[str, float], calls: int, messages: int) -> float:
    """What the clock takes of a turn; a rank that is not the last waits for three earlier sends."""
    times = {"call": calls - 5, "wait_sent": 3, "message": messages, "row": calls + 1}
    return sum(times.get(name, 1) * ns for name, ns in found.items())


def main() -> None:
    """Print the costs, and the share of a turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turn-ms", type=float, default=10.0, help="a turn (default 10)")
    parser.add_argument("--rows", type=int, default=11, help="timed calls a turn (default 11)")
    parser.add_argument("--messages", type=int, default=12, help="messages a turn (default 12)")
    parser.add_argument("--folder", type=Path, help="where the rows go (default: a new one)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of writing rows (default 5)")
    options = parser.parse_args()
    columns: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        clock = Clock(rows.RowFile(Path(folder, "x.rows"), 1 << 20), 0, profiler_check())
        for timer in (in_a_loop_ns, after_other_work_ns):
            columns.append(costs(clock, timer) | device_costs(clock, timer))
        count, worst_us = longest_row_us(clock, options.seconds)
    print(f"{'ns':<13}{'in a loop':>12}{'after other work':>19}")
    for name in columns[0]:
        print(f"{name:<13}{columns[0][name]:>12.0f}{columns[1][name]:>19.0f}")
    if "reading" not in columns[0]:
        print("events       no GPU here")
    print(f"longest of {count} rows in {options.seconds:.0f} s: {worst_us:.0f} us")
    for messages in (options.messages, 0):
        loop, apart = (total_ns(each, options.rows, messages) for each in columns)
        least, most = (took / options.turn_ms / 1e6 for took in (loop, apart))
        word = "under" if most < LIMIT else "OVER" if least >= LIMIT else "on either side of"
        print(
            f"{options.rows} calls and {messages} messages: {loop / 1e3:.1f} us a turn in a "
            f"loop, {apart / 1e3:.1f} after other work,\n{least:.2%} to {most:.2%} of "
            f"{options.turn_ms:g} ms: {word} the limit of {LIMIT:.1%}"
        )
    print("(messages are numbered where a profile is to be taken; rows are written after a launch)")


if __name__ == "__main__":
    main()
