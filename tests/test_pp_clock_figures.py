"""The figures that a summary takes from a clock: each rank's waits, sends, the token return."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from made_up_rank import CALLS, EVERYTHING, TURN_MS, Rank, steady

from repro_pp_graphs.pp_clock import clock_record, figures, launch_facts, rows
from repro_pp_graphs.report.tables import clock_values
from repro_pp_graphs.stats import metric_names


def test_each_rank_says_where_it_waits_and_what_of_it_is_outside_its_batches():
    first, last = Rank(0), steady()
    for at in range(40):
        first.turn(at, {"launch": (1, 2), "recv_tokens": (2, 18)})
        last.own_batch(at, 2, 12)
    short = figures.summary(launch_facts.summary([first.file, last.file], EVERYTHING))
    assert short is not None and short.pp_size == 2
    waits = short.ranks["PP1"]
    assert waits.outside_ms is not None and waits.outside_ms["send_tokens"] == pytest.approx(3)
    assert "launch" not in waits.waits_ms and waits.waits_ms["send_tokens"] == pytest.approx(12)
    assert waits.own_batch_ms == pytest.approx(10) and waits.turn_ms == TURN_MS
    untimed = short.ranks["PP0"]  # on the GPU
    assert untimed.waits_ms == {"recv_tokens": pytest.approx(16)}
    assert untimed.outside_ms is None and untimed.own_batch_ms is None


def in_batches(pp_rank: int, **header: Any) -> Rank:
    """A rank whose sends and receives go in one call a turn, 6 ms of 10 outside its own batch."""
    rank = Rank(pp_rank, found={"exchange": "GroupCoordinator.exchange_tensor_dicts"}, **header)
    requests = "recv_requests" if pp_rank else "send_requests"
    for at in range(60):
        calls = {requests: (0, 1), "launch": (1, 2), "exchange": (3, 13), "process": (14, 15)}
        rank.turn(at, calls, rows.PREFILL if at < 2 else rows.DECODE)
        rank.own_batch(at, 2, 7)
    return rank


def test_sends_and_receives_in_one_batch_stand_under_its_name():
    found = launch_facts.summary([in_batches(0).file, in_batches(1).file], EVERYTHING)
    assert found.warnings == []
    decode = found.ranks["PP0"].measured["decode"]
    assert decode.calls["exchange"].mean == pytest.approx(10)
    assert not {"send_tokens", "send_hidden", "recv_tokens"} & decode.calls.keys()
    assert decode.waits.mean == pytest.approx(11)  # the requests too
    short = figures.summary(found)
    assert short is not None and short.token_send_ms is None
    assert short.exchange_ms is not None and short.exchange_ms.mean == pytest.approx(10)
    assert short.prefill_exchange_ms is not None and short.prefill_exchange_ms.count == 2
    assert short.ranks["PP1"].waits_ms["exchange"] == pytest.approx(10)
    named = figures.token_return(found, with_receive=False)
    assert named[metric_names.RETURN] == pytest.approx(10) and named[
        metric_names.IDLE
    ] == pytest.approx(6)


def both_modes(own_batch: bool) -> clock_record.ClockFacts:
    rank = Rank(1)
    for at in range(60):
        flags = rows.PREFILL if at < 2 else rows.DECODE
        took = 4 if at < 2 else 12
        rank.turn(at, {**CALLS, "send_tokens": (3, 3 + took), "recv_tokens": (15, 16)}, flags)
        if own_batch:
            rank.own_batch(at, 2, 12)
    return launch_facts.summary([rank.file], EVERYTHING)


def test_the_summary_has_the_send_of_prefill_beside_that_of_decode():
    found = figures.summary(both_modes(own_batch=True))
    assert found is not None and found.prefill_token_send_ms is not None
    assert (found.token_send_ms.mean, found.prefill_token_send_ms.mean) == (12, 4)
    stored = msgspec.to_builtins(found)
    numbers = {path: clock_values.value(stored, path) for _, path in clock_values.ROWS}
    assert numbers["prefill_token_send_ms.mean"] == 4 and numbers["token_send_ms.median"] == 12
    assert numbers["waits_outside_ms.mean"] == pytest.approx(4) and numbers["distortion"] is None
    assert max(len(title) for title, _ in clock_values.ROWS) <= 22


def test_named_figures_are_of_the_send_or_of_send_and_receive():
    found = both_modes(own_batch=True)
    alone, both = (figures.token_return(found, with_receive) for with_receive in (False, True))
    assert alone[metric_names.RETURN] == pytest.approx(12) and both[
        metric_names.RETURN
    ] == pytest.approx(13)
    assert alone[metric_names.IDLE] == pytest.approx(3) and both[
        metric_names.IDLE
    ] == pytest.approx(4)
    assert alone[metric_names.OWN_GRAPH] == pytest.approx(9) == both[metric_names.OWN_GRAPH]
    assert alone[metric_names.OUTSIDE] == pytest.approx(4)


def test_no_part_of_the_token_return_is_less_than_nothing():
    found = both_modes(own_batch=True)
    decode = found.last_rank()
    assert decode is not None
    decode.outside["send_tokens"].mean = decode.calls["send_tokens"].mean + 0.001
    named = figures.token_return(found, with_receive=False)
    assert named[metric_names.OWN_GRAPH] == 0
    assert named[metric_names.IDLE] == named[metric_names.RETURN]


def test_without_the_gpus_times_there_are_no_named_figures():
    found = both_modes(own_batch=False)
    assert figures.token_return(found, False) == {}
    short = figures.summary(found)
    assert short is not None and short.waits_outside_ms is None
    assert clock_values.value(msgspec.to_builtins(short), "waits_outside_ms.mean") is None
    assert figures.summary(launch_facts.summary([steady().file], None)) is None
