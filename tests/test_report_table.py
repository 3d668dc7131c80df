"""summary.json and the table: right numbers, 80 columns, the caveats that belong to them."""

from __future__ import annotations

import json
from typing import Any

import made_up_run
import pytest
from made_up_run import plan

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.report import launch_row, summary_step
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.summary import from_traces, remarks, run_summary
from repro_pp_graphs.report.tables import launch_table
from repro_pp_graphs.run.launch.micro_batches import NOT_AS_ASKED
from repro_pp_graphs.run_record import Launch, Plan


def launch(label: str, case: str, number: int = 1, **changes) -> Launch:
    fields = {"args": ["--pp-size", "4"], "pp_size": 4, "expects_graphs": True, **changes}
    return made_up_run.launch(label, case=case, round=number, **fields)


def metrics(itl_ms: float) -> dict:
    return {
        **{"median_ttft_ms": 1234.5678, "p99_ttft_ms": 20, "median_itl_ms": itl_ms},
        **{"p99_itl_ms": 2 * itl_ms, "mean_tpot_ms": itl_ms, "output_throughput": 600.4},
        **{"completed": 32, "failed": 0, "warnings": []},
    }


def measured(logs, plan_: Plan, itls_ms: list[float], **facts) -> dict:
    logs.mkdir(parents=True, exist_ok=True)
    run_record.save(logs, plan_)
    for one, itl_ms in zip(plan_.launches, itls_ms, strict=True):
        client = {"schema": 1, "summary": metrics(itl_ms), "requests": []}
        (logs / f"{one.label}_client.json").write_text(json.dumps(client), encoding="utf-8")
        state = {"decode_lines": 118, "with_graph": 118, "launches": dict.fromkeys("0123", 24)}
        launch_record.amend(logs, one.label, **{"status": "ok", "graph_state": state, **facts})
    return run_summary.summarise(logs, plan_)


def rows(lines: list[str], name: str) -> list[list[str]]:
    return [line[len(name) :].split() for line in lines if line.startswith(name)]


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


ABBA = [("A", "on", 1), ("B", "off", 1), ("B_r2", "off", 2), ("A_r2", "on", 2)]


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
    assert rows(lines, "ITL median ms") == [
        ["30", "20", "21", "lower"],
        ["30", "interrupted", "lower"],
    ]


def test_in_a_rehearsal_a_case_that_claims_no_graphs_keeps_its_name(tmp_path):
    cases = {"CASE_A_decode_graphs": "graphs_on", "CASE_fcfs": "fcfs"}
    made = plan(*(launch(label, case, 1) for label, case in cases.items()), mode="cpu")
    found = run_summary.summarise(tmp_path, made)
    assert [launch_row.name(found, case) for case in cases.values()] == ["arm A", "fcfs"]
    assert "arm A is CASE_A_decode_graphs, fcfs is CASE_fcfs" in remarks.remarks(found)[0]


def test_in_a_rehearsal_no_name_claims_graphs_and_no_ratio_stands(tmp_path):
    cases = {"A": "graphs_on", "B": "graphs_off"}
    made = plan(*(launch(label, cases[label[0]], n) for label, _, n in ABBA), mode="cpu")
    lines = launch_table.lines(measured(tmp_path, made, [30, 20, 21, 31], graph_state=None))
    assert [line.split()[:2] for line in lines[1:3]] == [["arm", "A"], ["arm", "B"]]
    assert "graphs" not in "\n".join(lines) and "/ this" not in "\n".join(lines)
    said_ = remarks.remarks(run_summary.summarise(tmp_path, made))
    assert "arm A is A, arm B is B" in said_[0]
    text = " ".join(summary_step.said(run_summary.summarise(tmp_path, made)))
    assert "TPOT mean, arm A / arm B: 1.488" in text  # docs/reading_results.md says what it is
    for label, *_ in ABBA:
        launch_record.path_of(tmp_path, label).unlink()
    text = " ".join(summary_step.said(run_summary.summarise(tmp_path, made)))
    assert "TPOT mean, arm A / arm B: CANNOT TELL: nothing was measured." in text
    assert "graphs_on" not in text and "graphs_off" not in text


@pytest.mark.parametrize("mode", ["cpu", "gpu"])
@pytest.mark.parametrize("others", [["small"], ["graphs_off", "sync_send", "sync_send_no_graphs"]])
def test_where_nothing_was_measured_that_is_said_and_no_launch_is_left_out(tmp_path, mode, others):
    made = plan(*(launch(case, case) for case in ["graphs_on", *others]), mode=mode)
    launch_record.amend(tmp_path, "graphs_on", status="interrupted", run_id=made.run_id)
    text = " ".join(" ".join(summary_step.said(run_summary.summarise(tmp_path, made))).split())
    assert "CANNOT TELL: nothing was measured." in text and "not measured in" not in text
    assert "left out" not in text and "(graphs_on: interrupted, " in text


def test_the_command_that_opens_a_trace_with_its_ranks_in_order_is_named(tmp_path):
    lines = summary_step.next_steps(tmp_path, plan(launch("A", "on")), [tmp_path / "a.json"])
    assert any("python -m repro_pp_graphs open FILE" in line for line in lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


def test_after_an_interruption_only_what_was_measured_is_there(tmp_path, capsys):
    made = plan(*(launch(*one) for one in ABBA))
    logs = tmp_path / "logs"
    measured(logs, made, [30, 20, 21, 31])
    for label in ("B_r2", "A_r2"):
        launch_record.path_of(logs, label).unlink()
    lines = launch_table.lines(run_summary.summarise(logs, made))
    assert rows(lines, "ITL median ms") == [["30", "20", "lower"]]
    assert summary_step.main([str(tmp_path)]) == 1
    said_ = capsys.readouterr().out
    assert "Not measured: 2 of 4 launches (B_r2, A_r2)" in said_
    assert "not run" not in said_


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
    assert launch_table.graphs(one) == launches
    assert launch_table.eager_share(one).startswith(share)


@pytest.mark.parametrize(("other", "of_graphs"), [("graphs_off", True), ("mine", False)])
def test_a_rehearsal_says_what_its_numbers_do_not_tell(tmp_path, other, of_graphs):
    made = plan(launch("A", "graphs_on"), launch("B", other), mode="cpu")
    first = remarks.remarks(run_summary.summarise(tmp_path, made))[0]
    assert first.startswith("REHEARSAL on a CPU: ")
    assert ("#10865" in first) == of_graphs
    assert ("how these cases compare on GPUs" in first) != of_graphs


def test_failed_requests_are_shown(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    path = tmp_path / "A_client.json"
    path.write_text(json.dumps({"summary": metrics(30) | {"failed": 3}}), encoding="utf-8")
    assert rows(launch_table.lines(run_summary.summarise(tmp_path, two)), "failed requests") == [
        ["3", "-"]
    ]
    launch_record.amend(tmp_path, "A", status="interrupted")  # by which they failed
    lines = launch_table.lines(run_summary.summarise(tmp_path, two))
    assert not any("failed requests" in line for line in lines)


def test_a_failed_launch_says_so_in_place_of_numbers(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    launch_record.amend(tmp_path, "B", status="failed", reason="died")
    result = run_summary.summarise(tmp_path, two)
    assert not result["complete"]
    assert rows(launch_table.lines(result), "ITL median ms") == [["30", "failed", "lower"]]
    assert any("1 launch a case, of off none: too few" in text for text in remarks.remarks(result))


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_what_was_measured_before_a_launch_was_cut_short_is_shown(tmp_path, status):
    two = plan(launch("A", "on"), launch("B", "off"))
    measured(tmp_path, two, [30, 20])
    launch_record.amend(tmp_path, "B", status=status, measured=True)
    result = run_summary.summarise(tmp_path, two)
    assert not result["complete"]
    cell = status if status == "running" else "20"
    assert rows(launch_table.lines(result), "ITL median ms") == [["30", cell, "lower"]]
    text = " ".join(summary_step.said(result))
    if status == "running":  # nobody has looked at it
        assert "Not measured: 1 of 2 launches (B: running)" in text
    else:
        assert f"Measured, then cut short: 1 of 2 launches (B: {status}): its numbers" in text
    assert "CANNOT TELL: no launch of off counts" in text


def test_nothing_measured_is_no_table(tmp_path):
    assert launch_table.lines(run_summary.summarise(tmp_path, plan(launch("A", "on")))) == []


@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_client_file_is_a_launch_without_numbers(tmp_path, content):
    one = plan(launch("A", "on"))
    measured(tmp_path, one, [30])
    (tmp_path / "A_client.json").write_text(content, encoding="utf-8")
    assert run_summary.summarise(tmp_path, one)["launches"][0]["metrics"] == {}


def told(tmp_path, plan_: Plan, **facts) -> str:
    result = measured(tmp_path, plan_, [30] * len(plan_.launches), **facts)
    return "\n".join(remarks.remarks(result))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "cpu"}, "REHEARSAL"),
        ({"mode": "one_gpu"}, "time slices"),
        ({"nsys": True}, "nsys"),
    ],
)
def test_what_makes_the_numbers_special_is_told_then_and_only_then(tmp_path, changes, says):
    one = launch("A", "on")
    assert says in told(tmp_path / "special", plan(one, **changes))
    assert says not in told(tmp_path / "plain", plan(one))


def test_few_launches_are_told_and_enough_are_not(tmp_path):
    def rounds(count: int) -> Plan:
        return plan(*(launch(f"A_r{n}", "on", n) for n in range(1, count + 1)))

    assert "2 launches a case" in told(tmp_path / "few", rounds(2))
    assert "1 launch a case: too few" in told(tmp_path / "one", rounds(1))
    assert "too few" not in told(tmp_path / "enough", rounds(4))


@pytest.mark.parametrize(
    ("version", "sends"),
    [
        ("0.4.6", "unknown: not looked up for this release"),
        ("0.5.2", "blocking: the host waits for its decode graph in the send"),
        ("0.5.3", "synchronous: the host waits for its decode graph in the receive"),
        ("0.5.6.post2", "synchronous: the host waits for its decode graph in the receive"),
        ("0.5.7", "asynchronous: the host does not wait in the send"),
        ("0.5.10rc0", "asynchronous: the host does not wait in the send"),
        ("0.5.10.post1", "asynchronous: the host does not wait in the send"),
        ("0.5.21.dev3+g1234567", "asynchronous: the host does not wait in the send"),
        ("0.5.21+cu130", "asynchronous: the host does not wait in the send"),
    ],
)
def test_the_release_decides_how_sends_go(tmp_path, version, sends):
    text = told(tmp_path, plan(launch("A", "on", sglang_version=version)))
    assert f"sglang {version}: PP sends are {sends}" in " ".join(text.split())


def test_how_sends_go_on_gpus_is_not_said_of_a_rehearsal(tmp_path):
    text = told(tmp_path, plan(launch("A", "on", sglang_version="0.5.21"), mode="cpu"))
    assert "PP sends are asynchronous: on GPUs the host does not wait" in " ".join(text.split())


def token_return(steps: int = 22) -> dict:
    def us(mean: float) -> dict:
        return {"mean": mean, "median": mean - 1, "p99": 2 * mean, "max": 3 * mean}

    delivery = {"send": us(100_000), "overlapped_with_graph": us(30_000), "idle": us(70_000)}
    seen = {"steps": steps, "enough": steps > 0, "delivery_known": steps > 0}
    return {**seen, "host_us": {"send": us(95_000)}, "delivery_us": delivery}


def test_the_token_send_is_told_in_milliseconds():
    analysis = {"token_return": token_return(), "ranks": {"0": {"basis": "gpu"}}}
    sent = from_traces.token_send_ms(analysis)
    assert sent == {"host": 95, "sent": 100, "under_graph": 30, "idle": 70}
    assert from_traces.token_send_ms({}) == {}
    assert from_traces.token_send_ms({**analysis, "token_return": token_return(steps=0)}) == {}


def test_a_release_without_a_version_is_not_said_to_send_in_any_way(tmp_path):
    text = told(tmp_path, plan(launch("A", "on", sglang_version="")))
    assert "PP sends are unknown: not looked up for this release" in " ".join(text.split())


def test_a_delivery_that_clocks_leave_open_is_not_given():
    found = token_return() | {"delivery_known": False}
    analysis = {"token_return": found, "ranks": {"0": {"basis": "gpu"}}}
    assert from_traces.token_send_ms(analysis) == {"host": 95}


def test_an_analysis_without_the_figure_gives_none():
    sparse = {"enough": True, "delivery_known": True, "host_us": {"send": {"median": 5.0}}}
    assert from_traces.token_send_ms({"token_return": sparse, "ranks": {}}) == {}


def test_without_kernels_no_idle_time_is_claimed():
    ranks = {"0": {"basis": "gpu"}, "1": {"basis": "cpu"}}
    sent = from_traces.token_send_ms({"token_return": token_return(), "ranks": ranks})
    assert sent == {"host": 95, "sent": 100}


def test_token_sends_stand_in_the_table(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path, two, [30, 20])
    for one, ms in zip(result["launches"], (100, 4), strict=True):
        one["token_send_ms"] = {"sent": ms}
    (cells,) = rows(launch_table.lines(result), "  until last byte ms")
    assert cells == ["100", "4"]


def test_cases_on_two_releases_are_told_apart(tmp_path):
    two = plan(launch("A", "on", sglang_version="0.5.2"), launch("B", "on2"))
    text = told(tmp_path, two)
    assert "0.5.2 (A): PP sends are blocking" in text
    assert "0.5.21 (B): PP sends are async" in text


def test_reasons_and_warnings_name_their_launch(tmp_path):
    facts = {"status": "failed", "reason": "server died: port in use", "warnings": ["3 files"]}
    one = plan(launch("A", "on"))
    measured(tmp_path, one, [30], **facts)
    client = {"summary": metrics(30) | {"warnings": ["cached prefix"]}}
    (tmp_path / "A_client.json").write_text(json.dumps(client), encoding="utf-8")
    found = remarks.remarks(run_summary.summarise(tmp_path, one))
    assert {"A: server died: port in use", "A: 3 files", "A: cached prefix"} <= set(found)


def test_what_the_server_resolved_is_kept_without_its_crowd(tmp_path):
    info = {"version": "0.5.22", "pp_size": 4, "disable_cuda_graph": False, "api_key": "hunter2"}
    result = measured(tmp_path, plan(launch("A", "on")), [30], server_info=info)
    (one,) = result["launches"]
    assert one["sglang_version"] == "0.5.22"
    assert one["resolved"] == {"version": "0.5.22", "pp_size": 4, "disable_cuda_graph": False}
    assert "hunter2" not in json.dumps(result)


def test_the_command_writes_the_summary_and_exits_by_it(tmp_path, capsys):
    two = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path / "logs", two, [30, 20])
    (tmp_path / "trace").mkdir()
    (tmp_path / "trace" / "A_chrome_trace.json").write_text("{}", encoding="utf-8")
    assert summary_step.main([str(tmp_path)]) == 0
    assert json.loads((tmp_path / "logs" / "summary.json").read_text("utf-8")) == result
    printed = capsys.readouterr().out
    assert "A_chrome_trace.json" in printed and "B_chrome_trace.json" not in printed
    assert "ui.perfetto.dev" in printed
    launch_record.amend(tmp_path / "logs", "B", status="failed")
    assert summary_step.main([str(tmp_path)]) == 1


@pytest.mark.parametrize("name", ["pp_max_micro_batch_size", "max_micro_batch_size"])
@pytest.mark.parametrize(
    ("launches", "told_of"),
    [
        ([(4, {"4": 24}), (4, {"4": 24})], ""),
        ([(16, {"1": 12, "7": 12}), (16, {"3": 12, "5": 12})], "(1 7; 3 5)"),
        ([(16, {"1": 12, "7": 12}), (16, {})], ""),
        ([(4, {"4": 24}), (3, {"2": 8, "3": 16})], ""),  # each as its own cap has it
        ([(None, {"4": 24}), (None, {"3": 12, "5": 12})], "(3 5; 4)"),
    ],
)
def test_loads_that_were_split_by_chance_are_told(launches, told_of, name):
    made = [
        {"resolved": {name: cap} if cap else {}, "decode_batches": sizes} for cap, sizes in launches
    ]
    assert [told_of in text for text in remarks._uneven_splits(made)] == [True] * bool(told_of)


def test_launches_with_one_cap_are_not_told_to_set_it():
    made: list[dict[str, Any]] = [
        {"resolved": {"pp_max_micro_batch_size": 4}, "decode_batches": sizes}
        for sizes in ({"4": 24}, {"3": 12, "4": 12})
    ]
    (text,) = remarks._uneven_splits(made)
    assert "--pp-max-micro-batch-size" not in text and "--chunked-prefill-size" in text
    made[1]["warnings"] = [f"{NOT_AS_ASKED}: 3 requests in 12 decode turns"]  # it says so itself
    assert remarks._uneven_splits(made) == []


def test_what_several_launches_say_alike_stands_once(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4, warnings=["clocks held back"])
    result["launches"][0]["warnings"].append("3 files")
    said_ = remarks.remarks(result)
    assert [each for each in said_ if "clocks" in each] == ["every launch: clocks held back"]
    assert "A: 3 files" in said_


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


def test_warnings_that_differ_in_numbers_alone_stand_once(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4)
    for at, each in enumerate(result["launches"]):
        each["warnings"] = [f"GPU {gpu}: held back for {at}.{gpu} s" for gpu in range(2)]
    result["launches"][0]["warnings"].append("GPU 0: held up")
    found = [text for text in remarks.remarks(result) if "held" in text]
    assert found == [
        "A: GPU 0: held back for 0.0 s (the other launches: likewise, GPU 1; 0.1 to 3.1 s)",
        "A: GPU 0: held up",
    ]
    result["launches"][1]["warnings"] = []
    (found,) = [text for text in remarks.remarks(result) if "held back" in text]
    assert "(the other launches but B: likewise, GPU 1; " in found
    result["launches"][2]["warnings"] = []
    result["launches"][1]["warnings"] = ["so 1 or 2", "so 1 or 3"]
    found = [text for text in remarks.remarks(result) if "held back" in text or "so 1" in text]
    assert found == [
        "A: GPU 0: held back for 0.0 s (A_r2: likewise, GPU 1; 0.1 to 3.1 s)",
        "B: so 1 or 2 (and 1 more like it, with other numbers)",
    ]


def test_each_number_that_differs_stands_with_what_it_is_of(tmp_path):
    made = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path, made, [30] * 2)
    for at, each in enumerate(result["launches"], 1):
        each["warnings"] = [f"1.{at} times as long (1.{at}5 by medians)", f"3 prompts, {at} sent"]
        each["warnings"].append(f"backlog of {at}")
    found = [text for text in remarks.remarks(result) if "likewise" in text]
    assert found == [
        "A: 1.1 times as long (1.15 by medians) (B: likewise, 1.2 times; 1.25 by medians)",
        "A: 3 prompts, 1 sent (B: likewise, 2 sent)",
        "A: backlog of 1 (B: likewise, 2 in place of 1)",  # 2 what, is not said
    ]


def test_of_warnings_with_many_other_numbers_none_is_singled_out(tmp_path):
    made = plan(*(launch(*one) for one in ABBA))
    result = measured(tmp_path, made, [30] * 4)
    for at, each in enumerate(result["launches"]):
        each["warnings"] = [f"not settled: TTFT {at}, {at + 1}, {at + 2} ms"]
    (found,) = [text for text in remarks.remarks(result) if "settled" in text]
    assert found.endswith("TTFT 0, 1, 2 ms (the other launches: likewise, with other numbers)")


def test_a_launch_that_was_stopped_is_not_measured(tmp_path, capsys):
    made = plan(*(launch(*one) for one in ABBA))
    logs = tmp_path / "logs"
    measured(logs, made, [30, 20, 21, 31])
    for label in ("B", "B_r2", "A_r2"):
        launch_record.path_of(logs, label).unlink()
    path = launch_record.path_of(logs, "A")
    for status in ("interrupted", "running", "failed"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "status": status}))
        assert summary_step.main([str(tmp_path)]) == 1
        said_ = " ".join(capsys.readouterr().out.split())
        assert f"Not measured: 4 of 4 launches (A: {status}, B, B_r2, A_r2)." in said_


def test_a_launch_of_another_load_is_told_of_before_all_that_is_less(tmp_path):
    result = measured(tmp_path / "logs", plan(launch("A", "on"), launch("B", "off")), [30, 20])
    said = f"{NOT_AS_ASKED}: 3 requests in 12 decode turns"
    result["launches"][1]["warnings"] = ["GPU 0: something small", said]
    assert remarks.remarks(result)[0] == f"B: {said}"
    rehearsed = remarks.remarks({**result, "rehearsal": True})
    assert rehearsed[0].startswith("REHEARSAL") and rehearsed[1] == f"B: {said}"
