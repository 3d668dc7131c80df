"""Which turns count as steady decode turns, and which as prefill, beside one, or as none."""

from __future__ import annotations

import pytest
from made_up_rank import CALLS, EVERYTHING, TURN_MS, Rank

from repro_pp_graphs.pp_clock import launch_facts, rows


def test_turns_beside_a_prefill_are_not_steady_decode_turns():
    rank = Rank(1)
    for at in range(40):
        rank.turn(at, CALLS, rows.PREFILL if at == 20 else rows.DECODE)
    decode = launch_facts.summary([rank.file], EVERYTHING).last_rank()
    assert decode is not None and decode.turn.count == 40 - 1 - 2 - 2


def test_decodes_beside_a_prefill_are_turns_of_their_own_kind():
    # a prefill every tenth turn; with two batches in flight the two decodes after it are beside it
    rank = Rank(1)
    for at in range(60):
        prefill = at % 10 == 5
        took = 9 if at % 10 in (6, 7) else 1
        flags = rows.PREFILL if prefill else rows.DECODE
        rank.turn(at, {"launch": (0, 1), "send_tokens": (2, 2 + took)}, flags)
    measured = launch_facts.summary([rank.file], EVERYTHING).ranks["PP1"].measured
    assert measured["prefill"].turn.count == 6
    beside = measured["beside_prefill"]
    assert beside.turn.count == 12 and beside.calls["send_tokens"].mean == pytest.approx(9)
    assert measured["decode"].turn.count + beside.turn.count + 6 + 2 == 60  # two begin the rows


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize(("pp_rank", "kind"), [(1, "send"), (1, "recv"), (0, "send"), (0, "recv")])
def test_tokens_are_told_apart_by_the_batch_that_they_are_of(pp_rank, kind, depth):
    # one prefill batch in turn 20; its tokens are sent and received where the ring brings them
    loop, prefill = 2 + depth, 20
    later = {(1, "send"): depth, (0, "send"): loop, (1, "recv"): loop - 1, (0, "recv"): loop - 1}
    rank = Rank(pp_rank, depth=depth)
    for at in range(40):
        took = 9 if at == prefill + later[pp_rank, kind] else 1
        flags = rows.PREFILL if at == prefill else rows.DECODE
        rank.turn(at, {"launch": (0, 1), f"{kind}_tokens": (2, 2 + took)}, flags)
    found = launch_facts.summary([rank.file], EVERYTHING).ranks[f"PP{pp_rank}"].measured
    assert found["prefill"].turn.count == 1
    # the chosen turns' calls: of prefill batches the one, of decode batches none of it
    assert found["prefill"].calls[f"{kind}_tokens"].mean == pytest.approx(9)
    assert found["decode"].calls[f"{kind}_tokens"].mean == pytest.approx(1)


def half_full(turns: int = 80, filled: int = 0, silent: bool = True) -> Rank:
    """A loop of four with a batch in two of its places: in all four up to turn `filled`. One of the
    others leaves no row (`silent`: the next turn says so), the other one without a batch."""
    rank = Rank(3, pp_size=4, lacks={})
    for at in range(turns):
        if at < filled or at % 4 < 2:
            rank.turn(at, CALLS)
        elif at % 4 == 3:
            begin = at * TURN_MS
            rank.row(at, "recv_tokens", begin, begin + 9)
            rank.row(at, "turn", begin, begin + TURN_MS / 2, value=silent)
    return rank


def test_a_loop_with_empty_places_has_decode_turns_and_says_how_many_are_in_use():
    found = launch_facts.summary([half_full().file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.in_flight == 2
    assert decode.turn.mean == TURN_MS  # of the turns with a batch
    assert decode.turn.count == 40 - 4  # empty places must have been empty a round before
    assert any("2 of 4 micro-batches were in flight" in text for text in found.warnings)


def test_a_turn_of_which_no_row_tells_is_not_taken_for_an_empty_one():
    found = launch_facts.summary([half_full(silent=False).file], EVERYTHING)
    assert found.last_rank() is None
    (text,) = [text for text in found.warnings if "decode turns of the measured" in text]
    assert "none of the 40 decode turns" in text and "emptied or filled" in text


def test_calls_in_turns_without_a_batch_are_not_said_to_be_made_otherwise():
    ring = half_full()
    ring.rows = [row for row in ring.rows if rows.KINDS[row.kind] != "process"]
    text = " ".join(launch_facts.summary([ring.file], EVERYTHING).warnings)
    assert "micro-batches were in flight" in text and "no call of" not in text


# full up to turn 61, from 4 on; two of four from turn 28 on, as 22 and 23 were the first empty ones
@pytest.mark.parametrize(("filled", "in_flight", "turns"), [(60, 4, 58), (20, 2, 26)])
def test_turns_are_of_as_many_micro_batches_as_most_rounds_have(filled, in_flight, turns):
    found = launch_facts.summary([half_full(filled=filled).file], EVERYTHING)
    decode = found.last_rank()
    assert decode is not None and decode.in_flight == in_flight
    assert decode.turn.count == turns


def test_the_turns_that_decode_are_counted_by_the_size_of_their_batch():
    rank = Rank(0)
    for at in range(12):
        rank.turn(at, CALLS, rows.PREFILL if at < 2 else rows.DECODE)
    rank.rows = [row._replace(batch_size=15) if row.turn % 2 else row for row in rank.rows]
    found = launch_facts.summary([rank.file], EVERYTHING).ranks["PP0"]
    assert found.decode_batches == {"8": 5, "15": 5}


def test_turns_with_the_clock_off_count_nowhere_but_in_the_comparison():
    rank = Rank(1, alternate=10)
    for at in range(120):
        off = at // 10 % 2
        flags = rows.DECODE | rows.OFF * off | rows.PROFILED * (at >= 60)
        rank.turn(at, {} if off else CALLS, flags)
    found = launch_facts.summary([rank.file], EVERYTHING).ranks["PP1"]
    for turns in (found.measured["decode"], found.profiled["decode"]):
        assert turns.waits.mean == pytest.approx(13) == turns.waits.median


def test_turns_whose_batches_were_launched_with_the_clock_off_do_not_lack_the_gpus_times():
    rank = Rank(1, alternate=10, found={"own_batch": "ModelRunner.forward"})
    for at in range(120):
        off = at // 10 % 4 in (1, 2)
        rank.turn(at, {} if off else CALLS, rows.DECODE | rows.OFF * off)
        if not off:
            rank.own_batch(at, 2, 12)
    found = launch_facts.summary([rank.file], EVERYTHING)
    decode = found.last_rank()
    # two turns of a loop of two still deal with batches from before the clock was on (again)
    assert decode is not None and decode.turn.count == 60 - 4 * 2 == decode.split
    assert not any("lack the GPU's times" in text for text in found.warnings)
