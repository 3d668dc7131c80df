"""How fast collect_env.sh and its masking are, as ratios, all in one run.

USAGE       python benchmarks/bench_collect_env.py [--other COLLECT_ENV] [--megabytes 10]
                [--rounds 5]
COLLECTING  bash collect_env.sh against an interpreter that only starts (`python3 -c pass`), and,
            with --other, against another checkout's collect_env.sh; medians, rounds alternate
MASKING     a log of sglang made up to that many megabytes: seconds for all of it, for a quarter of
            it (linear: four times less), and against one pass of one regular expression
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from repro_pp_graphs.environment.masking import Masker  # noqa: E402


def log_lines() -> Iterator[str]:
    """Lines as a server and NCCL write them, no two alike."""
    rng = random.Random(1)
    number = 0
    while True:
        number += 1
        head = f"[2026-01-01 10:{number // 60 % 60:02}:{number % 60:02} PP{number % 4}]"
        yield (
            f"{head} Decode batch. #running-req: {number % 64}, #token: {rng.randrange(10**6)}, "
            f"token usage: {rng.random():.2f}, cuda graph: True, gen throughput (token/s): "
            f"{rng.random() * 1e4:.2f}, #queue-req: 0,\n"
        )
        if number % 7 == 0:
            place = "/home/alice/venv/lib/python3.11/site-packages/sglang/srt/managers/scheduler.py"
            yield f'  File "{place}", line {number}, in event_loop_pp\n'
        if number % 11 == 0:
            yield (
                f"gpu-node-17:{number}:{number + 3} [{number % 4}] NCCL INFO Channel 00/0 : 0[0] "
                f"-> 1[1] via P2P/CUMEM 10.0.0.5:20000 {rng.getrandbits(64):016x}\n"
            )
        if number % 997 == 0:
            yield f"{head} server_args=ServerArgs(api_key='{rng.getrandbits(128):032x}', tp=4)\n"


def made_up_log(size: int) -> str:
    """A log of that many characters."""
    out: list[str] = []
    for line in log_lines():
        out.append(line)
        size -= len(line)
        if size <= 0:
            return "".join(out)
    raise AssertionError


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def medians(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each call; a round is one of each in turn."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {name: statistics.median(each[1:]) for name, each in taken.items()}  # the first warms


def collecting(other: Path | None, rounds: int) -> None:
    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    calls = {"start": run(sys.executable, "-c", "pass")}
    scripts = {"ours": ROOT / "collect_env.sh"} | ({"other": other} if other else {})
    for name, script in scripts.items():
        calls[name] = run("bash", str(script), "--python", sys.executable)
    found = medians(calls, rounds)
    print(f"collect_env.sh  {found['ours']:.2f} s, {found['ours'] / found['start']:.1f} x a start")
    if other:
        ratio = found["ours"] / found["other"]
        print(f"  against {other}: {ratio:.2f} x its {found['other']:.2f} s")


def masking(megabytes: int, rounds: int) -> None:
    log = made_up_log(megabytes * 1_000_000)
    quarter = log[: len(log) // 4]
    one_pass = re.compile("[A-Za-z0-9_]+")

    def mask(text: str) -> Callable[[], object]:
        return lambda: Masker(os.environ).text(text)

    calls: dict[str, Callable[[], object]] = {
        "all": mask(log),
        "quarter": mask(quarter),
        "pass": lambda: sum(1 for _ in one_pass.finditer(log)),
    }
    found = medians(calls, rounds)
    print(
        f"masking {megabytes} MB   {found['all']:.2f} s, {found['all'] / found['quarter']:.1f} x a "
        f"quarter of it, {found['all'] / found['pass']:.1f} x one pass over its words"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--other", type=Path)
    parser.add_argument("--megabytes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    collecting(options.other, options.rounds)
    masking(options.megabytes, options.rounds)


if __name__ == "__main__":
    main()
