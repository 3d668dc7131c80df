"""The order of launches: balanced blocks, begun by a case that is drawn, stable when extended."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import made_up_run
import pytest

from repro_pp_graphs.run.plan import planned_rounds
from repro_pp_graphs.run.plan.order import arms_of, turns, whole_rounds
from repro_pp_graphs.run.plan.planned_rounds import LooksError
from repro_pp_graphs.run_record import Look, Plan

SEEDS = range(40)


def rows(names: str, rounds: int, seed: int | None, began_with_one: bool = False) -> list[str]:
    """The cases of each round in order, a letter each."""
    found: dict[int, str] = {}
    for turn in turns(arms_of(list(names), False), rounds, seed, began_with_one):
        found[turn.round] = found.get(turn.round, "") + turn.arm.name
    return list(found.values())


def test_two_cases_run_in_abba_blocks_and_who_begins_each_is_drawn():
    seen = [rows("AB", 4, seed) for seed in SEEDS]
    for order in seen:
        for first, second in (order[:2], order[2:]):
            assert second == first[::-1] and set(first) == {"A", "B"}
    begun = Counter(order[0] + order[2] for order in seen)
    assert set(begun) == {"ABAB", "ABBA", "BAAB", "BABA"}, "blocks are drawn one by one"


@pytest.mark.parametrize("names", ["A", "AB", "ABC", "ABCD", "ABCDE", "ABCDEF"])
def test_in_a_block_every_case_has_every_place_once(names):
    size = len(names)
    for seed in SEEDS:
        for block in range(3):
            order = rows(names, 3 * size, seed)[block * size : (block + 1) * size]
            for place in range(size):
                assert {row[place] for row in order} == set(names)


@pytest.mark.parametrize(
    ("names", "blocks"), [("ABCD", 1), ("ABCDEF", 1), ("ABC", 2), ("ABCDE", 2)]
)
def test_every_case_follows_each_other_equally_often(names, blocks):
    # squares of one labelling; draws relabel a whole block
    order = rows(names, blocks * len(names), None)
    followed = Counter(pair for row in order for pair in pairwise(row))
    assert len(followed) == len(names) * (len(names) - 1)
    assert len(set(followed.values())) == 1


def test_linear_drift_cancels_in_every_block():
    for names in ("AB", "ABC", "ABCD"):
        size = len(names)
        for seed in SEEDS:
            places = "".join(rows(names, size, seed))
            sums = {name: sum(n for n, each in enumerate(places) if each == name) for name in names}
            assert len(set(sums.values())) == 1


def test_a_run_that_is_extended_keeps_its_launches():
    for names in ("AB", "ABC"):
        for seed in SEEDS:
            longer = rows(names, 4 * len(names), seed)
            assert longer[: 2 * len(names)] == rows(names, 2 * len(names), seed)
            one = rows(names, 1, seed, began_with_one=True)
            assert one == [names], "one round runs as given"
            assert rows(names, len(names), seed, began_with_one=True)[:1] == one


def test_runs_of_earlier_versions_go_on_back_and_forth():
    assert rows("AB", 4, None) == ["AB", "BA", "AB", "BA"]


@pytest.mark.parametrize(
    ("rounds", "arms", "whole"),
    [(1, 2, 1), (2, 2, 2), (3, 2, 4), (4, 2, 4), (4, 3, 6), (1, 3, 1), (5, 4, 8), (3, 1, 3)],
)
def test_rounds_complete_their_block(rounds, arms, whole):
    assert whole_rounds(rounds, arms) == whole


def test_a_case_against_itself_has_two_names():
    first, second = arms_of(["graphs_on"], True)
    assert first.case == second.case == "graphs_on"
    assert (first.name, second.name) == ("graphs_on_aa1", "graphs_on_aa2")
    assert first.suffix != second.suffix


# looks


def begun(rounds: int, *planned: int) -> Plan:
    """A run that has so many rounds, with looks planned at its start."""
    made = made_up_run.plan(*(made_up_run.launch(round=n) for n in range(1, rounds + 1)))
    made.looks = [Look(each, True) for each in planned]
    return made


def told(found: planned_rounds.Rounds) -> tuple[int, list[tuple[int, bool]]]:
    return found.now, [(look.rounds, look.planned) for look in found.looks]


@pytest.mark.parametrize(
    ("asked", "now", "totals"),
    [
        (None, 1, [1]),
        ([1], 1, [1]),
        ([4], 4, [4]),
        ([3], 4, [4]),
        ([4, 4], 4, [4, 8]),
        ([4, 3], 4, [4, 8]),
        ([1, 3], 2, [2, 4]),
        ([2, 2, 2], 2, [2, 4, 6]),
    ],
)
def test_a_new_run_has_the_looks_that_were_asked_for(asked, now, totals):
    found = planned_rounds.begin(asked, 2)
    assert told(found) == (now, [(total, True) for total in totals])
    whole = asked is None or all(n % 2 == 0 for n in asked) or asked == [1]
    assert (found.notes == []) == whole
    assert whole or "is made" in found.notes[0]


@pytest.mark.parametrize(
    ("earlier", "asked", "complete", "expected"),
    [
        # the first round was looked at by no test: what follows is planned
        (begun(1, 1), [4], True, (4, [(1, True), (4, True)])),
        (begun(1, 1), [4], False, (4, [(1, True), (4, True)])),
        (begun(1, 1), [4, 4], True, (4, [(1, True), (4, True), (8, True)])),
        (begun(1, 1), None, True, (1, [(1, True)])),
        (begun(1), [4], True, (4, [(1, True), (4, True)])),  # of an earlier version
        # a second look that was planned comes once the first is done
        (begun(4, 4, 8), [4, 4], False, (4, [(4, True), (8, True)])),
        (begun(4, 4, 8), [4, 4], True, (8, [(4, True), (8, True)])),
        (begun(4, 4, 8), None, True, (8, [(4, True), (8, True)])),
        (begun(4, 4, 8), [8], True, (8, [(4, True), (8, True)])),
        (begun(4, 4, 8), [4], True, (4, [(4, True), (8, True)])),
        (begun(8, 4, 8), None, True, (8, [(4, True), (8, True)])),
        # one that nobody planned
        (begun(4, 4), [8], True, (8, [(4, True), (8, False)])),
        (begun(4, 4), [7], True, (8, [(4, True), (8, False)])),
        (begun(4, 4), None, True, (4, [(4, True)])),
    ],
)
def test_what_a_resume_goes_on_to(earlier, asked, complete, expected):
    assert told(planned_rounds.go_on(asked, 2, earlier, complete)) == expected


def test_fewer_rounds_than_there_are_is_refused():
    with pytest.raises(LooksError, match=r"--rounds 2: the run has 4 already"):
        planned_rounds.go_on([2], 2, begun(4, 4), True)
