"""What of a turn is a wait, in which call, and what part of it is the rank's own batch."""

from __future__ import annotations

import pytest
from made_up_rank import CALLS, EVERYTHING, TURN_MS, Rank, steady

from repro_pp_graphs.pp_clock import launch_facts, rows


def test_a_turns_waits_are_its_sends_receives_and_waits():
    found = launch_facts.summary([steady().file], EVERYTHING)
    decode = found.last_rank()
    assert found.last == "PP1" and decode is not None
    assert decode.turn.count == 38  # the first two turns have others before them that no row tells
    assert decode.turn.mean == TURN_MS
    assert decode.waits.mean == pytest.approx(12 + 1 + 0.5 + 0.5)
    assert decode.calls["launch"].mean == pytest.approx(1) and decode.calls["launch"].count == 40
    assert decode.waits_outside is None and decode.split == 0


def test_a_turns_parts_add_up_and_a_call_inside_another_counts_once():
    rank = Rank(1)
    for at in range(40):
        rank.turn(at, {**CALLS, "launch": (1, 3), "recv_hidden": (1.5, 2.5)})
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.untimed is not None
    assert decode.parts["launch"] == pytest.approx(1) and decode.parts["recv_hidden"] == 1
    assert sum(decode.parts.values()) + decode.untimed.mean == pytest.approx(TURN_MS)


def test_parts_are_of_steady_turns_alone_however_many_run_beside_a_prefill():
    rank = Rank(1)
    for at in range(60):  # every third batch prefills: few turns are steady in between
        prefill = at % 3 == 0 and at < 30
        rank.turn(at, CALLS, rows.PREFILL if prefill else rows.DECODE)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.turn.count < decode.calls["send_tokens"].count
    assert decode.parts["send_tokens"] == pytest.approx(12)


def test_a_launch_is_timed_without_the_receive_inside_it():
    # up to 0.5.6 run_batch receives the hidden states
    rank = Rank(1)
    for at in range(30):
        rank.turn(at, {"recv_hidden": (1, 6), **CALLS, "launch": (0.5, 8)})
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None
    assert decode.calls["launch"].mean == pytest.approx(2.5)
    assert decode.calls["recv_hidden"].mean == pytest.approx(5)


def test_a_wait_is_split_by_the_ranks_own_batches():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 12)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.split == decode.turn.count
    assert decode.waits_in_own_batch is not None and decode.waits_outside is not None
    assert decode.waits_in_own_batch.mean == pytest.approx(9)  # 3 to 12 of the send's 3 to 15
    assert decode.waits_outside.mean == pytest.approx(14 - 9)
    assert decode.outside["send_tokens"].mean == pytest.approx(3)
    assert decode.outside["recv_tokens"].mean == pytest.approx(1)
    assert decode.own_batch is not None and decode.own_batch.mean == pytest.approx(10)


def test_a_batch_that_runs_into_the_next_turn_counts_there_and_never_twice():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 20.75)  # into the next turn's requests and hidden states
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.waits_in_own_batch is not None
    assert decode.waits_in_own_batch.mean == pytest.approx(12 + 1 + 0.75)


def test_a_turn_without_the_gpus_times_is_not_split_and_that_is_said():
    rank = steady(found={"own_batch": "ModelRunner.forward"})
    for at in range(30):
        rank.own_batch(at, 2, 12)
    found = launch_facts.summary([rank.file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.split == 28
    assert any("10 of 38 decode turns lack the GPU's times" in text for text in found.warnings)
    rank.header["missed"] = {"untied": 10, "unread": 0, "of a later version": 3}
    (said,) = (
        text for text in launch_facts.summary([rank.file], EVERYTHING).warnings if "lack" in text
    )
    assert said.endswith("since the start: 10 while nothing tied the GPU's clock to the host's)")
