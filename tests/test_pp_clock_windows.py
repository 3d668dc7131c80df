"""The measured window: which turns are in it, by the client's requests, on any host's clock."""

from __future__ import annotations

from made_up_rank import CALLS, MS, TURN_MS, Rank, steady

from repro_pp_graphs.pp_clock import launch_facts, rows
from repro_pp_graphs.pp_clock.window import window_of


def test_the_window_is_from_the_first_request_to_the_last_token():
    requests = [{"start_ns": 5, "events": [[9, 1], [20, 2]]}, {"start_ns": 3, "events": [[12, 1]]},
                {"start_ns": 1, "events": []}]  # fmt: skip
    assert window_of({"requests": requests}) == (3, 20)
    assert window_of({}) is None


def test_what_arrives_beside_the_load_widens_no_window():
    own = {"start_ns": 5, "events": [[7, 1], [9, 2]]}
    beside = {"start_ns": 6, "events": [[30, 1]], "beside": True}
    assert window_of({"requests": [own, beside]}) == (5, 9)


def test_only_the_measured_window_counts_and_no_profiled_turn():
    rank = Rank(1)
    for at in range(100):
        flags = rows.DECODE | (rows.PROFILED if at >= 50 else 0)
        rank.turn(at, CALLS, flags)
    found = launch_facts.summary([rank.file], (10 * TURN_MS * MS, 40 * TURN_MS * MS))
    decode = found.last_rank()
    assert decode is not None and decode.turn.count == 30 and found.window_s == 0.6
    # of a profile's 50 turns the first two steps and the last one are left out
    assert found.ranks["PP1"].profiled["decode"].turn.count == 50 - 4 - 2
    assert found.distortion == 1.0


def test_without_a_clients_result_nothing_counts_as_measured():
    found = launch_facts.summary([steady().file], None)
    assert found.last_rank() is None and found.window_s is None


def test_several_windows_give_what_each_gives_alone():
    ms = TURN_MS * MS
    windows = [(0, 20 * ms), (20 * ms, 40 * ms), None]
    both = launch_facts.summaries([steady().file], windows)
    assert both == [launch_facts.summary([steady().file], window) for window in windows]
    counts = [found.last_rank() for found in both]
    assert [each.turn.count if each else 0 for each in counts] == [18, 20, 0]


def test_a_window_is_found_on_the_clock_of_another_host():
    """The second rank's host was booted 5 s later: its CLOCK_MONOTONIC is behind by so much."""
    here = {"boot_id": "a", "unix_ahead_ns": 1_000 * MS}
    there = {"boot_id": "b", "unix_ahead_ns": 6_000 * MS}
    first = Rank(0, **here)
    for at in range(1000):
        first.turn(at, CALLS)
    window = (5_200 * MS, 5_600 * MS)  # turns 10 to 29 of the second rank by its own clock
    second = steady(40, **there)
    found = launch_facts.summary([first.file, second.file], window)
    assert found.ranks["PP1"].measured["decode"].turn.count == 20
    assert any("PP1: its host is not the client's" in text for text in found.warnings)
    alone = launch_facts.summary([first.file, steady(40, **here).file], window)
    assert "decode" not in alone.ranks["PP1"].measured
