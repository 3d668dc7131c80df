"""Rows that real launches left: figures reckoned again in another way, and held against the traces
of the same turns.

Of sglang 0.5.2 on two H200s (70B shape, 64 layers, PP 2) PP1's first 57 turns of the measured
window (three of them prefill), and those that the profile saw; the traces' figures are what
`analyze` prints of that launch. Of 0.5.16 on two H100s (the same shape) every turn of PP1, clock on
and off in windows of 25. tests/data/pp_clock/real_rows.py cut them.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

import pytest

from repro_pp_graphs.pp_clock import launch_facts, on_off, rows
from repro_pp_graphs.pp_clock.clock_record import ClockFacts, Turns
from repro_pp_graphs.pp_clock.rows import CODES, Row, Rows
from repro_pp_graphs.pp_clock.window import ALWAYS

DATA = Path(__file__).parent / "data/pp_clock"
CASES = {"on": 16012, "off": 20444}  # graphs -> its first turn
COUNT = 57
WAITS = ("send_tokens", "recv_tokens", "recv_hidden", "recv_requests")


def real(graphs: str) -> tuple[Rows, ClockFacts]:
    """The rows, and the facts of their first COUNT turns as the measured window."""
    found = rows.read(DATA / f"h200_052_graphs_{graphs}_PP1.rows.gz")
    turns = {row.turn: row for row in found.rows if row.kind == CODES["turn"]}
    first = CASES[graphs]
    window = turns[first].begin_ns, turns[first + COUNT - 1].end_ns
    return found, launch_facts.summary([found], window)


def decode(found: ClockFacts, when: str = "measured", rank: str = "PP1") -> Turns:
    return getattr(found.ranks[rank], when)["decode"]


def took(row: Row) -> int:
    return row.end_ns - row.begin_ns


@pytest.mark.parametrize("graphs", CASES)
def test_the_figures_are_those_of_the_rows(graphs):
    found, known = real(graphs)
    its = decode(known)
    own = {row.turn: row for row in found.rows if row.kind == CODES["own_batch"]}
    # prefill in the first three turns: the first turn of decode alone is two later
    chosen = range(CASES[graphs] + 3 + 2, CASES[graphs] + COUNT)
    by_turn = {turn: [row for row in found.rows if row.turn == turn] for turn in chosen}
    whole = [took(row) for each in by_turn.values() for row in each if row.kind == CODES["turn"]]
    assert its.turn.count == len(whole) == COUNT - 5 == its.split
    assert its.turn.mean == pytest.approx(fmean(whole) / 1e6, abs=1e-5)
    assert its.turn.median == pytest.approx(median(whole) / 1e6, abs=1e-5)
    waits, outside = [], []
    for each in by_turn.values():
        timed = [row for row in each if row.kind in {CODES[name] for name in WAITS}]
        waits.append(sum(map(took, timed)))
        inside = 0
        for row in timed:  # against every batch, not only those that may run
            inside += sum(
                max(0, min(row.end_ns, b.end_ns) - max(row.begin_ns, b.begin_ns))
                for b in own.values()
            )
        outside.append(waits[-1] - inside)
    assert its.waits.mean == pytest.approx(fmean(waits) / 1e6, abs=1e-5)
    assert its.waits_outside is not None
    assert its.waits_outside.mean == pytest.approx(fmean(outside) / 1e6, abs=1e-5)


@pytest.mark.parametrize("graphs", CASES)
def test_the_calls_of_a_turn_add_up_to_it_but_for_a_little_python(graphs):
    its = decode(real(graphs)[1])
    assert its.untimed is not None and 0 < its.untimed.mean < 0.04 * its.turn.mean
    named = sum(each.mean * each.count for each in its.calls.values()) / its.turn.count
    # calls are counted by their batch, two of them by one more or fewer turn
    assert named + its.untimed.mean == pytest.approx(its.turn.mean, rel=0.06)


def test_nothing_is_lost_or_torn_and_every_turn_ran_as_it_should():
    for graphs in CASES:
        _, known = real(graphs)
        rank = known.ranks["PP1"]
        assert (rank.lost, rank.torn, rank.failed) == (0, 0, "")
        assert decode(known).graphs == (decode(known).turn.count if graphs == "on" else 0)
        assert [text for text in known.warnings if "under the profiler" not in text] == [
            "PP0 left no rows"  # not among the data
        ]


def test_the_send_of_profiled_turns_is_that_of_their_trace():
    _, known = real("on")
    its = decode(known, "profiled")
    # analyze: 15.15 ms, 1.21 of it without compute, in 46 steps; the trace counts from the send's
    # first operation on, 0.17 ms after its call, and gaps between a graph's kernels as idle
    assert its.calls["send_tokens"].mean == pytest.approx(15.15, abs=0.25)
    assert its.outside["send_tokens"].mean == pytest.approx(1.21, abs=0.15)
    # a decode step of the trace, 46.47 ms, is two turns
    assert 2 * its.turn.mean == pytest.approx(46.47, rel=0.01)


def test_the_send_unprofiled_waits_as_long_for_the_graph_but_its_own_part_is_half():
    _, known = real("on")
    measured, profiled = decode(known), decode(known, "profiled")
    for its, own_part in ((measured, 0.55), (profiled, 1.16)):
        assert its.outside["send_tokens"].mean == pytest.approx(own_part, abs=0.08)
        within = its.calls["send_tokens"].mean - its.outside["send_tokens"].mean
        assert within == pytest.approx(14.3, abs=0.2)
    assert known.distortion == pytest.approx(1.18, abs=0.04)
    assert any("decode turn took" in text for text in known.warnings)


def on_off_turns() -> tuple[Rows, list[Row]]:
    """The turns of 0.5.16 that decode, as do the two before them."""
    found = rows.read(DATA / "h100_0516_on_off_PP1.rows.gz")
    decode = {row.turn: row for row in found.rows if row.flags & rows.DECODE}
    return found, [row for turn, row in decode.items() if {turn - 1, turn - 2} <= decode.keys()]


@pytest.mark.slow
def test_of_turns_that_wander_windows_of_25_cannot_tell_what_the_clock_costs():
    found, turns = on_off_turns()
    both = launch_facts.summary([found], None).on_off
    assert both is not None and both.verdict == "unknown" and both.groups == 35
    # another way: on over off of all turns (windows missing at a pass's ends favour neither)
    means = {off: fmean(took(row) for row in turns if bool(row.flags & rows.OFF) == off)
             for off in (False, True)}  # fmt: skip
    assert both.ratio == pytest.approx(means[False] / means[True], abs=0.001)
    # and beside a switch: the eight turns before it against those after it, two left out
    at = {row.turn: row for row in turns}
    ratios = []
    for turn in (turn for turn in at if turn % 25 == 0 and turn // 25 % 2):  # switched there
        before, after = range(turn - 8, turn), range(turn + 2, turn + 10)
        if at.keys() >= {*before, *after}:
            sums = [sum(took(at[each]) for each in span) for span in (before, after)]
            ratios.append(sums[0] / sums[1] if at[turn].flags & rows.OFF else sums[1] / sums[0])
    assert len(ratios) == 81 and both.low <= fmean(ratios) <= both.high


def test_shorter_windows_of_the_same_turns_give_a_narrower_interval():
    """As if the clock had alternated every 8 turns: it made no difference then, but 25 did."""
    _, turns = on_off_turns()
    mean = {off: fmean(took(row) for row in turns if bool(row.flags & rows.OFF) == off)
            for off in (False, True)}  # fmt: skip

    def reach(size: int) -> float:
        made = [
            on_off.Turn(
                row.turn,
                round(took(row) / mean[bool(row.flags & rows.OFF)] * 1e7),
                row.turn // size % 4 in {1, 2},
            )
            for row in turns
        ]
        found = on_off.compared(made, size, 2)
        assert found is not None and found.low <= 1 <= found.high
        return found.high - found.low

    assert reach(8) < 0.6 * reach(25)


def test_a_load_that_fills_two_of_four_places_is_timed():
    """PP3 of sglang 0.5.2 at PP 4, 16 prompts as 1 + 15: two prefills, 30 decodes of each."""
    found = rows.read(DATA / "h200_052_two_places_empty_PP3.rows.gz")
    known = launch_facts.summary([found], ALWAYS)
    its = decode(known, rank="PP3")
    turns = [row for row in found.rows if row.kind == CODES["turn"] and row.flags & rows.DECODE]
    assert known.ranks["PP3"].decode_batches == {"1": 30, "15": 30}
    # left out: those after the prefills, and those whose round before was not yet as they are
    later = [row for row in turns if row.turn >= turns[0].turn + 4]
    assert its.in_flight == 2 and its.turn.count == len(later) == its.split
    assert its.turn.mean == pytest.approx(fmean(map(took, later)) / 1e6, abs=1e-5)
    sends = [row for row in found.rows if row.kind == CODES["send_tokens"]]
    sent = [took(row) for row in sends if row.turn in {turn.turn for turn in turns}]
    assert its.calls["send_tokens"].mean == pytest.approx(fmean(sent) / 1e6, abs=1e-5)
