"""The word DIFFERENT on made-up launches: rarely wrong, and not blind. benchmarks/sim_verdict.py
has more rounds, scenarios and series; this is its small, fixed part."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("scipy")

from repro_pp_graphs.stats import power
from repro_pp_graphs.stats.drift import fit

SERIES, SPREAD = 4000, 0.013


def launches(kind: str, rounds: int) -> np.ndarray:
    plan = power.abba(rounds)
    noise = np.random.default_rng([4711, rounds]).standard_normal((SERIES, 2 * rounds))
    at = np.arange(2 * rounds)
    if kind == "drift":
        return SPREAD * noise + 0.009 * at
    if kind == "AR(1)":
        for one in at[1:]:
            noise[:, one] = 0.5 * noise[:, one - 1] + math.sqrt(0.75) * noise[:, one]
    if kind == "spreads 3:1":
        noise *= np.where(plan.is_a, 3, 1)
    if kind == "heavy tails":
        noise = np.random.default_rng([4712, rounds]).standard_t(2.5, noise.shape)
    if kind == "an outlier":
        noise[:, 0] += 9
    return SPREAD * noise


# in 4,000 series the share of a true 5 % is below 6.2 % but once in a thousand times
@pytest.mark.parametrize("rounds", [3, 4, 6])
@pytest.mark.parametrize(
    "kind", ["iid", "drift", "AR(1)", "spreads 3:1", "heavy tails", "an outlier"]
)
def test_alike_arms_are_rarely_called_apart(kind, rounds):
    found = fit(power.abba(rounds), launches(kind, rounds))
    assert np.mean(np.abs(found.value) > found.half_width(0.05)) < 0.062


@pytest.mark.parametrize("kind", ["iid", "drift", "spreads 3:1"])
def test_the_interval_holds_the_truth_as_often_as_it_says(kind):
    plan, truth = power.abba(4), math.log(1.06)
    found = fit(plan, launches(kind, 4) + truth * plan.is_a)
    covered = np.mean(np.abs(found.value - truth) <= found.half_width(0.05))
    assert 0.94 < covered < 0.97


def test_a_real_difference_is_seen():
    plan = power.abba(4)
    found = fit(plan, launches("iid", 4) + math.log(1.06) * plan.is_a)
    assert np.mean(found.value > found.half_width(0.05)) > 0.95
