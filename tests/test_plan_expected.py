"""Where nothing of #10865 is to be expected, a plan says so before anything runs."""

from __future__ import annotations

import pytest
from plan_harness import plan_of


@pytest.mark.parametrize(
    ("release", "argv", "said"),
    [
        ("0.5.21", [], True),
        ("0.5.2", [], False),  # that of the issue
        ("0.5.21", ["--pp-size", "1"], False),
        ("0.5.21", ["--cases", "graphs_on"], False),  # #10865 is not asked
        ("0.5.21", ["--cpu"], False),
    ],
)
def test_a_release_of_which_the_issue_is_not_expected_is_named_before_it_runs(
    tmp_path, release, argv, said
):
    plan = plan_of(tmp_path, *argv, release=release)
    notes = [note for each in plan.launches for note in each.notes]
    assert any("#10865 is not expected" in note for note in notes) is said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--pp-size", "1"], True),
        (["--pp-size", "1", "--cpu"], True),
        (["--pp-size", "2"], False),
        (["--pp-size", "1", "--cases", "graphs_on"], False),  # #10865 is not asked
    ],
)
def test_that_one_pipeline_rank_has_no_send_is_said_before_it_runs(tmp_path, argv, said):
    plan = plan_of(tmp_path, *argv)
    noted = [any("nothing of #10865" in note for note in each.notes) for each in plan.launches]
    assert noted == [said] * len(plan.launches)
