"""stats/: estimate, interval and p against computations of another kind; what is refused."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from repro_pp_graphs.stats import looks, p_values, power
from repro_pp_graphs.stats.drift import Untestable, design, fit, outlying, satterthwaite

# the real series on two H100s, sglang 0.5.2: TPOT ms in the order of its launches
TPOT = [47.86204949730392, 50.78101700784314, 51.02485843235294, 48.36015946495098]
TPOT += [47.48273924509804, 50.146215633333334, 49.668307706372545, 47.624410020588236]
ABBA = [True, False, False, True]


def test_the_real_series_gives_the_interval_that_was_computed_apart_from_this_project():
    found = fit(design(ABBA * 2), np.log(TPOT))
    half = found.half_width(0.05)
    ratio, low, high = np.exp([found.value, found.value - half, found.value + half])[:, 0]
    assert (round(ratio, 4), round(low, 4), round(high, 4)) == (0.9490, 0.9338, 0.9644)
    assert np.sqrt(found.variances[0]) == pytest.approx([0.0099, 0.0070], abs=1e-4)
    assert found.df[0] == pytest.approx(4.49, abs=0.03)


def test_the_estimate_is_least_squares_with_an_index_and_sessions():
    rng = np.random.default_rng(5)
    arms, sessions = ABBA * 2, [1, 1, 1, 2, 2, 2, 2, 2]
    values = rng.normal(size=8)
    columns = np.column_stack(
        [arms, range(8), [each == 1 for each in sessions], [each == 2 for each in sessions]]
    ).astype(float)
    by_hand, squares, *_ = np.linalg.lstsq(columns, values, rcond=None)
    plan = design(arms, sessions)
    assert plan.weights @ values == pytest.approx(by_hand[0])
    assert plan.drift @ values == pytest.approx(by_hand[1])
    assert np.sum((plan.residual @ values) ** 2) == pytest.approx(squares[0])
    assert plan.df == 8 - 4


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("spreads", [(1.0, 1.0), (3.0, 1.0), (0.5, 2.0)])
def test_each_arms_variance_is_unbiased_over_every_outcome(count, spreads):
    """Noise of +s or -s: all 2^N outcomes, so the mean is the expectation, not a sample of it."""
    plan = power.abba(count)
    scale = np.where(plan.is_a, *spreads)
    outcomes = np.array(list(itertools.product([-1.0, 1.0], repeat=2 * count))) * scale
    squares = (outcomes @ plan.residual) ** 2
    sums = np.array([squares[:, plan.is_a].sum(1), squares[:, ~plan.is_a].sum(1)])
    means = np.linalg.solve(plan.mixing, sums).mean(axis=1)
    assert means == pytest.approx(np.square(spreads))
    # and so is the variance of A - B that they give
    assert np.mean((outcomes @ plan.weights) ** 2) == pytest.approx(means @ plan.shares)


def test_degrees_of_freedom_match_the_variance_of_the_variance():
    """Satterthwaite: 2 E^2 / Var, here from 400,000 normal series."""
    plan, spreads = power.abba(4), np.array([3.0, 1.0])
    noise = np.random.default_rng(11).standard_normal((400_000, 8))
    squares = (noise * np.where(plan.is_a, *spreads) @ plan.residual) ** 2
    sums = np.array([squares[:, plan.is_a].sum(1), squares[:, ~plan.is_a].sum(1)])
    of_value = plan.shares @ np.linalg.solve(plan.mixing, sums)
    simulated = 2 * of_value.mean() ** 2 / of_value.var()
    assert satterthwaite(plan, spreads[None] ** 2)[0] == pytest.approx(simulated, rel=0.02)


def test_degrees_of_freedom_stay_between_1_and_two_rounds_n_less_3():
    noise = np.random.default_rng(3).standard_normal((2000, 8)) * np.where(ABBA * 2, 100, 1)
    df = fit(design(ABBA * 2), noise).df
    assert df.min() >= 1 and df.max() <= 2 * 4 - 3


def test_a_steady_drift_leaves_no_trace_in_the_estimate_and_is_reported():
    plan = design(ABBA * 2)
    drifting = np.log(TPOT) + 0.03 * np.arange(8)
    plain, moved = fit(plan, np.log(TPOT)), fit(plan, drifting)
    assert moved.value == pytest.approx(plain.value) and moved.error == pytest.approx(plain.error)
    assert plan.drift @ drifting - plan.drift @ np.log(TPOT) == pytest.approx(0.03)


def test_p_and_interval_say_the_same():
    noise = np.random.default_rng(9).standard_normal((300, 8))
    found = fit(design(ABBA * 2), noise)
    for alpha in (0.05, 0.025, 0.01):
        excludes = np.abs(found.value) > found.half_width(alpha)
        assert np.array_equal(excludes, found.p() < alpha)


def test_swapping_the_arms_turns_the_sign_and_nothing_else():
    a = fit(design(ABBA * 2), np.log(TPOT))
    b = fit(design([not each for each in ABBA * 2]), np.log(TPOT))
    assert b.value == pytest.approx(-a.value)
    assert b.error == pytest.approx(a.error) and b.df == pytest.approx(a.df)


def test_launches_without_any_spread_do_not_divide_by_zero():
    found = fit(design(ABBA * 2), np.where(ABBA * 2, 1.0, 2.0))
    assert np.isfinite(found.half_width(0.05)).all() and found.p()[0] < 1e-6
    assert fit(design(ABBA * 2), np.ones(8)).p()[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("order", "sessions", "says"),
    [
        ("AABB", None, "one case ran before the other"),
        ("AAAABBBB", None, "one case ran before the other"),
        ("BBBAAA", None, "one case ran before the other"),
        ("AAAA", None, "only one of the two"),
        ("AABB", [1, 1, 2, 2], "different sessions"),
        ("ABBA", [1, 1, 2, 2], "4 launches in 2 sessions .* --rounds 4 --resume"),
        ("AAABBBBA", [1, 1, 1, 1, 1, 1, 1, 2], "one case ran before the other"),
    ],
)
def test_what_no_test_can_tell_is_refused(order, sessions, says):
    with pytest.raises(Untestable, match=says):
        design([each == "A" for each in order], sessions)


@pytest.mark.parametrize("order", ["ABBA", "BAAB", "ABAB", "ABBAAB", "ABABABAB", "ABBAABBA"])
def test_orders_in_turn_are_not_refused(order):
    assert design([each == "A" for each in order]).df == len(order) - 3


def test_two_launches_an_arm_share_one_spread():
    assert design(ABBA).pooled and not design(ABBA + ABBA[:2]).pooled


def test_the_exact_test_counts_every_order_of_the_launches():
    for a, b in (([1, 2, 3, 4], [5, 6, 7, 8]), ([1, 3, 5], [2, 4, 6]), ([1, 2, 6], [3, 4, 5, 7])):
        together = a + b

        def far(part: tuple[int, ...], size: int = len(a), of: int = len(together)) -> float:
            return abs(sum(part) - size * (of + 1) / 2)

        orders = list(itertools.combinations(range(1, len(together) + 1), len(a)))
        observed = far(tuple(sorted(together).index(each) + 1 for each in a))
        share = sum(far(each) >= observed - 1e-9 for each in orders) / len(orders)
        assert p_values.exact_p(a, b) == pytest.approx(share)


def test_the_exact_test_agrees_with_scipy_in_every_size_and_with_equal_values():
    from scipy import stats  # noqa: PLC0415 - half a second of every process that collects tests

    for seed, (few, many) in enumerate(
        [(1, 1), (1, 9), (3, 3), (4, 4), (5, 12), (11, 2), (32, 32)]
    ):
        for of in (3, 1000):  # different values: with many, some are equal
            a, b = np.split(np.random.default_rng(seed).integers(0, of, few + many), [few])
            expected = stats.mannwhitneyu(a, b, method="exact").pvalue
            assert p_values.exact_p(a.tolist(), b.tolist()) == pytest.approx(expected)


def test_holm_by_hand():
    assert p_values.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert p_values.holm([0.9, 0.8]) == [1.0, 1.0] and p_values.holm([]) == []


def test_one_launch_unlike_the_others_is_found_and_ordinary_ones_are_not():
    slow = np.log(TPOT)
    slow[5] += math.log(1.3)
    assert outlying(design(ABBA * 2), slow) == [5]
    assert outlying(design(ABBA * 2), np.log(TPOT)) == []
    noise = np.random.default_rng(2).standard_normal((1000, 8))
    share = np.mean([bool(outlying(design(ABBA * 2), each)) for each in noise])
    assert share < 0.07  # 5 % of series have a launch marked


@pytest.mark.parametrize(
    ("planned", "later", "done", "alpha", "withheld"),
    [
        ([4], [], 4, 0.05, False),
        ([4], [], 2, 0.05, True),
        ([4], [], 3, 0.01, False),  # an early look
        ([8], [], 5, 0.05, True),
        ([8], [], 6, 0.005, False),  # two of them share its level
        ([8], [], 7, 0.005, False),
        ([4, 8], [], 4, 0.025, False),
        ([4, 8], [], 8, 0.025, False),
        ([4, 8], [], 5, 0.025, True),
        ([4, 8], [], 6, 0.005, False),
        ([4], [8], 4, 0.05, False),
        ([4], [8], 8, 0.01, False),
        ([4], [8], 5, 0.01, True),
        ([4], [8], 6, 0.005, False),
        ([3], [], 2, 0.05, True),  # two rounds are none
        ([4], [6, 8], 8, 0.01, False),
        ([1], [], 1, 0.05, False),
        ([1, 4], [], 4, 0.05, False),  # one round was no look
        ([1], [4], 4, 0.05, False),
        ([1], [4, 8], 8, 0.01, False),
    ],
)
def test_planned_looks_share_the_level_and_an_unplanned_one_gets_less(
    planned, later, done, alpha, withheld
):
    found = looks.look(planned, later, done)
    assert (found.alpha, bool(found.withheld)) == (alpha, withheld)
    early = done not in [*planned, *later] and not withheld
    assert ("early" in found.why) == early
    assert ("unplanned" in found.why) == (alpha == 0.01 and not early)


def test_the_effect_that_shows_shows_in_four_of_five_series():
    plan, spread = power.abba(5), np.array([0.02, 0.03])
    effect = power.detectable(plan, spread**2, 0.05)
    noise = np.random.default_rng(77).standard_normal((20_000, 10)) * np.where(plan.is_a, *spread)
    found = fit(plan, noise + effect * plan.is_a)
    seen = np.mean(found.value > found.half_width(0.05))
    assert seen == pytest.approx(0.8, abs=0.015)


def test_more_rounds_are_needed_for_more_spread_and_some_spreads_are_too_much():
    needed = [power.rounds_needed(np.full(2, s**2), 0.05, math.log(1.05)) for s in (0.01, 0.03)]
    assert needed[0] == 4 and needed[1] > needed[0] and needed[1] % 2 == 0
    assert power.rounds_needed(np.full(2, 0.2**2), 0.05, math.log(1.05)) is None


@pytest.mark.parametrize("spread", [(0.02, 0.03), (0.0, 0.0), (0.0, 2.0), (3.0, 1e-5)])
@pytest.mark.parametrize(
    "plan", [power.abba(2), power.abba(5), design(ABBA * 2, [1, 1, 1, 1, 2, 2, 2, 2])]
)
def test_a_series_put_together_from_its_arms_is_the_series_itself(plan, spread):
    """What is kept for all spreads gives what each series gives when it is made and fitted."""
    noise = np.random.default_rng(len(plan.is_a)).standard_normal((power.SERIES, len(plan.is_a)))
    found = fit(plan, noise * np.where(plan.is_a, *spread))
    half = found.half_width(0.05)
    effect = power.detectable(plan, np.square(spread), 0.05)
    assert effect == pytest.approx(np.quantile(half - found.value, power.POWER), rel=1e-9)
