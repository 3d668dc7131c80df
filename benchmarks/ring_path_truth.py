"""Critical paths and what-ifs of simulated rings against running the rings again.

USAGE       python benchmarks/ring_path_truth.py [--rings 1000] [--first SEED] [--processes N]
OUTPUT      how many rings agree within 2 % of the step, by quantity, and how far off they are; the
            seeds that do not, and those that have no path. What is off is tried again in a ring
            that runs four times as long: what the ends of the recording do to the ring's own
            figures is a quarter there
COST        about 1 s of one core a ring
NEEDS       the tests' packages; see tests/ring_simulator.py and tests/test_ring_path_truth.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from ring_simulator import Plan, random_plan  # noqa: E402
from test_ring_path_truth import WITHIN, differences, found_in  # noqa: E402

from repro_pp_graphs.traces.quantiles import quantile  # noqa: E402

EVERY = 3  # of so many rings one has ranks on hosts whose clocks differ
QUANTILES = (0.5, 0.9, 0.99, 1.0)


LONGER = 4
Pairs = dict[str, tuple[float, float]]


def one(seed: int) -> tuple[int, str, Pairs]:
    """A ring by its seed: in words, why it has no path, or what the path and the ring say."""
    plan = random_plan(seed, clocks=seed % EVERY == 0)
    words = (
        f"{plan.ranks} ranks, {plan.micro_batches} micro-batches, "
        f"{'blocking' if plan.blocking else 'asynchronous'}, {'graphs' if plan.graphs else 'eager'}"
        f"{', clocks apart' if plan.ahead_us else ''}"
    )
    pairs = said_and_true(plan)
    if isinstance(pairs, str):
        return seed, f"{words}: {pairs}", {}
    if off(pairs):
        longer = said_and_true(replace(plan, turns=LONGER * plan.turns))
        return (
            seed,
            f"{words}, {LONGER} times as long",
            pairs if isinstance(longer, str) else longer,
        )
    return seed, words, pairs


def said_and_true(plan: Plan) -> Pairs | str:
    """What the path of a ring and the ring say; why it has no path."""
    with tempfile.TemporaryDirectory() as folder:
        found = found_in(plan, Path(folder))
    if isinstance(found, str):
        return found
    path, steps = found
    pairs = differences(replace(plan, ahead_us=()), path, steps)
    if path.what_if_unknown:
        pairs = {name: pair for name, pair in pairs.items() if "=" not in name}
    return pairs


def off(pairs: Pairs) -> Pairs:
    """Those that differ by more than WITHIN."""
    return {n: pair for n, pair in pairs.items() if abs(pair[0] - pair[1]) > WITHIN}


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--rings", type=int, default=1000)
    made.add_argument("--first", type=int, default=0, help="the first seed")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = made.parse_args()
    seeds = range(options.first, options.first + options.rings)
    errors: dict[str, list[float]] = {}
    untold = wrong = 0
    with ProcessPoolExecutor(options.processes) as pool:
        for seed, words, pairs in pool.map(one, seeds):
            if not pairs:
                untold += 1
                print(f"seed {seed}: {words}", flush=True)
                continue
            bad = off(pairs)
            for name, (said, truth) in pairs.items():
                errors.setdefault(name, []).append(abs(said - truth))
            if bad:
                wrong += 1
                told = ", ".join(f"{n} {a:.3f} not {b:.3f}" for n, (a, b) in bad.items())
                print(f"seed {seed}: {words}: {told}", flush=True)
    print(f"{options.rings} rings: {untold} not told, {wrong} with something off by more than 2 %")
    print(f"{'off by, % of the step':<22}{'within 2 %':>12}   median     90 %     99 %     most")
    for name, found in errors.items():
        within = sum(error <= WITHIN for error in found)
        shown = "".join(f"{100 * quantile(np.array(found), each):>9.2f}" for each in QUANTILES)
        print(f"  {name:<20}{within:>5} of {len(found):>4}{shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
