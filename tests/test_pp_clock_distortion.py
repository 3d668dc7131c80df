"""By how much a profile makes turns longer: warned of above a tenth, for each load by itself."""

from __future__ import annotations

import pytest
from made_up_rank import MS, TURN_MS, Rank

from repro_pp_graphs.pp_clock import caveats, launch_facts, rows
from repro_pp_graphs.pp_clock.rows import Rows


def profiled(factor: float) -> Rows:
    rank = Rank(1)
    base = 0.0
    for at in range(100):
        took = TURN_MS * (factor if at >= 50 else 1)
        rank.row(at, "launch", base, base + 1)
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.row(at, "turn", base, base + took, flags=flags)
        base += took
    return rank.file


@pytest.mark.parametrize(
    ("factor", "warned"), [(1.05, False), (1.2, True), (0.95, False), (0.6, True)]
)
def test_a_profile_that_distorts_is_warned_of_above_a_tenth(factor, warned):
    found = launch_facts.summary([profiled(factor)], (0, 50 * TURN_MS * MS))
    assert found.distortion == pytest.approx(factor) == found.distortion_median
    said = [text for text in found.warnings if "as long" in text]
    assert len(said) == warned
    assert all("without the profile's first two steps and its last" in text for text in said)


def test_turns_longer_by_one_figure_and_shorter_by_the_other_are_not_called_slowed():
    rank = Rank(1)
    base = 0.0
    for at in range(100):
        slow = at in (7, 23)  # two turns of the measured pass that something held up
        took = TURN_MS * (1.13 if at >= 50 else 40 if slow else 1)
        rank.row(at, "launch", base, base + 1)
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.row(at, "turn", base, base + took, flags=flags)
        base += took
    found = launch_facts.summary([rank.file], (0, 128 * TURN_MS * MS))
    (said,) = [text for text in found.warnings if "under the profiler" in text]
    assert found.distortion < 1 < found.distortion_median and "as long as" not in said
    assert "longer than in the measured pass by one figure and shorter by the other" in said
    assert f"{found.distortion:.2f} times by means, 1.13 by medians" in said


@pytest.mark.parametrize(
    ("means", "medians", "first"),
    [
        (1.019, 1.12, "1.12 times as long as in the measured pass, by medians (1.02 by means;"),
        (1.36, 1.34, "1.36 times as long as in the measured pass, by means (1.34 by medians;"),
        (1.20, 1.30, "1.20 times as long as in the measured pass, by means (1.30 by medians;"),
        (0.6282, 0.98, "0.63 times as long as in the measured pass, by means (0.98 by medians;"),
        (0.97, 0.85, "0.85 times as long as in the measured pass, by medians (0.97 by means;"),
    ],
)
def test_the_figure_for_which_it_is_said_comes_first(means, medians, first):
    said = caveats.distorted(means, medians)
    assert f"the last rank's decode turn took {first}" in said
    assert ("the profile met a lighter moment" in said) == (means < 1)


def test_turns_within_a_tenth_by_both_figures_are_not_spoken_of():
    assert caveats.distorted(1.10, 0.90) == caveats.distorted(0.95, 1.02) == ""
    mixed = caveats.distorted(0.85, 1.02)
    assert "shorter by the other: 0.85 times by means, 1.02 by medians (" in mixed


def under_loads(*factors: float) -> Rows:
    """Fifty turns under each load, then a profile of fifty under each, longer by its factor, with
    ten turns unprofiled before it."""
    rank, base = Rank(1), 0.0
    spans = [(1.0, 0)] * 50 * len(factors)
    for factor in factors:
        spans += [(1.0, 0)] * 10 + [(factor, rows.PROFILED)] * 50
    for at, (factor, flag) in enumerate(spans):
        rank.row(at, "launch", base, base + 1)
        rank.row(at, "turn", base, base + factor * TURN_MS, flags=rows.DECODE | flag)
        base += factor * TURN_MS
    return rank.file


def test_each_load_is_held_against_its_own_profile():
    turns = TURN_MS * MS
    windows = [(0, 50 * turns), (50 * turns, 100 * turns), (0, 50 * turns)]
    second = int((100 + 10 + 50 * 1.05 + 5) * turns)  # before the second profile began
    spans = [(0, second), (second, 1 << 62), None]
    found = launch_facts.summaries([under_loads(1.05, 1.5)], windows, profiles=spans)
    assert [each.distortion for each in found] == [1.05, 1.5, None]
    assert [len(each.ranks["PP1"].profiled) for each in found] == [1, 1, 0]
    assert [any("as long" in text for text in each.warnings) for each in found] == [0, 1, 0]
