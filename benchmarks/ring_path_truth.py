"""Critical paths and what-ifs of simulated rings against running the rings again.

USAGE       python benchmarks/ring_path_truth.py [--rings 1000] [--first SEED] [--processes N]
                [--deep] [--into FILE]
OUTPUT      how many rings agree within 2 % of the step, by quantity, and how far off they are; the
            seeds that do not, and those that have no path. --into keeps what came out of each
            ring, a line of JSON a ring: run again with it, only rings not in it are run
COST        about 1 s of one core a ring
NEEDS       the tests' packages; see tests/ring_simulator.py and tests/test_traces_path_truth.py
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from ring_plan import random_plan  # noqa: E402
from test_traces_path_truth import WITHIN, differences, found_in  # noqa: E402

from repro_pp_graphs.traces.quantiles import quantile  # noqa: E402

EVERY = 3  # of so many rings one has ranks on hosts whose clocks differ
QUANTILES = (0.5, 0.9, 0.99, 1.0)


class Result(NamedTuple):
    """Of a ring by its seed: what it is; why it has no path, or what the path and the ring say."""

    seed: int
    words: str
    no_path: str
    pairs: dict[str, tuple[float, float]]

    def off(self) -> dict[str, tuple[float, float]]:
        """Those that differ by more than WITHIN."""
        return {name: (a, b) for name, (a, b) in self.pairs.items() if abs(a - b) > WITHIN}


def one(seed: int, deep: bool) -> Result:
    """Run a ring and what is to be held against it."""
    plan = random_plan(seed, clocks=seed % EVERY == 0, deep=deep)
    words = (
        f"{plan.ranks} ranks, {plan.micro_batches} micro-batches, "
        f"{f'depth {plan.depth}, ' if deep else ''}"
        f"{'blocking' if plan.blocking else 'asynchronous'}, {'graphs' if plan.graphs else 'eager'}"
        f"{', clocks apart' if plan.ahead_us else ''}"
    )
    with tempfile.TemporaryDirectory() as folder:
        found = found_in(plan, Path(folder))
    if isinstance(found, str):
        return Result(seed, words, found, {})
    return Result(seed, words, "", differences(plan, *found))


def kept(into: Path | None) -> dict[int, Result]:
    """The results of an earlier run, by seed."""
    if into is None or not into.exists():
        return {}
    results = (Result(*json.loads(line)) for line in into.read_text().splitlines())
    return {result.seed: result for result in results}


def results_of(seeds: list[int], deep: bool, processes: int, into: Path | None) -> list[Result]:
    """Of each ring what came out, those of an earlier run too."""
    done = kept(into)
    todo = [seed for seed in seeds if seed not in done]
    with ProcessPoolExecutor(processes) as pool:
        for result in pool.map(one, todo, [deep] * len(todo)):
            done[result.seed] = result
            shown(result)
            if into:
                with into.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    return [done[seed] for seed in seeds]


def shown(result: Result) -> None:
    """Print what is not as it should be."""
    off = ", ".join(f"{n} {a:.3f} not {b:.3f}" for n, (a, b) in result.off().items())
    if result.no_path or off:
        print(f"seed {result.seed}: {result.words}: {result.no_path or off}", flush=True)


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    made.add_argument("--rings", type=int, default=1000)
    made.add_argument("--first", type=int, default=0, help="the first seed")
    made.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    made.add_argument("--deep", action="store_true", help="with --pp-async-batch-depth")
    made.add_argument("--into", type=Path, help="where results are kept")
    options = made.parse_args()
    seeds = list(range(options.first, options.first + options.rings))
    results = results_of(seeds, options.deep, options.processes, options.into)
    errors: dict[str, list[float]] = {}
    for result in results:
        for name, (said, truth) in result.pairs.items():
            errors.setdefault(name, []).append(abs(said - truth))
    untold = sum(bool(result.no_path) for result in results)
    wrong = sum(bool(result.off()) for result in results)
    print(f"{len(results)} rings: {untold} have no path, {wrong} have something off by over 2 %")
    print(f"{'off by, % of the step':<22}{'within 2 %':>12}   median     90 %     99 %     most")
    for name, found in errors.items():
        within = sum(error <= WITHIN for error in found)
        figures = "".join(f"{100 * quantile(np.array(found), each):>9.2f}" for each in QUANTILES)
        print(f"  {name:<20}{within:>5} of {len(found):>4}{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
