#!/usr/bin/env python3
"""How often the verdict is wrong: made-up launches (seeded), compared by stats/ itself.

    python benchmarks/sim_verdict.py [--series 20000]      (docs/verdict.md has what it prints)

False positives: both arms alike, the interval excludes 1, or the word is DIFFERENT. Coverage: A is
6 % longer, the interval holds that. Power: A is 6 % longer, the word is DIFFERENT. All at 5 %, in
ABBA order unless said; Monte Carlo error of a percentage near 5: 0.15 points.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from repro_pp_graphs.stats import power
from repro_pp_graphs.stats.drift import Design, Floats, Untestable, design, fit
from repro_pp_graphs.stats.looks import LEVEL, UNPLANNED
from repro_pp_graphs.stats.metric_names import MARGIN

SEED = 20261126
ROUNDS = (3, 4, 5, 6, 8)
SPREAD = 0.013  # of a launch, where nothing else is said
_ZERO = 1e-20  # a variance: what rounding leaves of 0
EFFECT = math.log(1.06)
Rng = np.random.Generator
Noise = Callable[[Rng, Design, int], Floats]


def _normal(rng: Rng, plan: Design, series: int) -> Floats:
    return SPREAD * rng.standard_normal((series, len(plan.is_a)))


def _drift(rng: Rng, plan: Design, series: int) -> Floats:
    """7 % down from the first launch to the last."""
    return _normal(rng, plan, series) - np.linspace(0, math.log(1.07), len(plan.is_a))


def _bowl(rng: Rng, plan: Design, series: int) -> Floats:
    """4 % down and up again: no straight line."""
    at = np.linspace(-1, 1, len(plan.is_a))
    return _normal(rng, plan, series) + 0.04 * at**2


def _autoregressive(rng: Rng, plan: Design, series: int) -> Floats:
    """Each launch takes half of the last one's deviation."""
    found = _normal(rng, plan, series)
    for at in range(1, found.shape[1]):
        found[:, at] = 0.5 * found[:, at - 1] + math.sqrt(0.75) * found[:, at]
    return found


def _walk(rng: Rng, plan: Design, series: int) -> Floats:
    """A random walk of a third of the spread a launch beside the spread."""
    steps = rng.standard_normal((series, len(plan.is_a)))
    return _normal(rng, plan, series) + SPREAD / 3 * np.cumsum(steps, axis=1)


def _unequal(ratio: float) -> Noise:
    def noise(rng: Rng, plan: Design, series: int) -> Floats:
        return _normal(rng, plan, series) * np.where(plan.is_a, ratio, 1.0)

    return noise


def _unequal_drift(rng: Rng, plan: Design, series: int) -> Floats:
    return _unequal(3.0)(rng, plan, series) + np.linspace(0, math.log(1.07), len(plan.is_a))


def _heavy(rng: Rng, plan: Design, series: int) -> Floats:
    """Student's t with 2.5 degrees of freedom."""
    return SPREAD * 0.45 * rng.standard_t(2.5, (series, len(plan.is_a)))


def _skewed(rng: Rng, plan: Design, series: int) -> Floats:
    """Log-normal: launches are late, never early."""
    return SPREAD * rng.lognormal(0.0, 0.8, (series, len(plan.is_a)))


def _outlier(rng: Rng, plan: Design, series: int) -> Floats:
    """One launch of the series, whichever, is 12 % slow."""
    found = _normal(rng, plan, series)
    found[np.arange(series), rng.integers(0, found.shape[1], series)] += math.log(1.12)
    return found


def _slow_sometimes(rng: Rng, plan: Design, series: int) -> Floats:
    """Every launch is 10 % slow with probability 0.1."""
    found = _normal(rng, plan, series)
    return found + math.log(1.10) * (rng.random(found.shape) < 0.1)


SCENARIOS: dict[str, Noise] = {
    "iid": _normal,
    "drift -7 %": _drift,
    "bowl 4 %": _bowl,
    "AR(1) 0.5": _autoregressive,
    "random walk": _walk,
    "spreads 3:1": _unequal(3.0),
    "spreads 1:3": _unequal(1 / 3),
    "3:1 and drift +7 %": _unequal_drift,
    "t, 2.5 df": _heavy,
    "log-normal": _skewed,
    "one outlier +12 %": _outlier,
    "10 % slow by +10 %": _slow_sometimes,
}


def different(plan: Design, values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Of each series: does the interval exclude 1, and is the word DIFFERENT?"""
    found = fit(plan, values)
    excludes = np.abs(found.value) > found.half_width(alpha)
    a, b = values[:, plan.is_a], values[:, ~plan.is_a]
    apart = (a.max(1) < b.min(1)) | (b.max(1) < a.min(1))
    exact = stats.mannwhitneyu(a, b, axis=1, method="exact").pvalue <= alpha
    return excludes, excludes & (apart | exact)


def row(name: str, noise: Noise, plan: Design, series: int, seed: list[int]) -> str:
    rng = np.random.default_rng([SEED, *seed])
    values = noise(rng, plan, series)
    excludes, word = different(plan, values, LEVEL)
    moved = values + EFFECT * plan.is_a
    found = fit(plan, moved)
    covered = np.abs(found.value - EFFECT) <= found.half_width(LEVEL)
    _, seen = different(plan, moved, LEVEL)
    flat = fit(plan, values)
    none = np.abs(flat.value) + flat.half_width(LEVEL) < math.log1p(MARGIN)
    cells = (excludes, word, covered, seen, none)
    return f"{name:<22}" + "".join(f"{100 * each.mean():>11.1f}" for each in cells)


def tables(series: int) -> None:
    for rounds in ROUNDS:
        print(f"\n{rounds} rounds{'':<13}false pos.  DIFFERENT   coverage  power 6 %  none > 5 %")
        for number, (name, noise) in enumerate(SCENARIOS.items()):
            print(row(name, noise, power.abba(rounds), series, [rounds, number]))


def orders(series: int) -> None:
    """Orders that are not ABBA, and a run of two sessions whose levels differ by 3 %."""
    print("\nother orders, 4 rounds   false pos.  DIFFERENT   coverage  power 6 %  none > 5 %")
    for text in ("ABABABAB", "ABBABAAB", "BAABBAAB", "AABBAABB", "AAAABBBB"):
        try:
            plan = design([each == "A" for each in text])
        except Untestable as error:
            print(f"{text:<22} refused: {str(error).partition(':')[0]}")
            continue
        for number, name in enumerate(("drift -7 %", "AR(1) 0.5")):
            print(row(f"{text}, {name}", SCENARIOS[name], plan, series, [90, number]))
    sessions = [1, 1, 2, 2, 2, 2, 2, 2]
    plan = design([each == "A" for each in "ABBAABBA"], sessions)
    shift = np.array([0.03 * (each == 2) for each in sessions])
    print(
        row("2 sessions, 3 % apart", lambda r, p, n: _normal(r, p, n) + shift, plan, series, [91])
    )


def flat(series: int) -> None:
    """Of series in which an arm's spread was estimated as 0, and of the others: the interval
    excludes 1, both arms alike; how wide it is."""
    print("\na spread estimated as 0: how often, %; false positives with, without; median width, %")
    kinds = {"iid": _normal, "3:1": _unequal(3.0), "10:1": _unequal(10.0), "100:1": _unequal(100.0)}
    for rounds in (3, 4):
        for number, (name, noise) in enumerate(kinds.items()):
            plan = power.abba(rounds)
            values = noise(np.random.default_rng([SEED, 93, rounds, number]), plan, series)
            found = fit(plan, values)
            zero = found.variances.min(axis=1) < _ZERO
            for alpha in (LEVEL, UNPLANNED):
                half = found.half_width(alpha)
                wrong = 100 * (np.abs(found.value) > half)
                cells = [100 * zero.mean(), wrong[zero].mean(), wrong[~zero].mean()]
                cells += [200 * float(np.median(half[each])) for each in (zero, ~zero)]
                print(
                    f"{rounds} rounds, {name:<6} {alpha:<5}" + "".join(f"{c:>9.2f}" for c in cells)
                )


def looks(series: int) -> None:
    """A difference found at any look, both arms alike."""
    print("\nseveral looks, both arms alike: the interval excludes 1 at one of them")
    cases = {
        "4 rounds": [(4, LEVEL)],
        "4+4": [(4, LEVEL / 2), (8, LEVEL / 2)],
        "4, then 4 more unplanned": [(4, LEVEL), (8, UNPLANNED)],
        "4, then 4 and 4 more": [(4, LEVEL), (8, UNPLANNED), (12, UNPLANNED)],
        "3 of 4 early, then 4": [(3, UNPLANNED), (4, LEVEL)],
        "6 and 7 of 8 early, then 8": [(6, UNPLANNED / 2), (7, UNPLANNED / 2), (8, LEVEL)],
        "3, 4, ... 8 at 5 % (wrong)": [(rounds, LEVEL) for rounds in range(3, 9)],
    }
    for name, when in cases.items():
        last = power.abba(when[-1][0])
        values = _normal(np.random.default_rng([SEED, 92, len(when)]), last, series)
        hit = np.zeros(series, dtype=bool)
        for rounds, alpha in when:
            found = fit(power.abba(rounds), values[:, : 2 * rounds])
            hit |= np.abs(found.value) > found.half_width(alpha)
        print(f"  {name:<28}{100 * hit.mean():>6.1f} %")


def visible() -> None:
    """The effect that 4 of 5 series show, by rounds and by the spread of a launch."""
    spreads = (0.005, 0.01, 0.02, 0.03, 0.05, 0.10)
    print("\neffect that 4 of 5 series show, %, by the spread of launches (columns)")
    print("rounds" + "".join(f"{100 * each:>9.1f} %" for each in spreads))
    for rounds in (2, 3, 4, 5, 6, 8, 10, 12):
        found = [
            math.expm1(power.detectable(power.abba(rounds), np.array([s, s]) ** 2, LEVEL))
            for s in spreads
        ]
        print(f"{rounds:<6}" + "".join(f"{100 * each:>11.1f}" for each in found))
    needed = [
        power.rounds_needed(np.array([s, s]) ** 2, LEVEL, math.log1p(MARGIN)) for s in spreads
    ]
    print(f"rounds that settle {MARGIN:.0%}: {', '.join(map(str, needed))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--series", type=int, default=20000)
    series = parser.parse_args().series
    print(f"{series} series a row, seed {SEED}, spread of a launch {SPREAD:.1%}")
    tables(series)
    orders(series)
    flat(series)
    looks(series)
    visible()


if __name__ == "__main__":
    main()
