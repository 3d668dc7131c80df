"""compare DIR1 DIR2: what can be compared is put side by side, what cannot is refused with why."""

from __future__ import annotations

import re
import shutil

import msgspec
import pytest
import report_runs

from repro_pp_graphs.client.warm_up import (
    WarmUpPass,
    measured_longer_caveat,
    not_steady_caveat,
)
from repro_pp_graphs.pp_clock import clock_record
from repro_pp_graphs.report import (
    case_differences,
    compare_command,
    run_differences,
    source,
    two_runs,
)
from repro_pp_graphs.report.page import content
from repro_pp_graphs.report.told_apart import MOST_CHARS, told_apart
from repro_pp_graphs.stats.metric_names import IDLE, OUTSIDE, OWN_GRAPH, RETURN

pytestmark = pytest.mark.slow


def compared(capsys, *folders: object) -> tuple[int, str]:
    status = compare_command.main([str(each) for each in folders])
    printed = capsys.readouterr()
    return status, " ".join((printed.out + printed.err).split())


def test_two_runs_are_put_side_by_side_in_80_columns(tmp_path, capsys):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))

    def slower(client: dict) -> None:
        client["summary"]["mean_tpot_ms"] *= 1.1

    for path in (two / "logs").glob(f"{report_runs.A}*_client.json"):
        report_runs.changed(path, slower)
    assert compare_command.main([str(one), str(two)]) == 0
    lines = capsys.readouterr().out.splitlines()
    tpot = [line.split() for line in lines if line.startswith("TPOT mean")]
    assert [row[-1] for row in tpot] == ["1.100", "1.000"]
    assert tpot[0][3:5] == ["47.83", "(47.48-48.36)"]
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert "not interleaved" in " ".join(lines)


def test_launches_that_are_in_both_runs_are_said_to_be_copies(tmp_path, capsys):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    assert (
        "8 launches of run 1, which has 8, and of run 2, which has 8, have the same"
        in (compared(capsys, one, two)[1])
    )
    for path in (two / "logs").glob("*_client.json"):
        report_runs.changed(path, lambda one: one["summary"].update(mean_tpot_ms=50.0))
    assert "copies" not in compared(capsys, one, two)[1]


@pytest.mark.parametrize(
    ("launches", "heads", "foot"),
    [
        ((1, 1), ("run 1, 1 launch run 2, 1 launch 2 / 1",), "One launch a case in each run"),
        ((1, 4), ("run 1, 1 launch run 2, 4 launches",), "highest launch of the cases that have"),
        ((4, 4), ("run 1, 4 launches run 2, 4 launches",), "and the highest launch. The launches"),
    ],
)
def test_the_foot_speaks_of_what_the_cells_show(tmp_path, capsys, launches, heads, foot):
    folders = [report_runs.series(tmp_path / name) for name in ("one", "two")]
    for folder, kept in zip(folders, launches, strict=True):
        for number in range(kept + 1, 5):
            for path in (folder / "logs").glob(f"*_r{number}_launch.json"):
                report_runs.changed(path, lambda one: one.update(status="failed"))
    status, text = compared(capsys, *folders)
    assert status == 0
    assert foot in text and all(head in text for head in heads)
    assert ("(4" in text or "(5" in text) == (launches != (1, 1)), "ranges, where there are any"


@pytest.mark.parametrize("failed", [["graphs_on"], ["graphs_on", "graphs_off"]])
def test_a_case_that_one_run_did_not_finish_says_which_run(tmp_path, capsys, failed):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    labels = {"graphs_on": report_runs.A, "graphs_off": report_runs.B}
    for case in failed[:1]:
        for path in (two / "logs").glob(f"{labels[case]}*_launch.json"):
            report_runs.changed(path, lambda launch: launch.update(status="failed"))
    for case in failed[1:]:
        for path in (one / "logs").glob(f"{labels[case]}*_launch.json"):
            report_runs.changed(path, lambda launch: launch.update(status="failed"))
    status, text = compared(capsys, one, two)
    assert status == 0
    assert "graphs_on run 1, 4 launches run 2, 0 launches" in text
    assert "nothing to compare: no launch of run 2 was measured" in text
    both = "graphs_off" in failed
    assert ("no launch of run 1 was measured" in text) == both
    assert ("No case was measured in both runs." in text) == both
    assert ("the highest launch" in text) != both


def test_what_may_differ_is_named(tmp_path, capsys):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    for path in (two / "logs").glob("*_launch.json"):
        report_runs.changed(path, lambda one: one["server_info"].update(version="0.5.3"))
    _, text = compared(capsys, one, two)
    assert "graphs_on: version 0.5.2 -> 0.5.3" in text


@pytest.mark.parametrize(
    ("theirs", "python", "named"),
    [(9.5, "3.11", True), (5.2, "3.11", False), (None, "3.11", False), (9.5, "3.12", False)],
)
def test_hosts_of_another_speed_are_named(tmp_path, capsys, theirs, python, named):
    folders = [report_runs.series(tmp_path / name) for name in ("one", "two")]
    window = {"seconds": 1.0, "cores": 8, "other_cores": 0.1}
    for folder, loop, ran in zip(folders, (5.0, theirs), ("3.11", python), strict=True):
        more = {"loop_ms": loop, "loop_python": ran} if loop else {}
        host = {"before": window, "during": window, **more}
        for path in (folder / "logs").glob("*_launch.json"):
            report_runs.changed(path, lambda one, host=host: one.update(host=host))
    _, text = compared(capsys, *folders)
    assert ("a fixed loop of Python took 5.0 ms in run 1, 9.5 in run 2" in text) == named


def test_hosts_of_cases_that_are_not_compared_say_nothing_of_those_that_are(tmp_path):
    """The launches without graphs of run 1 were on slow hosts; graphs_on alone is compared."""
    folders = [report_runs.series(tmp_path / name) for name in ("one", "two")]
    window = {"seconds": 1.0, "cores": 8, "other_cores": 0.1}
    for folder in folders:
        for path in (folder / "logs").glob("*_launch.json"):
            slow = folder is folders[0] and path.name.startswith(report_runs.B)
            host = {"before": window, "during": window, "loop_python": "3.11"}
            host |= {"loop_ms": 50.0 if slow else 5.0}
            report_runs.changed(path, lambda one, host=host: one.update(host=host))
    one, two = map(source.read, folders)
    assert "speed of a core" not in " ".join(run_differences.sentences(one, two, ["graphs_on"]))
    both = run_differences.sentences(one, two, ["graphs_on", "graphs_off"])
    assert "a fixed loop of Python took 27.5 ms in run 1, 5.0 in run 2" in " ".join(both)


def test_a_host_with_other_work_is_named_with_its_run(tmp_path, capsys):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    window = {"seconds": 60.0, "cores": 8, "other_cores": 4.0}
    host = {"before": {**window, "other_cores": 0.1}, "during": window}
    (path,) = (two / "logs").glob(f"{report_runs.B}_r2_launch.json")
    report_runs.changed(path, lambda launch: launch.update(host=host))
    _, text = compared(capsys, one, two)
    assert f"! Run 2: {report_runs.B}_r2: its host had other work: other processes took 50" in text
    assert "Run 1: " not in text


def test_a_case_of_one_run_alone_is_named(tmp_path, capsys):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))

    def renamed(run: dict) -> None:
        for launch in run["launches"]:
            launch["case"] = launch["case"].replace("graphs_off", "another")

    assert "Only run" not in compared(capsys, one, two)[1]
    report_runs.changed(two / "logs" / "run.json", renamed)
    _, text = compared(capsys, one, two)
    assert "! Only run 1 has graphs_off: not shown. ! Only run 2 has another: not shown." in text


def test_cases_are_met_by_name_and_only_those_of_both(tmp_path):
    one, two = (source.read(report_runs.series(tmp_path / name)) for name in ("one", "two"))
    for launch in two.plan.launches:
        launch.case = launch.case.replace("graphs_off", "another")
    assert two_runs.shared(one, two) == ["graphs_on"]
    for launch in two.plan.launches:
        launch.case = "another"
    assert "no case is in both" in two_runs.against(one, two)[0]


def other_layers(run: dict) -> None:
    for launch in run["launches"]:
        at = launch["args"].index("--json-model-override-args")
        launch["args"][at + 1] = '{"num_hidden_layers": 8}'


def other_model(run: dict) -> None:
    for launch in run["launches"]:
        launch["model"] = "mixtral-8x7b"


def other_ranks(run: dict) -> None:
    for launch in run["launches"]:
        launch["pp_size"] = 4


def another(**fields: object):
    return lambda run: run.update(fields)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (another(batch=8), "other load: 16 prompts at once"),
        (another(max_new_tokens=64), "256 new tokens each and 16 prompts at once, 64 new"),
        (another(mode="cpu"), "other kind of run: GPUs and a rehearsal on a CPU"),
        (another(mode="one_gpu"), "ranks a GPU, in time slices"),
        (another(engine="probe"), "other program: sglang and the probe"),
        (another(nsys=True), "other recording"),
        (other_layers, "other model"),
        (other_model, "other model"),
        (other_ranks, "other ranks: PP 2 x TP 1 and PP 4 x TP 1"),
    ],
)
def test_numbers_of_another_thing_are_refused_with_the_reason(tmp_path, capsys, change, reason):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    report_runs.changed(two / "logs" / "run.json", change)
    if reason.startswith("other program"):  # a launch of the probe names its send path
        found = source.read(one), source.read(one)
        found[1].plan.engine = "probe"
        assert reason in two_runs.against(*found)
        return
    status, text = compared(capsys, one, two)
    assert status == 1 and reason in text and text.startswith("compare: these cannot be compared")


def test_other_prompts_are_refused_where_both_are_known(tmp_path):
    one, two = (source.read(report_runs.series(tmp_path / name)) for name in ("one", "two"))
    one.plan.inputs["prompts.txt"] = "a" * 64
    assert two_runs.against(one, two) == []
    two.plan.inputs["prompts.txt"] = "b" * 64
    assert two_runs.against(one, two)[0].startswith("other prompts")


def test_traces_alone_and_runs_without_a_measured_launch_are_refused(tmp_path, capsys):
    run = report_runs.series(tmp_path / "run")
    status, text = compared(capsys, run, report_runs.DATA / "traces" / "cpu_prefill")
    assert status == 1 and "traces alone: nothing was measured" in text
    assert "name the folders of two runs" in text
    traces = [report_runs.DATA / "traces" / name for name in ("cpu_prefill", "cpu_numbered")]
    status, text = compared(capsys, *traces)
    assert status == 1 and f"analyze {traces[0]} {traces[1]}" in text
    bare = report_runs.series(tmp_path / "bare")
    for path in (bare / "logs").glob("*_client.json"):
        path.unlink()
    status, text = compared(capsys, run, bare)
    assert status == 1 and f"no launch of {bare} was measured" in text
    (bare / "logs" / "run.json").unlink()  # as a report that was kept
    (bare / "logs" / "summary.json").write_text("{}")
    status, text = compared(capsys, run, bare)
    assert status == 1 and "holds the report of a run (summary.json) without its records" in text
    shutil.rmtree(bare)
    status, text = compared(capsys, run, bare)
    assert status == 2 and "name the folders of two runs" in text


def with_waits(folder, waits_from: str, shift: float) -> source.Source:
    """A run whose launches waited, as timed by the one or by the other."""
    found = source.read(report_runs.series(folder))
    for number, each in enumerate(found.launches):
        each.summary.waits_from = waits_from
        each.summary.waits_ms = dict.fromkeys(
            (RETURN, OWN_GRAPH, IDLE, OUTSIDE), shift + number / 10_000
        )
    return found


@pytest.mark.parametrize(
    ("timed", "says", "lacks"),
    [
        (("pp_clock", "pp_clock"), "*Of the measured pass, by the ranks' own clocks", "under own"),
        (("profile", "profile"), "*Of the profile pass, which slows a step down", "own batch"),
        (("pp_clock", "profile"), "of run 1 are timed by its ranks' own clocks", "token return, "),
        (("profile", "pp_clock"), "of run 1 are from its traces, those of run 2", "token return, "),
    ],
)
def test_waits_are_compared_where_both_runs_timed_them_alike(tmp_path, timed, says, lacks):
    one, two = (with_waits(tmp_path / str(n), how, 0.3333) for n, how in enumerate(timed))
    lines = two_runs.lines(one, two)
    text = " ".join(" ".join(lines).split())
    assert says in text and lacks not in text
    assert ("of it without compute" in text) == (timed[0] == timed[1])
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    for line in lines:  # cells do not touch
        assert not re.search(r"\)\d", line), line


def test_the_folder_that_one_is_in_is_named(tmp_path, capsys, monkeypatch):
    one, two = (report_runs.series(tmp_path / name) for name in ("one", "two"))
    monkeypatch.chdir(one)
    assert f"1: {one}, " in (said := compared(capsys, ".", two)[1]) and f"2: {two}, " in said


def test_a_rehearsal_compared_is_no_evidence(tmp_path, capsys):
    one, two = (report_runs.rehearsal(tmp_path / name) for name in ("one", "two"))
    assert (
        "no case has CUDA graphs, so nothing here is about #10865" in compared(capsys, one, two)[1]
    )
    one, two = (report_runs.series(tmp_path / name) for name in ("three", "four"))
    assert "no case has CUDA graphs" not in compared(capsys, one, two)[1]


HEAD = "--model-path /some/where/models/tiny --pp-size 2 --port 30000 "


@pytest.mark.parametrize(
    ("texts", "shown"),
    [
        (["fa3", "triton"], ["fa3", "triton"]),
        ([f"{HEAD}--kind a", f"{HEAD}--kind b"], ["...a", "...b"]),
        ([f"{HEAD}--on", f"{HEAD}--off", "-"], ["...--on", "...--off", "-"]),
        (["/a/path/to/the/models/of/mine/70b", "-"], ["/a/path/to/the/models/of/mine/70b", "-"]),
    ],
)
def test_of_long_values_what_differs_is_shown(texts, shown):
    assert told_apart(texts) == shown


@pytest.mark.parametrize("middle", ["A" * 5, "A" * 70])
def test_values_that_differ_are_never_shown_alike(middle):
    texts = ["x" * 60 + middle + "y" * 60, "x" * 60 + middle[:-1] + "B" + "y" * 60, HEAD + HEAD]
    assert len(set(told_apart(texts))) == 3


def test_of_a_server_that_never_answered_the_arguments_are_all_that_is_compared(tmp_path):
    """As where a run is interrupted before the second case's server is up."""
    run = report_runs.series(tmp_path / "run")
    for path in (run / "logs").glob(f"{report_runs.B}*_launch.json"):
        report_runs.changed(path, lambda launch: launch.update(status="failed", server_info={}))
    for path in (run / "logs").glob(f"{report_runs.B}*_client.json"):
        path.unlink()
    read = source.read(run)
    (found,) = case_differences.between_cases(read)
    assert found.name == "arguments" and "--disable-cuda-graph" in found.values[1]
    assert content._differ_in_more(read, [found]) == []


def test_what_differs_inside_a_nested_argument_is_named_by_its_path(tmp_path):
    run = report_runs.series(tmp_path / "run")
    for label, backend in ((report_runs.A, "full"), (report_runs.B, "disabled")):
        config = {"decode": {"backend": backend, "bs": [1, 2]}, "prefill": {"backend": "full"}}
        for path in (run / "logs").glob(f"{label}*_launch.json"):
            report_runs.changed(
                path, lambda launch, its=config: launch["server_info"].update(cuda_graph_config=its)
            )
    (found,) = (
        each
        for each in case_differences.between_cases(source.read(run))
        if each.name.startswith("cuda_graph_config")
    )
    assert found.name == "cuda_graph_config.decode.backend" and found.graphs
    assert found.values == ["full", "disabled"]


def test_one_long_value_keeps_both_ends():
    (shown, other) = told_apart([HEAD + HEAD.strip(), "-"])
    assert shown.startswith("--model-path ") and shown.endswith("--port 30000") and other == "-"
    assert len(shown) <= MOST_CHARS


def test_cases_that_differ_behind_a_long_common_head_are_not_called_alike(tmp_path):
    run = report_runs.series(tmp_path / "run")
    for label, end in ((report_runs.A, "one"), (report_runs.B, "two")):
        for path in (run / "logs").glob(f"{label}*_launch.json"):
            value = f"/a/long/path/to/some/models/of/mine/and/yours/{end}"
            report_runs.changed(
                path, lambda launch, value=value: launch["server_info"].update(made_of=value)
            )
    read = source.read(run)
    (found,) = [e for e in case_differences.between_cases(read) if e.name == "made_of"]
    assert found.values == ["...one", "...two"]
    assert not case_differences.alike([found], 0, 1, graphs=True)


def with_turns(folder, turn_ms: float | None) -> source.Source:
    """A run whose last rank's turns were timed, or, with None, were not."""
    found = source.read(report_runs.rehearsal(folder))
    for each in found.launches:
        spread = clock_record.Spread(count=100, mean=turn_ms, median=1, p99=1) if turn_ms else None
        each.summary.waits_ms = {}
        each.summary.pp_clock = (
            clock_record.ClockSummary(
                turn_ms=spread,
                waits_ms=msgspec.structs.replace(spread, mean=turn_ms / 2),
                token_send_ms=msgspec.structs.replace(spread, mean=turn_ms / 4),
            )
            if spread
            else None
        )
    return found


def test_turns_and_their_token_send_are_compared_where_both_runs_timed_them(tmp_path):
    one, two = (with_turns(tmp_path / str(ms), ms) for ms in (20.0, 24.0))
    lines = two_runs.lines(one, two)
    rows = {line.partition(",")[0].strip(): line.split()[-1] for line in lines if ", ms" in line}
    for name in ("last rank's turn", "of it waiting", "of it token send"):
        assert rows[name] == "1.200"
    assert "of it its batch" not in rows
    assert two_runs.TURNS_ARE in " ".join(lines)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80


@pytest.mark.parametrize("timed", [(20.0, None), (None, 20.0)])
def test_of_turns_that_one_run_alone_timed_it_is_said(tmp_path, timed):
    one, two = (with_turns(tmp_path / str(n), ms) for n, ms in enumerate(timed))
    text = " ".join(" ".join(two_runs.lines(one, two)).split())
    has, lacks = ("1", "2") if timed[0] else ("2", "1")
    assert f"are timed in run {has} alone (pp_clock; not in run {lacks}): not compared" in text
    assert "last rank's turn, ms" not in text


def test_the_token_send_has_one_row(tmp_path):
    """On GPUs the token return is the same call."""
    one, two = (with_turns(tmp_path / str(ms), ms) for ms in (20.0, 24.0))
    for run in (one, two):
        for each in run.launches:
            each.summary.waits_from, each.summary.waits_ms = "pp_clock", {RETURN: 5.0}
    text = "\n".join(two_runs.lines(one, two))
    assert "token return, host" in text and "of it waiting" in text
    assert "of it token send" not in text


def test_what_bears_on_the_figures_of_a_launch_is_said_only_of_cases_that_are_shown(tmp_path):
    one, two = (source.read(report_runs.series(tmp_path / name)) for name in ("one", "two"))
    passes = [WarmUpPass(16, 0, ttft_ms, 10.0) for ttft_ms in (2464.4, 49.8, 34.7)]
    unsettled = not_steady_caveat(passes)
    assert unsettled
    for each in two.summary.launches:
        each.client_warnings = [unsettled]
    longer = measured_longer_caveat(passes, 2671.1, 10.5)
    two.summary.launches[0].client_warnings += [longer]
    text = " ".join(" ".join(two_runs.lines(one, two)).split())
    assert f"! Run 2: {report_runs.A}, {report_runs.B}, " in text and "! Run 1: " not in text
    assert "the server had not settled when it was measured" in text
    alone = f"! Run 2: {two.summary.launches[0].label}: the measured pass took far longer than the"
    assert alone in text
    for launch in two.plan.launches:
        launch.case = launch.case.replace("graphs_off", "another")
    for each in two.summary.launches:
        each.case = each.case.replace("graphs_off", "another")
        if each.case == "another":
            each.host_taken = ["other processes took 50 % of the cores' time"]
    text = " ".join(" ".join(two_runs.lines(one, two)).split())
    assert f"! Run 2: {report_runs.A}, {report_runs.A}_r2, " in text
    assert "other processes took" not in text and report_runs.B not in text
