"""Two cases' decode steps held against one another: which, and why one is longer."""

from __future__ import annotations

import pytest

pytest.importorskip("msgspec")

from msgspec.structs import replace
from path_cases import DATA, path_of
from trace_changes import explained_of as analysis

from repro_pp_graphs.traces.analysis_record import PathPart, RingPath
from repro_pp_graphs.traces.commands import case_pairs as differences_of
from repro_pp_graphs.traces.commands.analyze import main
from repro_pp_graphs.traces.commands.case_pairs import pairs
from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.path import difference_words
from repro_pp_graphs.traces.path.difference import differences


def test_the_difference_of_two_cases_is_shared_out_and_adds_up():
    released, blocking = path_of("sglang0516_graphs_on"), path_of("sglang0516_sync_send")
    found = differences([released], [blocking])
    assert found.over == "steps"
    assert found.step.mean == pytest.approx(blocking.step_us.mean - released.step_us.mean, abs=1)
    total = sum(part.mean for part in found.categories.values())
    assert total == pytest.approx(found.step.mean, abs=0.1)
    host = found.categories["host"]
    assert host.low is not None
    assert host.low > 0.5 * found.step.mean  # what blocking sends cost is the hosts' time


@pytest.mark.parametrize(
    ("slower", "said"), [(1.05, ""), (1.3, "1.30 times as long on PP1"), (0.5, "0.50")]
)
def test_hosts_that_were_not_equally_fast_are_named_beside_a_difference(slower, said):
    first = analysis("sglang0516_sync_send_numbered")
    assert first.ranks["1"].next_batch_us == pytest.approx(400, rel=0.3)
    ranks = dict(first.ranks)
    ranks["1"] = replace(ranks["1"], next_batch_us=slower * ranks["1"].next_batch_us)
    second = replace(first, case="another", ranks=ranks)
    text = " ".join(" ".join(differences_of.lines([first, second])).split())
    assert ("The hosts were not equally fast" in text) == bool(said)
    assert said in text
    # not shown by the trace: nothing is said of it
    ranks["1"] = replace(ranks["1"], next_batch_us=None)
    assert "equally fast" not in " ".join(differences_of.lines([first, second]))


def test_of_several_cases_the_first_is_held_against_each_of_the_others(capsys):
    names = ["sglang0516_graphs_on", "sglang0516_sync_send", "sglang052_graphs_on"]
    assert main([str(DATA / name) for name in names]) == 0
    text = capsys.readouterr().out
    _, *tables = text.split("2nd less 1st")
    assert len(tables) == 2
    assert all(len(line) <= 80 for table in tables for line in table.splitlines())
    released, blocking = map(path_of, names[:2])
    assert f"{(blocking.step_us.mean - released.step_us.mean) / 1e3:+.2f}" in tables[0]
    assert "another pair: python -m repro_pp_graphs analyze ON OFF" in tables[1]


def pairs_of(**graphs: bool) -> list[tuple[str, str]]:
    """The pairs of cases of these names, as names; whether each has graphs."""
    made = [
        replace(analysis("sglang052_graphs_on"), case=case, graph_launches={"0": 47 * on})
        for case, on in graphs.items()
    ]
    return [(made[first].case, made[second].case) for first, second in pairs(made)]


def test_of_several_cases_graphs_off_is_held_against_graphs_on_of_the_same_name():
    a_on, a_off, b_on, b_off = "r1_graphs_on", "r1_graphs_off", "r2-no-graphs", "r2"
    several = {a_off: False, a_on: True, b_on: False, b_off: True, "r3_graphs_on": True}
    assert pairs_of(**several) == [(a_on, a_off), (b_off, b_on)]
    # two cases are what was asked for; without a pair alike, and on a CPU, the first is the base
    assert pairs_of(r1_graphs_off=False, r1_graphs_on=True) == [(a_off, a_on)]
    assert pairs_of(x_on=True, y_off=False, z_on=True) == [("x_on", "y_off"), ("x_on", "z_on")]
    assert pairs_of(x_on=False, x_off=False, z=False) == [("x_on", "x_off"), ("x_on", "z")]


def test_the_difference_of_two_cases_without_graphs_is_not_put_down_to_them():
    off = [analysis("sglang052_graphs_off"), replace(analysis("sglang052_graphs_off"), case="b")]
    assert "neither has decode graphs" in " ".join(differences_of.lines(off))
    assert "neither" not in " ".join(differences_of.lines([analysis("sglang052_graphs_on"), *off]))


def test_cases_of_a_run_go_by_their_letters_in_whatever_order_they_are_named():
    names = "CASE_A_decode_graphs", "CASE_B_no_graphs", "CASE_C_sync_send"
    a, b, c = names
    assert pairs_of(**dict.fromkeys(names[::-1], True)) == [(a, b), (a, c)]
    assert pairs_of(**{b: False, a: True}) == [(a, b)]
    path = path_of("sglang052_graphs_on")
    head, columns, *_ = difference_words.lines(a, path, c, path)
    assert head == "CASE_C_sync_send (C) less CASE_A_decode_graphs (A)"
    assert columns.split()[-6:] == ["A", "C", "C", "less", "A", "+-"]
    again = difference_words.lines(a, path, f"{a}_r2", path)[:2]
    assert again[0] == f"{a}_r2 (2nd) less {a} (1st)"
    assert "2nd less 1st" in again[1]


def test_a_sentence_names_the_difference_and_what_it_is_made_of():
    released, blocking = path_of("sglang0516_graphs_on"), path_of("sglang0516_sync_send")
    found = differences([released], [blocking])
    text = difference_words.sentence("A", "B", found)
    assert f"B is {found.step.mean / 1e3:.2f} ms longer than one of A" in text
    assert f"{TITLES['host']} {found.categories['host'].mean / 1e3:+.2f} ms" in text
    back = difference_words.sentence("B", "A", differences([blocking], [released]))
    assert f"A is {found.step.mean / 1e3:.2f} ms shorter than one of B" in back
    assert "say nothing of how launches differ" in text


def test_with_several_launches_the_interval_is_over_launches():
    one = path_of("sglang0516_graphs_on")
    launches = [
        replace(one, categories=one.categories | {"host": PathPart(us, None)})
        for us in (4000.0, 4200.0, 4400.0, 5000.0, 5100.0, 5200.0)
    ]
    found = differences(launches[:3], launches[3:])
    host = found.categories["host"]
    assert found.over == "launches"
    assert host.mean == pytest.approx(900)
    # Welch: variances 40,000 and 10,000 of three values each, t(0.975; 2.94) = 3.22
    assert (host.low, host.high) == pytest.approx((900 - 416, 900 + 416), abs=5)
    assert found.categories["graph"].low == found.categories["graph"].high == 0
    with pytest.raises(ValueError, match="nothing to compare"):
        differences([], launches)


def test_beside_a_case_of_several_launches_a_single_one_is_taken_to_spread_as_these_do():
    """sglang 0.5.2 on four H200s: decode steps of 90.8 ms with graphs, 81.0 and 125.8 without."""
    one = path_of("sglang0516_graphs_on")

    def launch(step_us: float) -> RingPath:
        parts = dict.fromkeys(one.categories, PathPart(0.0, 0.0))
        return replace(one, categories=parts | {"host": PathPart(step_us, 100.0)}, step_error=100.0)

    found = differences([launch(90_763)], [launch(81_011), launch(125_781)])
    assert found.over == "launches"
    # a spread of 31.66 ms in both, t(0.975; 1) = 12.71
    half = 12.706 * 31_657 * 1.5**0.5
    assert (found.step.low, found.step.high) == pytest.approx(
        (12_633 - half, 12_633 + half), rel=1e-3
    )
    text = difference_words.sentence("A", "B", found)
    assert "which is longer cannot be told" in text and "over launches" in text
