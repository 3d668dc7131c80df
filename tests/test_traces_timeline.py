"""Some decode steps as slices: small, in order, and of the same time as the analysis."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from repro_pp_graphs.traces.commands.one_reading import explain_case
from repro_pp_graphs.traces.commands.paths import read_cases
from repro_pp_graphs.traces.explain import timeline as timelines
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.timeline import Timeline, timeline
from repro_pp_graphs.traces.pair.edges import edges_of
from repro_pp_graphs.traces.rank_trace import Case

DATA = Path(__file__).resolve().parent / "data" / "traces"
NAMES = ("sglang052_graphs_on", "sglang052_graphs_off", "sglang0516_graphs_on", "h200_case_A")


def case_of(name: str) -> Case:
    return read_cases([DATA / name])[0]


def of(case: Case) -> Timeline:
    found = timeline(case, edges_of(case))
    assert found
    return found


@pytest.fixture(scope="module", params=NAMES)
def both(request) -> tuple[Case, Timeline]:
    case = case_of(request.param)
    return case, of(case)


def lanes(found: Timeline):
    for rank in found.ranks:
        yield from (rank.host, rank.waits, rank.gpu, rank.sends, rank.receives)


def test_slices_are_in_order_inside_the_stretch_and_few(both):
    _, found = both
    for slices in lanes(found):
        ends = [0.0]
        for one in slices:
            assert ends[-1] - 0.001 <= one.start_us < one.end_us <= found.length_us + 0.001
            ends.append(one.end_us)
    assert sum(map(len, lanes(found))) <= timelines.MOST_SLICES
    assert len(msgspec.json.encode(found)) < 300_000


def test_a_stretch_holds_turns_as_long_as_those_of_the_analysis(both):
    case, found = both
    facts = analyze(case, edges_of(case))
    turn = facts.turns[facts.label_of_last()]
    assert found.length_us / found.steps == pytest.approx(turn.mean, rel=0.15)
    told = facts.token_return
    assert told and told.host_us
    mean = sum(found.token_send_ms) / len(found.token_send_ms)
    assert mean * 1000 == pytest.approx(told.host_us.send.mean, rel=0.2)


def test_graphs_and_waits_of_the_last_rank_are_where_the_analysis_has_them():
    found = of(case_of("sglang052_graphs_on"))
    last = found.ranks[-1]
    sent = [one for one in last.host if one.kind == "token_send"]
    assert len(sent) == found.steps
    graph = sum(one.end_us - one.start_us for one in last.gpu if one.kind == "graph")
    waited = sum(one.end_us - one.start_us for one in last.waits if one.kind == "own_graph")
    assert 0.7 * found.length_us < waited <= graph < found.length_us
    tokens = [one for one in found.passed if one.tokens]
    assert {(one.src, one.dst) for one in tokens} == {("1", "0")}
    assert all(one.sent_us < one.received_us for one in found.passed)


def test_without_token_sends_the_middle_is_shown(tmp_path):
    name = next((DATA / "sglang052_graphs_on").glob("*PP-0*")).name
    (tmp_path / name).write_bytes((DATA / "sglang052_graphs_on" / name).read_bytes())
    case = read_cases([tmp_path])[0]
    found = timeline(case, edges_of(case))
    assert found is None or (found.steps == 0 and found.length_us > 0)


def test_a_case_without_common_time_has_none():
    case = case_of("sglang052_graphs_on")
    empty = Case(case.name, [], case.pp_size, case.tp_size)
    assert timeline(empty, []) is None


def test_many_slices_are_made_fewer(monkeypatch):
    case = case_of("sglang052_graphs_off")
    whole = of(case)
    monkeypatch.setattr(timelines, "MOST_SLICES", sum(map(len, lanes(whole))) // 2)
    fewer = of(case)
    assert sum(map(len, lanes(fewer))) <= timelines.MOST_SLICES
    assert (fewer.steps, fewer.gap_us) != (whole.steps, whole.gap_us)


def test_the_explain_step_leaves_them_beside_the_analysis(tmp_path):
    names = ("merged.json", "a.json", "a.txt", "slices.json")
    paths = [tmp_path / name for name in names]
    explain_case(DATA / "sglang052_graphs_on", *paths)
    stored = msgspec.json.decode(paths[3].read_bytes(), type=Timeline)
    assert stored == of(case_of("sglang052_graphs_on"))
