"""The table of a run: right numbers, in the order that was asked for, 80 columns."""

from __future__ import annotations

import pytest
from made_up_run import plan
from measured_runs import ABBA, launch, measured, rows

from repro_pp_graphs.report import launch_row
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import run_summary
from repro_pp_graphs.report.tables import launch_table, state_rows


def test_one_round_has_a_column_a_case_and_no_ratio(tmp_path):
    result = measured(tmp_path, plan(launch("A", "on"), launch("B", "off")), [30.0, 20.0])
    lines = launch_table.lines(result)
    assert lines[0].split() == ["on", "off", "better"]
    assert rows(lines, "ITL median ms") == [["30", "20", "lower"]]
    assert rows(lines, "TTFT median ms") == [["1235", "1235", "lower"]]
    assert rows(lines, "output tokens/s") == [["600.4", "600.4", "higher"]]
    assert rows(lines, "graph launches") == [["24", "a", "rank", "24", "a", "rank"]]
    assert "failed requests" not in "\n".join(lines)
    assert "1.50" not in "\n".join(lines)
    assert result["complete"]


def test_rounds_are_columns_and_cases_rows_whatever_ran_first(tmp_path):
    for number_, order in enumerate((ABBA, ABBA[::-1])):
        values = [{"A": 30, "B": 20, "B_r2": 21, "A_r2": 31}[label] for label, *_ in order]
        made = plan(*(launch(f"CASE_{label[0]}_x{label[1:]}", *rest) for label, *rest in order))
        lines = launch_table.lines(measured(tmp_path / str(number_), made, values))
        (at,) = (n for n, line in enumerate(lines) if line.startswith("ITL median ms, lower"))
        assert lines[at].split()[-5:] == ["r1", "r2", "on", "/", "this"]
        assert lines[at + 1].split() == ["on", "30", "31"]
        assert lines[at + 2].split()[:3] == ["off", "20", "21"]
        assert lines[at + 2].split()[3] == "1.488"  # the geometric means' ratio


def test_cases_without_a_letter_keep_the_order_in_which_they_ran(tmp_path):
    made = plan(launch("CASE_mine", "mine"), launch("CASE_B_x", "off"), launch("a", "a"))
    result = measured(tmp_path, made, [30, 20, 21])
    assert launch_row.cases_of(result["launches"]) == ["off", "mine", "a"]


def test_cases_stand_in_the_order_in_which_they_were_asked_for(tmp_path):
    asked = [("CASE_E_sync_send", "sync_send"), ("CASE_C_comm_overlap", "comm_overlap")]
    made = plan(*(launch(*one) for one in reversed(asked)))
    for one in made.launches:
        one.place = 1 + [label for label, _ in asked].index(one.label)
    result = measured(tmp_path, made, [30, 20])
    assert launch_row.cases_of(result["launches"]) == ["sync_send", "comm_overlap"]
    assert [one.case for one in made.firsts] == ["sync_send", "comm_overlap"]
    assert [(pair["a"], pair["b"]) for pair in result["verdict"]["pairs"]] == [
        ("sync_send", "comm_overlap")
    ]


def test_four_cases_of_two_rounds_are_one_table(tmp_path):
    names = ["graphs_on", "graphs_off", "sync_send", "comm_overlap"]
    made = [
        launch(f"CASE_{n}_r{r}", n, r) for r, seq in ((1, names), (2, names[::-1])) for n in seq
    ]
    lines = launch_table.lines(measured(tmp_path, plan(*made), [30.0] * 8))
    assert len(lines) < 50 and max(map(len, lines)) <= 80
    assert len(rows(lines, "ITL median ms, lower")) == 1


def test_many_rounds_are_wrapped_and_each_value_is_there_once(tmp_path):
    order = [(f"{c}_r{r}", c, r) for r in range(1, 11) for c in ("on", "off")]
    made = plan(*(launch(*one) for one in order))
    lines = launch_table.lines(measured(tmp_path, made, [100.5 + n for n in range(20)]))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines[: lines.index(next(x for x in lines if x.startswith("TTFT")))])
    assert all(f"{100.5 + n:.4g}" in text.split() for n in range(20))
    assert "r5 to r8" in text and "r9 to r10" in text


LONG = "CASE_A_decode_graphs_sglang_0.5.6.post2"


@pytest.mark.parametrize(
    ("labels", "columns"),
    [
        (["A"], 1),
        (["A", "B", "C"], 3),
        (["A", "B", "C", "D"], 5),  # the first in both blocks
        (["graphs_on", "sync_send", "event_send", "comm_stream", "sync_send_no_graphs"], 6),
        ([LONG, LONG + "_r2"], 2),
        (["-" * 60, "_" * 30, "a" * 14], 3),
    ],
)
def test_every_line_fits_80_columns(tmp_path, labels, columns):
    many = plan(*(launch(label, label) for label in labels))
    lines = launch_table.lines(measured(tmp_path, many, [123456.789] * len(labels)))
    assert max(map(len, lines)) <= 80
    assert sum(line.count("123457") for line in lines) == 2 * columns  # TPOT, ITL
    for label in labels:
        assert all(part in "".join(lines) for part in label.split("_") if len(part) < 14)


def test_many_cases_of_one_round_are_columns_and_the_first_is_in_every_block(tmp_path):
    cases = ["graphs_on", "b", "c", "sync_send_no_graphs"]
    result = measured(tmp_path, plan(*(launch(each, each) for each in cases)), [30, 20, 21, 22])
    result["launches"][3]["status"] = "interrupted"
    lines = launch_table.lines(result)
    heads = [line.split() for line in lines if line.endswith("better")]
    assert heads == [["graphs_on", "b", "c", "better"], ["graphs_on", "graphs", "better"]]
    assert rows(lines, "TPOT mean ms") == [
        ["30", "20", "21", "lower"],
        ["30", "interrupted", "lower"],
    ]
    assert rows(lines, "ITL median ms") == [["30", "20", "21", "lower"], ["30", "-", "lower"]]


def test_eight_ranks_with_different_launch_counts_fit_80_columns(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    state = {"launches": {str(n): 1000 + n for n in range(8)}, "decode_lines": 9, "with_graph": 9}
    lines = launch_table.lines(measured(tmp_path, two, [1, 1], graph_state=state))
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.0123449, "0.01234"),
        (9.99999, "10"),
        (99.96, "99.96"),
        (999.96, "1000"),
        (1234.5, "1234"),
        (123456.7, "123457"),
    ],
)
def test_numbers_have_four_significant_digits_and_no_exponent(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("state", "launches", "share"),
    [
        (None, "not traced", "-"),
        ({"launches": None, "decode_lines": 5, "with_graph": 0}, "not traced", "0 of 5"),
        ({"launches": {"0": 24, "1": 24}, "decode_lines": 5, "with_graph": 5}, "24 a rank", "5 of"),
        ({"launches": {"0": 24, "1": 23}, "decode_lines": 5, "with_graph": 4}, "24/23", "4 of 5"),
        ({"launches": {"0": 0, "1": 0}, "decode_lines": 5, "with_graph": 0}, "0 a rank", "0 of 5"),
    ],
)
def test_the_graph_state_is_told_from_traces_and_log(state, launches, share):
    one = {"graph_state": state} if state else {}
    assert state_rows.graphs(one) == launches
    assert state_rows.eager_share(one).startswith(share)


def test_nothing_measured_is_no_table(tmp_path):
    assert launch_table.lines(run_summary.summarise(tmp_path, plan(launch("A", "on")))) == []


def test_the_control_has_a_row_where_it_was_measured(tmp_path):
    for at, launches in enumerate(([("A", "on"), ("B", "off")], ABBA)):
        result = measured(
            tmp_path / str(at), plan(*(launch(*one) for one in launches)), [30] * len(launches)
        )
        assert not [line for line in launch_table.lines(result) if "alone" in line]
        for each in result["launches"]:
            each["metrics"]["control_ttft_ms"] = 31.5
        lines = launch_table.lines(result)
        assert any(line.startswith("TTFT alone ms") for line in lines)
        assert sum(line.count("31.5") for line in lines) == len(launches)
        assert max(map(len, lines)) <= 80


def test_what_all_rounds_of_a_case_have_alike_is_said_to_be_of_each(tmp_path):
    state = {"launches": None, "decode_lines": 9, "with_graph": 0}
    four = plan(launch("A", "on"), launch("B", "off"), launch("A_r2", "on"), launch("B_r2", "off"))
    four.launches[2].round = four.launches[3].round = 2
    text = "\n".join(launch_table.lines(measured(tmp_path, four, [1, 1, 1, 1], graph_state=state)))
    assert "decode lines w/ graph, on: 0 of 9 each" in text
