"""A sweep's comparisons, table and picture, from a real series with two made-up loads beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

import msgspec
import report_runs
from report_runs import A, changed

from repro_pp_graphs import run_record
from repro_pp_graphs.bundle import issue
from repro_pp_graphs.report import call_names, source
from repro_pp_graphs.report.charts import all_charts
from repro_pp_graphs.report.page import commands, content, html_page, markdown
from repro_pp_graphs.report.summary import remarks, run_summary, summary_record, sweep
from repro_pp_graphs.report.tables import page_tables, sweep_table, sweep_waits, turn_tables
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, RETURN, TPOT

BOTH_WAYS = ("graphs_on", "graphs_off", "sync_send", "sync_send_no_graphs")


def summarised(run: Path) -> dict[str, Any]:
    logs = run / "logs"
    found: dict[str, Any] = json.loads(
        json.dumps(run_summary.summarise(logs, run_record.load(logs)))
    )
    summary_record.from_json(found)
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_runs.swept(tmp_path_factory.mktemp("swept") / "run")


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, Any]:
    return summarised(run)


def word(found: dict[str, Any], load: str, metric: str = TPOT) -> str:
    (swept,) = [each for each in found["sweep"] if each["load"]["name"] == load]
    compared = [c for c in swept["pairs"][0]["comparisons"] if c["metric"] == metric]
    return str(compared[0]["word"])


def test_of_one_load_nothing_is_said_about_several(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")

    def first_alone(plan: dict[str, Any]) -> None:
        plan["loads"] = plan["loads"][:1]

    report_runs.changed(run / "logs" / "run.json", first_alone)
    made = summarised(run)
    assert len(made["sweep"]) == 1
    said = " ".join(sweep_table.notes(made))
    assert "ms of the token return are idle" in said and "loads" not in said
    assert "main load" not in said and "no load" not in said


def test_every_load_is_compared_by_its_own_numbers(found: dict[str, Any]):
    assert [each["load"]["name"] for each in found["sweep"]] == ["b16", "b4", "b64"]
    assert word(found, "b16") == "DIFFERENT" and word(found, "b64") == "DIFFERENT"
    assert word(found, "b4") == "NO DIFFERENCE LARGER THAN"
    on = sweep.means(found, "b64")["graphs_on"]
    assert on[RETURN] == pytest.approx(70) and on[IDLE] == pytest.approx(7)


def test_the_verdict_is_that_of_the_main_load_with_or_without_others(
    found: dict[str, Any], run: Path, tmp_path: Path
):
    alone = report_runs.swept(tmp_path / "alone")
    changed(alone / "logs" / "run.json", lambda plan: plan.update(loads=plan["loads"][:1]))
    assert summarised(alone)["verdict"] == found["verdict"]
    assert "Holm, 3 loads" in " ".join(sweep_table.notes(found))


def test_words_are_corrected_for_the_number_of_loads(run: Path):
    found = summarised(run)
    for metric in (TPOT, RETURN):
        tests = [
            comparison
            for each in found["sweep"]
            for comparison in each["pairs"][0]["comparisons"]
            if comparison["metric"] == metric and comparison["estimate"]
        ]
        assert len(tests) == 3
        raw = sorted((each["estimate"]["p"], each["p_holm"]) for each in tests)
        least, most = raw[0], raw[-1]
        assert least[1] == pytest.approx(min(1, 3 * least[0])) and most[1] >= most[0]


def test_a_difference_that_the_number_of_loads_takes_back_is_borderline(run: Path, tmp_path: Path):
    many = report_runs.swept(tmp_path / "many")
    logs = many / "logs"
    plan = run_record.load(logs)
    (main, *_), rows = plan.loads, summarised(many)["launches"]
    comparison = summarised(run)["sweep"][0]["pairs"][0]["comparisons"][0]
    enough = int(0.05 / comparison["estimate"]["p"]) + 1  # loads, by Holm's first step
    names = [f"c{n}" for n in range(enough)]
    plan.loads = [run_record.Load(each, each, {"batch": each}, 16, 256) for each in names]
    for row in rows:
        own = next(each for each in row["loads"] if each["load"] == main.name)
        row["loads"] = [{**own, "load": each} for each in names]
    words = {each.pairs[0].primary.word for each in sweep.compared(plan, rows)}
    assert words == {"BORDERLINE"}


def test_pairs_beside_the_questions_are_corrected_over_loads_and_pairs(run: Path):
    """Of four cases the three other pairs, under three loads, are nine tests of each metric."""
    plan, again = (
        run_record.load(run / "logs"),
        dict(zip(BOTH_WAYS[:2], BOTH_WAYS[2:], strict=True)),
    )
    rows = [
        each
        for row in summarised(run)["launches"]
        for case in (row["case"], again[row["case"]])
        for each in [{**row, "case": case, "label": f"{case}_r{row['round']}"}]
    ]
    swept = sweep.compared(plan, rows)
    own = [each.pairs[0].primary for each in swept]
    others = [pair.primary for each in swept for pair in each.pairs[1:]]
    for tests, found in ((3, own), (9, others)):
        assert len(found) == tests
        p, corrected = min((e.estimate.p, e.p_holm) for e in found if e.estimate and e.p_holm)
        assert corrected == pytest.approx(tests * p)
    found = {**summarised(run), "sweep": msgspec.to_builtins(swept)}
    assert "(Holm, 3 loads; pairs of cases besides the question's: 3 loads x 3 pairs)" in (
        " ".join(sweep_table.notes(found))
    )


def test_a_launch_counts_for_a_load_only_where_it_measured_that(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")

    def failed(launch: dict[str, Any]) -> None:
        launch["loads"]["b64"] = {"status": "failed", "place": 3, "reason": "client: exit 1"}

    changed(run / "logs" / f"{A}_r2_launch.json", failed)
    found = summarised(run)
    (b64,) = [each for each in found["sweep"] if each["load"]["name"] == "b64"]
    assert b64["pairs"][0]["left_out"] == [{"label": f"{A}_r2", "why": "client: exit 1"}]
    assert "3 of 4 rounds" in b64["pairs"][0]["alpha_why"]
    assert word(found, "b16") == "DIFFERENT" and not found["complete"]
    assert f"{A}_r2: not measured: batch 64" in " ".join(sweep_table.notes(found))


def test_a_result_that_is_not_what_was_recorded_is_left_out(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    changed(
        run / "logs" / f"{A}_launch.json",
        lambda launch: launch["loads"]["b4"].update(client_sha256="0" * 64),
    )
    (launch,) = [one for one in summarised(run)["launches"] if one["label"] == A]
    assert [each["status"] for each in launch["loads"]] == ["ok", "not measured", "ok"]
    assert any("at_b4_client.json is not what was measured" in w for w in launch["warnings"])


def test_the_largest_idle_part_is_named_with_its_load_and_cause(found: dict[str, Any]):
    on, off = sweep.most_idle(found)
    assert on.startswith(
        "graphs_on: over 3 loads 0.4 to 7 ms of the token return are idle, most un"
    )
    assert "send of token ids 7 ms, receive of hidden states 2 ms" in on
    assert "under each of 3 loads 0.4 ms of the token return are idle; under batch 16 a" in off


def test_without_clocks_on_a_gpu_idle_is_said_to_be_unknown(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    for path in (run / "logs").glob("*_pp_clock.json"):
        path.unlink()
    text = " ".join(sweep_table.notes(summarised(run)))
    assert "cannot tell. It takes the ranks' clocks" in text
    assert "pp_clock timed no decode turn" in "\n".join(sweep_table.lines(summarised(run)))


def waits(found: dict[str, Any]) -> dict[tuple[str, str], str]:
    """By load and case what is said of the longest wait; on the terminal it is said too."""
    cells = sweep_waits.named(found).cells
    text = " ".join("\n".join(sweep_waits.lines(found)).split())
    assert all(each in text for each in cells.values())
    return cells


def test_under_each_load_the_longest_idle_wait_has_its_rank_its_call_and_whom_it_waits_for(
    found: dict[str, Any],
):
    said = waits(found)
    assert said["b64", "graphs_on"] == "7 of 80 ms: PP1, send of token ids to PP0 (batch 30 ms)"
    # with 16 prompts PP1 waits 2 ms for hidden states, and PP0 longer
    late = "2.5 of 80 ms: PP0, receive of token ids from PP1 (batch 38 ms)"
    assert said["b16", "graphs_on"] == said["b64", "graphs_off"] == late
    assert len(said) == 3 * 2
    on, _ = sweep_waits.largest(found)
    assert "graphs_on: of 3 loads the longest idle wait of a turn is under batch 64: 7 of 80" in on


def test_on_gpus_that_ranks_share_a_wait_outside_own_batches_is_not_called_idle(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    changed(run / "logs" / "run.json", lambda plan: plan.update(mode="one_gpu", ranks_per_gpu=2))
    found = summarised(run)
    assert waits(found)["b64", "graphs_on"].startswith("7 of 80 ms: PP1, send of token ids")
    said = [*sweep_waits.lines(found), *sweep_waits.largest(found)]
    assert "GPUs are shared: idle or not" in " ".join(" ".join(said).split())
    assert "longest idle wait" not in " ".join(said)
    assert all(launch["waits_ms"] for launch in found["launches"])
    assert not any({IDLE, OUTSIDE} & launch["waits_ms"].keys() for launch in found["launches"])


def clocks_changed(run: Path, pattern: str, change: Any) -> dict[str, Any]:
    for path in (run / "logs").glob(pattern):
        changed(path, change)
    return summarised(run)


def without_gpu(clock: dict[str, Any]) -> None:
    for rank in clock["ranks"].values():
        rank["measured"]["decode"] |= {"split": 0, "outside": {}, "waits_outside": None}


def test_without_gpu_times_the_longest_wait_is_named_and_said_to_be_idle_or_not(tmp_path: Path):
    found = clocks_changed(report_runs.swept(tmp_path / "run"), "*_pp_clock.json", without_gpu)
    said = waits(found)
    assert said["b64", "graphs_on"] == "70 of 80 ms: PP1, send of token ids to PP0"
    assert said["b64", "graphs_off"] == "6 of 80 ms: PP0, receive of token ids from PP1"
    title = sweep_waits.named(found).title
    assert "cannot tell, no GPU was timed" in title and sweep_waits.largest(found) == []


def test_a_load_whose_gpus_were_not_timed_is_not_said_to_wait_idle(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    found = clocks_changed(run, f"{A}*_at_b64_pp_clock.json", without_gpu)
    said = waits(found)
    assert said["b64", "graphs_on"] == "cannot tell: no GPU was timed"
    assert said["b64", "graphs_off"].startswith("2.5 of 80 ms")


def test_a_few_turns_are_too_few_to_say_where_a_rank_waits(tmp_path: Path):
    def few(clock: dict[str, Any]) -> None:
        clock["ranks"]["PP0"]["measured"]["decode"]["turn"]["count"] = 19

    run = report_runs.swept(tmp_path / "run")
    said = waits(clocks_changed(run, f"{A}*_at_b4_pp_clock.json", few))
    assert said["b4", "graphs_on"] == "cannot tell: 19 decode turns, fewer than 20"
    assert said["b4", "graphs_off"].startswith("2.5 of 80 ms")


def test_where_turns_without_a_batch_are_not_timed_no_wait_is_called_the_longest(tmp_path: Path):
    def half_empty(clock: dict[str, Any]) -> None:
        clock["ranks"]["PP1"]["measured"]["decode"]["in_flight"] = 1

    run = report_runs.swept(tmp_path / "run")
    said = waits(clocks_changed(run, f"{A}*_at_b64_pp_clock.json", half_empty))
    assert said["b64", "graphs_on"] == (
        "cannot tell: 1 of 2 micro-batches in flight, and turns without one are not timed"
    )
    assert said["b64", "graphs_off"].startswith("2.5 of 80 ms")


def test_without_the_turns_of_a_rank_no_wait_is_called_the_longest(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    gone = f"{A}*_at_b64_pp_clock.json"
    said = waits(clocks_changed(run, gone, lambda clock: clock["ranks"].pop("PP0")))
    why = "PP0 left no decode turn: its wait may be the longest"
    assert said["b64", "graphs_on"] == f"cannot tell: {why}"
    assert said["b64", "graphs_off"].startswith("2.5 of 80 ms")


def test_where_the_clock_did_not_run_that_is_why_it_cannot_be_told(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    for path in (run / "logs").glob("*_pp_clock.json"):
        path.unlink()
    found = clocks_changed(run, "*_launch.json", lambda launch: launch.pop("shims"))
    assert set(waits(found).values()) == {"cannot tell: pp_clock did not run"}
    assert len(sweep_waits.lines(found)) == 1, "the same of every load"


def test_a_launch_with_figures_of_its_clock_is_not_called_one_without_it(tmp_path: Path):
    """As one that failed after its loads, whose record did not name its shims."""
    run = report_runs.swept(tmp_path / "run")
    found = clocks_changed(run, "*_launch.json", lambda launch: launch.pop("shims"))
    assert waits(found)["b4", "graphs_off"].startswith("2.5 of 80 ms")


XID = "NVRM: Xid (PCI:0000:00:06): 31, pid=7, name=python3"
FAULTS: dict[str, dict[str, Any]] = {
    "a GPU's": {"gpu_counters": {"before": {"xid_lines": []}, "after": {"xid_lines": [XID]}}},
    "another case's": {},  # its main load was measured, and then found not to be what it claims
}


@pytest.mark.parametrize("fault", FAULTS)
def test_loads_of_a_launch_that_is_no_measurement_are_shown_no_more_than_it_is(
    tmp_path: Path, fault: str
):
    run = report_runs.swept(tmp_path / "run")
    ending = {"status": "failed", "reason": "it", "measured": False, **FAULTS[fault]}
    found = clocks_changed(run, f"{A}*_launch.json", lambda launch: launch.update(ending))
    for each in found["sweep"]:
        means = sweep.means(found, each["load"]["name"])
        assert means["graphs_on"] == {} and means["graphs_off"]
    assert waits(found)["b4", "graphs_on"] == "cannot tell: not measured"


def test_where_no_launch_counts_there_is_no_table_of_loads(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    ending = {"status": "failed", "reason": "it", "measured": False}
    found = clocks_changed(run, "*_launch.json", lambda launch: launch.update(ending))
    assert sweep_table.lines(found) == sweep_waits.lines(found)
    assert "cannot tell: not measured" in " ".join(sweep_waits.lines(found))


def test_loads_of_a_launch_that_failed_after_them_are_shown(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    ending = {"status": "failed", "reason": "it", "measured": True}
    found = clocks_changed(run, f"{A}*_launch.json", lambda launch: launch.update(ending))
    assert all(sweep.means(found, each["load"]["name"])["graphs_on"] for each in found["sweep"])


def test_a_load_that_was_not_measured_has_no_wait(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    failed = {"status": "failed", "place": 3, "reason": "client: exit 1"}
    found = clocks_changed(
        run, f"{A}*_launch.json", lambda launch: launch["loads"].update(b64=failed)
    )
    assert waits(found)["b64", "graphs_on"] == "cannot tell: not measured"


@pytest.mark.parametrize(
    ("kind", "rank", "whom"),
    [
        ("send_tokens", 3, 0),
        ("wait_sent_tokens", 1, 2),
        ("recv_tokens", 0, 3),
        ("recv_hidden", 2, 1),
        ("send_requests", 0, 1),
        ("wait_results", 1, None),
        ("launch", 1, None),
    ],
)
def test_messages_go_round_the_ring(kind: str, rank: int, whom: int | None):
    assert call_names.peer(kind, rank, 4) == whom


def test_the_terminal_fits_80_columns_and_shows_ratios_with_intervals(found: dict[str, Any]):
    lines = sweep_table.lines(found)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert lines[0].split()[:3] == ["means", "of", "4"]
    assert "of it idle, ms" in text and "token send in prefill turns, ms" in text
    (tpot,) = [line for line in lines if line.startswith("  batch 4 ")][:1]
    assert tpot.rstrip().endswith("=")


def test_a_rehearsal_shows_no_ratio(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    changed(run / "logs" / "run.json", lambda plan: plan.update(mode="cpu"))
    found = summarised(run)
    assert "[" not in "\n".join(sweep_table.lines(found))
    table = sweep_table.table(found)
    assert table is not None and not any("/" in head for head in table.head)


def test_report_md_and_html_have_the_table_and_the_lines(run: Path):
    read = source.read(run)
    said = content.content(read)
    text = markdown.text_of(said)
    assert "## Over the load" in text and "| batch 64 |" in text
    figures = {each.id: each for each in all_charts.figures(read)}
    data = figures["loads"].data
    assert data["along"] == ["batch 4", "batch 16", "batch 64"]
    (tpot,) = [each for each in data["choices"] if each["key"] == TPOT]
    assert [len(each["points"]) for each in tpot["lines"]] == [3, 3]
    assert len(tpot["points"]) == 2 * 4 * 3
    (on, _) = tpot["lines"]  # each mean with the wait of its load
    assert on["waits"][2].startswith("7 of 80 ms: PP1, send of token ids to PP0")
    assert on["waits"][0].startswith("2.5 of 80 ms: PP0") and len(on["waits"]) == 3
    assert "| batch 64 | 7 of 80 ms: PP1, send of token ids to PP0" in text
    html = html_page.text_of(said, read.cases, all_charts.figures(read))
    assert '<figure id="loads">' in html and "<h2>By load</h2>" in html
    assert '<td class="text">7 of 80 ms: PP1, send of token ids to PP0' in html
    assert "and 2 other loads" in said.what


def test_two_axes_are_lines_along_the_first_dashed_by_the_second(run: Path, tmp_path: Path):
    both = report_runs.swept(tmp_path / "both")

    def two(plan: dict[str, Any]) -> None:
        values = ({"batch": "16", "input_len": "100"}, {"batch": "4", "input_len": "100"})
        points = (*values, {"batch": "4", "input_len": "4000"})
        for load, point in zip(plan["loads"], points, strict=True):
            load["point"] = point
            load["title"] = f"batch {point['batch']}, input {point['input_len']}"

    changed(both / "logs" / "run.json", two)
    (figure,) = [each for each in all_charts.figures(source.read(both)) if each.id == "loads"]
    lines = figure.data["choices"][0]["lines"]
    assert figure.data["along"] == ["batch 4", "batch 16"]
    assert [(each["dash"], len(each["points"])) for each in lines] == [(0, 2), (1, 1)] * 2


@pytest.mark.parametrize(
    ("ranks", "shown"),
    [
        ([4, 4], [[0, 1, 2, 3]] * 2),
        ([2, 1], [[0, 1], [0]]),
        ([4, 4, 4], [[0, 3]] * 3),
        ([1, 64], [[0], [0, 63]]),
        ([2] * 6, [[1]] * 6),
        ([2] * 9, [*[[1]] * 8, []]),
    ],
)
def test_a_table_of_turns_has_every_rank_for_which_there_is_room(ranks, shown):
    assert turn_tables.shown_ranks(ranks) == shown
    there, columns = sum(ranks), sum(map(len, shown))
    said = turn_tables.left_out(there, columns)
    assert said == (f" {there - columns} ranks more: report.html." if there > columns else "")


def test_of_cases_with_unlike_launches_both_numbers_are_named(tmp_path):
    run = report_runs.swept(tmp_path / "run")

    def three_rounds(plan: dict) -> None:
        plan["launches"] = [each for each in plan["launches"] if each["round"] < 4]

    changed(run / "logs" / "run.json", three_rounds)
    for path in (run / "logs").glob(f"{A}_r3_*"):
        path.unlink()
    found, read = summarised(run), source.read(run)
    assert sweep_table.table(found).head[0] == "means of 2 to 3 launches"
    assert sweep_table.lines(found)[0].startswith("2 to 3 launches by load ")
    note = turn_tables.bars(read).table().note
    assert "means over 2 to 3 launches;" in note and note.endswith("those count too.")
    assert "means over 2 to 3 launches;" in page_tables.arms(read).note
    assert any("2 to 3 launches a case: too few" in text for text in remarks.remarks(found))


def test_gaps_between_tokens_are_shown_where_prompts_came_beside(tmp_path: Path):
    run = report_runs.swept(tmp_path / "run")
    assert sweep.ITL not in sweep.figures(summarised(run), sweep.SHOWN)

    def beside(client: dict[str, Any]) -> None:
        client["summary"]["median_beside_ttft_ms"] = 321.0

    for path in (run / "logs").glob("*_at_b64_client.json"):
        changed(path, beside)
    made = summarised(run)
    shown = sweep.figures(made, sweep.SHOWN)
    assert {sweep.ITL, sweep.TTFT_BESIDE} <= set(shown)
    table = "\n".join(sweep_table.lines(made))
    assert "ITL p99, ms" in table and "321" in table


def test_the_commands_say_what_the_server_was_told_before_each_load(run: Path):
    plan = run_record.load(run / "logs")
    plan.launches[0].loads = dict.fromkeys(plan.launches[0].loads, None)
    assert commands.set_anew(plan) == "", "a server without a limit was told none"
    plan.launches[0].loads = {"b64": 16, "b16": 4, "b4": None}
    said = commands.set_anew(plan)
    first, second = (f"{plan.load(name).title}: {size}" for name, size in (("b64", 16), ("b16", 4)))
    assert f"({first}; {second};" in said and "/set_internal_state" in said


def test_the_issue_text_has_every_load(run: Path):
    text = issue.text_of(run)
    assert "means of 4 launches by load" in text or "4 launches by load" in text
