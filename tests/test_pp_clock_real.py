"""Rows that sglang 0.5.2 left on two H200s (70B shape, 64 layers, PP 2): figures reckoned again in
another way, and held against the traces of the same turns.

tests/data/pp_clock/real_rows.py cut them: PP1's first 57 turns of the measured window (three of
them prefill), and those that the profile saw. The traces' figures are what `analyze` prints of that
launch.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean, median

import pytest

from repro_pp_graphs.pp_clock import facts, rows
from repro_pp_graphs.pp_clock.model import ClockFacts, Turns
from repro_pp_graphs.pp_clock.rows import CODES, Row, Rows

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
    return found, facts.summary([found], window)


def decode(found: ClockFacts, when: str = "measured") -> Turns:
    return getattr(found.ranks["PP1"], when)["decode"]


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
