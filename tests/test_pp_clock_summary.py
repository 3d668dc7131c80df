"""The clock in summary.json and the table: its own rows, and whose figures the verdict compares."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import made_up_run
import msgspec
import pytest

from repro_pp_graphs import launch_record
from repro_pp_graphs.pp_clock import collect, rows
from repro_pp_graphs.pp_clock.clock_record import ClockFacts, Rank, Spread, Turns
from repro_pp_graphs.pp_clock.lines import lines
from repro_pp_graphs.report import summary_step
from repro_pp_graphs.report.summary import remarks, run_summary, summary_record
from repro_pp_graphs.report.tables import launch_table
from repro_pp_graphs.run.finish_step import Ending
from repro_pp_graphs.run.folder import lock
from repro_pp_graphs.run_record import Load, Plan
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, OWN_GRAPH, RETURN


def spread(mean: float) -> Spread:
    return Spread(count=100, mean=mean, median=mean / 2, p99=mean * 3)


def clock(send: float, idle: float | None, prefill: float = 3.0) -> ClockFacts:
    """A launch whose last rank's send takes `send` ms, `idle` of it outside its own batches."""
    decode = Turns(
        turn=spread(24),
        waits=spread(send + 1),
        calls={"send_tokens": spread(send), "recv_tokens": spread(1)},
        split=0 if idle is None else 100,
        waits_outside=None if idle is None else spread(idle + 1),
        outside={} if idle is None else {"send_tokens": spread(idle), "recv_tokens": spread(1)},
    )
    prefills = Turns(turn=spread(9), waits=spread(4), calls={"send_tokens": spread(prefill)})
    last = Rank(
        pp_rank=1, tp_rank=0, rows=9, lost=0, torn=0,
        measured={"decode": decode, "prefill": prefills}, profiled={},
    )  # fmt: skip
    ranks = {"PP1": last}
    return ClockFacts(pp_size=2, loop_size=2, ranks=ranks, last="PP1", distortion=1.2)


def test_what_a_profile_costs_is_said_with_the_turns_that_it_is_of():
    """analyze prints another figure: a step of the whole profile against TPOT."""
    facts = msgspec.structs.replace(clock(20, 1), distortion_median=1.1)
    assert (
        "A profiled decode turn of PP1 is 1.200 times a measured one (means; 1.100 medians), "
        "without the profile's first two steps and its last."
    ) in " ".join(lines(facts))


def plan(version: str = "0.5.2") -> Plan:
    launches = [
        made_up_run.launch(
            **{"label": f"{case}{n}", "case": case, "round": n, "sglang_version": version},
            expects_graphs=case == "graphs_on",
        )
        for n in (1, 2)
        for case in ("graphs_on", "graphs_off")
    ]
    return made_up_run.plan(*launches, max_new_tokens=64)


def summarised(logs, plan_: Plan, clocks: dict[str, ClockFacts | None]) -> dict:
    logs.mkdir(parents=True, exist_ok=True)
    numbers = {"mean_tpot_ms": 48.8, "median_ttft_ms": 9.0, "completed": 32, "warnings": []}
    for one in plan_.launches:
        client = {"schema": 1, "summary": numbers, "requests": []}
        (logs / f"{one.label}_client.json").write_text(json.dumps(client), encoding="utf-8")
        launch_record.amend(logs, one.label, status="ok")
        if found := clocks.get(one.label):
            path = collect.facts_path(logs, one.label)
            path.write_bytes(msgspec.json.encode(found))
    return run_summary.summarise(logs, plan_)


def all_with(found: ClockFacts) -> dict[str, ClockFacts | None]:
    return {one.label: found for one in plan().launches}


def test_the_measured_pass_gives_the_waits_and_the_verdict_says_so(tmp_path):
    found = summarised(tmp_path, plan(), all_with(clock(21.7, 0.5)))
    for row in found["launches"]:
        assert row["waits_from"] == "pp_clock"
        assert row["waits_ms"] == pytest.approx(
            {RETURN: 21.7, OWN_GRAPH: 21.2, IDLE: 0.5, OUTSIDE: 1.5}
        )
    sources = {each["name"]: each["source"] for each in found["verdict"]["findings"]}
    assert sources["longer"] == sources["idle"] == "pp_clock"
    assert summary_record.from_json(json.loads(json.dumps(found))).launches[0].pp_clock is not None


def test_what_a_launch_is_to_be_read_with_is_said_below_the_table_once_it_is_measured(tmp_path):
    made = plan()
    for one in made.launches[:2]:
        one.caveats = ["--chunked-prefill-size 2048 is not reached"]
    said = "graphs_on1, graphs_off1: --chunked-prefill-size 2048 is not reached"
    assert said not in remarks.remarks(run_summary.summarise(tmp_path, made))
    assert said in remarks.remarks(summarised(tmp_path, made, {}))


def test_where_sends_go_over_gloo_alone_the_receive_is_counted_with_them(tmp_path):
    found = summarised(tmp_path, plan("0.5.6.post2"), all_with(clock(21.7, 0.5)))
    assert found["launches"][0]["waits_ms"][RETURN] == pytest.approx(22.7)


@pytest.mark.parametrize("lacking", [None, clock(21.7, None)])
def test_one_launch_without_it_and_none_is_compared_by_the_clock(tmp_path, lacking):
    clocks = all_with(clock(21.7, 0.5))
    clocks["graphs_off2"] = lacking
    found = summarised(tmp_path, plan(), clocks)
    assert {row["waits_from"] for row in found["launches"]} == {""}
    assert all(row["waits_ms"] == {} for row in found["launches"])
    assert "pp_clock" in found["launches"][0]  # its own turns stay


@pytest.mark.parametrize(
    ("mode", "clocks", "longer", "idle"),
    [
        ("cpu", clock(3.1, None), "was timed, but on a CPU", "was timed, but on a CPU"),
        ("one_gpu", clock(21.7, 0.5), "evidence of the order", "as ranks share it."),
        ("gpu", clock(21.7, None), "meanwhile was not, or not", "meanwhile was not, or not"),
        ("cpu", None, "The token return was not timed", "The token return was not timed"),
    ],
)
def test_a_finding_without_figures_says_what_was_timed(tmp_path, mode, clocks, longer, idle):
    plan_ = plan()
    plan_.mode = mode
    made = summarised(tmp_path, plan_, all_with(clocks) if clocks else {})
    text = {each["name"]: each["text"] for each in made["verdict"]["findings"]}
    assert longer in text["longer"] and idle in text["idle"], text


def test_where_no_launch_counts_it_is_not_said_that_nothing_was_timed(tmp_path):
    plan_ = plan()
    summarised(tmp_path, plan_, all_with(clock(21.7, 0.5)))
    for one in plan_.launches:
        launch_record.amend(tmp_path, one.label, status="failed", reason="x")
    found = run_summary.summarise(tmp_path, plan_)["verdict"]["findings"]
    assert all("o launch of graphs_on and graphs_off counts" in each["text"] for each in found)


def test_a_torn_file_is_a_warning_and_no_end(tmp_path):
    summarised(tmp_path, plan(), all_with(clock(21.7, 0.5)))
    collect.facts_path(tmp_path, "graphs_on1").write_text("{", encoding="utf-8")
    row = run_summary.summarise(tmp_path, plan())["launches"][0]
    assert "pp_clock" not in row and any("pp_clock.json" in text for text in row["warnings"])


def test_one_round_shows_mean_median_p99_and_prefill_beside_decode(tmp_path):
    plan_ = plan()
    plan_.launches = plan_.launches[:2]
    clocks = {"graphs_on1": clock(21.7, 0.5), "graphs_off1": clock(5.2, 0.5)}
    lines = launch_table.lines(summarised(tmp_path, plan_, clocks))
    text = "\n".join(lines)
    for title, cells in (
        ("token send measured ms", ["5.2", "21.7"]),
        ("  in prefill turns ms", ["3", "3"]),
        ("  outside own batch ms", ["1.5", "1.5"]),
        ("  longer when profiled", ["1.2x", "1.2x"]),  # no ms, as its neighbours are
    ):
        (line,) = [each for each in lines if each.startswith(title)]
        assert sorted(line[23:].split(), key=lambda cell: float(cell.rstrip("x"))) == cells, text
    assert max(map(len, lines)) <= 80


def test_several_rounds_show_the_means_only(tmp_path):
    lines = launch_table.lines(summarised(tmp_path, plan(), all_with(clock(21.7, 0.5))))
    assert any(line.startswith("token send measured ms") for line in lines)
    assert not any("... p99" in line or "in prefill" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_run_without_the_clock_has_none_of_its_rows(tmp_path):
    found = summarised(tmp_path, plan(), {})
    text = "\n".join(launch_table.lines(found))
    assert "of it waiting" not in text and "longer when profiled" not in text
    assert "pp_clock" not in found["launches"][0]


def test_a_launch_whose_clock_did_not_start_says_so_with_its_reason(tmp_path):
    plan_ = plan()
    plan_.launches = plan_.launches[:2]
    for one in plan_.launches:
        one.env = {"REPRO_SHIMS": "pp_clock"}
    summarised(tmp_path / "logs", plan_, {})
    file = rows.RowFile(tmp_path / "logs/graphs_on1_pp_clock_PP0_TP0.rows", 4096)
    file.describe(pp_rank=0, pp_size=2, tp_rank=0, failed="not started: TypeError: no attributes")
    log = "[2026-11-26 05:15:36 PP1] repro shim pp_clock: not started (OSError: disk full); on\n"
    (tmp_path / "logs/graphs_on1_server.log").write_text(log, encoding="utf-8")
    for one in plan_.launches:
        ending = Ending(tmp_path, plan_, one)
        ending.collect_clock()
        ending.changes["status"] = "ok"
        ending.write()
    on, off = run_summary.summarise(tmp_path / "logs", plan_)["launches"]
    assert on["warnings"] == [
        "pp_clock: PP0: the clock did not start: TypeError: no attributes",
        "pp_clock: PP1 left no rows: OSError: disk full",
    ]
    assert len(off["warnings"]) == 1 and "no rank left rows" in off["warnings"][0]
    said = remarks.remarks(run_summary.summarise(tmp_path / "logs", plan_))  # under the table
    assert any("graphs_on1: pp_clock: PP0: the clock did not start" in text for text in said)


@pytest.mark.parametrize("at_work", [False, True])
def test_a_summary_compresses_what_kill_9_left_unless_a_run_is_at_work(tmp_path, at_work, capsys):
    logs = tmp_path / "logs"
    summarised(logs, plan(), {})
    (logs / "run.json").write_bytes(msgspec.json.encode(plan()))
    path = logs / "graphs_on1_pp_clock_PP0_TP0.rows"
    file = rows.RowFile(path, 4096)
    file.describe(pp_rank=0)
    file.write(1, 2, 0, rows.CODES["turn"])
    before = rows.read(path)
    if at_work:
        lock.take(tmp_path, os.getpid())
    summary_step.main([str(tmp_path)])
    (left,) = logs.glob("*_pp_clock_PP*")
    assert left.suffix == (".rows" if at_work else ".gz")
    assert rows.read(left) == before


def test_a_failed_launch_keeps_what_its_clock_saw_decode_and_its_shims(tmp_path):
    """As its loads may be measured: 16 prompts ran as 1 + 15 there, on a server told otherwise."""
    one = made_up_run.launch(env={"REPRO_SHIMS": "pp_clock"}, args=["--max-micro-batch-size", "8"])
    logs = tmp_path / "logs"
    logs.mkdir()
    rows_ = Path(__file__).parent / "data/pp_clock/h200_052_two_places_empty_PP3.rows.gz"
    shutil.copy(rows_, logs / "A_pp_clock_PP3_TP0.rows.gz")
    request = {"start_ns": 0, "events": [[1 << 60, 1]]}
    (logs / "A_client.json").write_text(json.dumps({"requests": [request]}), encoding="utf-8")
    launch_record.amend(logs, "A", status="failed", reason="x", server_start_s=9.0)
    ending = Ending(tmp_path, made_up_run.plan(one), one)
    ending.collect_clock()
    ending.fail("x")
    ending.write()
    found = launch_record.load(logs, "A")
    assert found is not None and found.shims is not None and "pp_clock" in found.shims
    sizes = "30 decode turns with 1 request each, 30 decode turns with 15 requests each, in place"
    assert any(sizes in text for text in found.warnings or [])


def test_a_loads_profile_is_told_from_the_main_ones_by_when_it_was(tmp_path):
    plan_ = plan()
    one, *_ = plan_.launches
    plan_.loads = [Load(name, name, {}, 4, 8) for name in ("main", "b4", "b8", "b9")]
    (tmp_path / "logs").mkdir()
    profile = launch_record.LoadProfile(began_ns=500, ended_ns=700)
    died = launch_record.LoadProfile(began_ns=300, ended_ns=400, fault="the server died")
    loads = {"main": None, "b4": profile, "b8": died, "b9": launch_record.LoadProfile(fault="no")}
    records = {name: launch_record.LoadRecord("ok", 1, profile=its) for name, its in loads.items()}
    launch_record.amend(tmp_path / "logs", one.label, status="ok", loads=records)
    found = Ending(tmp_path, plan_, one)._profiles()
    at = f"{one.label}_at_"
    assert found == {one.label: (0, 300), f"{at}b4": (500, 700), f"{at}b8": (300, 400)}
