"""Critical paths and what-ifs of simulated rings against running the rings again.

USAGE       python benchmarks/ring_path_truth.py [--rings 1000] [--processes N] [--clocks]
OUTPUT      how many rings agree within 2 % of the step, by quantity; the seeds that do not
COST        about 3 s of one core a ring
NEEDS       the tests' packages; see tests/ring_simulator.py and tests/test_ring_path_truth.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from ring_simulator import random_plan  # noqa: E402
from test_ring_path_truth import WITHIN, differences, found_in  # noqa: E402


def one(seed: int, clocks: bool) -> tuple[int, str, dict[str, tuple[float, float]]]:
    """A ring by its seed: in words, why it has no path, or what the path and the ring say."""
    plan = random_plan(seed, clocks)
    words = (
        f"{plan.ranks} ranks, {plan.micro_batches} micro-batches, "
        f"{'blocking' if plan.blocking else 'asynchronous'}, {'graphs' if plan.graphs else 'eager'}"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = found_in(plan, Path(folder))
    if isinstance(found, str):
        return seed, f"{words}: {found}", {}
    path, steps = found
    pairs = differences(replace(plan, ahead_us=()), path, steps)
    if path.what_if_unknown:
        pairs = {name: pair for name, pair in pairs.items() if "=" not in name}
    return seed, words, pairs


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--rings", type=int, default=1000)
    made.add_argument("--first", type=int, default=0, help="the first seed")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    made.add_argument("--clocks", action="store_true", help="ranks on hosts whose clocks differ")
    options = made.parse_args()
    seeds = range(options.first, options.first + options.rings)
    seen, off, untold, wrong = Counter(), Counter(), 0, 0
    worst: dict[str, float] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for seed, words, pairs in pool.map(partial(one, clocks=options.clocks), seeds):
            if not pairs:
                untold += 1
                print(f"seed {seed}: {words}", flush=True)
                continue
            bad = {n: pair for n, pair in pairs.items() if abs(pair[0] - pair[1]) > WITHIN}
            for name, (said, truth) in pairs.items():
                seen[name] += 1
                off[name] += name in bad
                worst[name] = max(worst.get(name, 0.0), abs(said - truth))
            if bad:
                wrong += 1
                told = ", ".join(f"{n} {a:.3f} not {b:.3f}" for n, (a, b) in bad.items())
                print(f"seed {seed}: {words}: {told}", flush=True)
    print(f"{options.rings} rings: {untold} not told, {wrong} with something off by more than 2 %")
    for name, number in seen.items():
        print(f"  {name:<12} {number - off[name]:>6} of {number:>6}  worst {worst[name]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
