"""A launch as summary.json has it: of which sizes its micro-batches were."""

from __future__ import annotations

import pytest

from repro_pp_graphs.report.launch_row import split


@pytest.mark.parametrize(
    ("measured", "traced", "shown"),
    [
        ({"4": 100}, {"3": 5, "5": 5}, "4"),
        ({"3": 47, "5": 47}, {"4": 24}, "3 5"),
        ({"3": 4, "4": 96}, {}, "4"),  # as the last prompts end
        ({"3": 6, "4": 94}, {}, "3 4"),
        ({}, {"1": 12, "7": 12}, "1 7"),
        (None, {"4": 24}, "4"),
        ({}, {}, "-"),
    ],
)
def test_sizes_are_those_of_the_measured_pass_where_they_are_known(measured, traced, shown):
    clock = None if measured is None else {"decode_batches": measured}
    assert split({"pp_clock": clock, "decode_batches": traced}) == shown
