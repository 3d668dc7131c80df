"""From options and argument files to launches: mode, arguments, labels, expectations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_up_run
import pytest
from plan_harness import BASE, ON, plan_of, value

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.launch_record import LaunchRecord
from repro_pp_graphs.report.summary import run_summary
from repro_pp_graphs.run import begin_step, finish_step, overview
from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.case.argfile import ArgFileError
from repro_pp_graphs.server.case.flags import FlagError


@pytest.mark.parametrize(
    ("argv", "count", "mode", "ranks"),
    [
        ([], 4, "gpu", 4),
        ([], 8, "gpu", 4),
        ([], 0, "cpu", 2),
        (["--cpu"], 4, "cpu", 2),
        (["--cpu", "--pp-size", "3"], 0, "cpu", 3),
        (["--pp-size", "2"], 2, "gpu", 2),
        (["--pp-size", "1"], 1, "gpu", 1),
        (["--one-gpu"], 1, "one_gpu", 4),
        (["--one-gpu"], 2, "one_gpu", 4),
        (["--one-gpu"], 4, "gpu", 4),
    ],
)
def test_the_mode_follows_from_gpus_and_ranks(tmp_path, argv, count, mode, ranks):
    plan = plan_of(tmp_path, *argv, count=count)
    assert plan.mode == mode
    assert plan.rehearsal == (mode == "cpu")
    assert [launch.ranks for launch in plan.launches] == [ranks, ranks]


@pytest.mark.parametrize(
    ("argv", "count", "offers"),
    [
        ([], 2, ["2 GPU", "--pp-size 2", "--one-gpu", "--cpu"]),
        ([], 1, ["1 GPU", "--one-gpu", "--cpu"]),
        (["--one-gpu"], 0, ["no GPU"]),
        (["--cases", ","], 4, ["--cases graphs_on,graphs_off"]),
        (["--cases", "graphs_on,none"], 4, ["server_args_none.txt", "graphs_off, graphs_on"]),
    ],
)
def test_what_cannot_run_is_refused_with_what_can(tmp_path, argv, count, offers):
    with pytest.raises(PlanError) as refused:
        plan_of(tmp_path, *argv, count=count)
    assert all(offer in str(refused.value) for offer in offers), refused.value
    if count == 1:  # one rank has no pipeline to test, as is said
        assert str(refused.value).count("--pp-size 1") == 1
        assert "--pp-size 1 (one PP rank: there is no PP send)" in str(refused.value)


def test_tensor_parallel_ranks_count(tmp_path):
    base = BASE.replace("--tensor-parallel-size 1", "--tp 2")
    with pytest.raises(PlanError, match="asks for 8"):
        plan_of(tmp_path, base=base)
    assert plan_of(tmp_path, base=base, count=8).launches[0].ranks == 8


def test_the_case_that_asks_for_more_ranks_than_the_others_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"asks for 8 \(wide\): use"):
        plan_of(tmp_path, graphs_on=ON, wide="# label: W\n--tp-size 2\n")
    with pytest.raises(PlanError, match="asks for 4: use"):
        plan_of(tmp_path, count=2)


def test_a_wrong_argument_is_named_with_its_file_and_line(tmp_path):
    with pytest.raises(FlagError, match=r"^server_args_odd.txt:3: --no-such-arg: sglang 0.5.21 "):
        plan_of(tmp_path, graphs_on=ON, odd="# label: O\n\n--no-such-arg 1\n")
    with pytest.raises(FlagError, match=r"^server_args_base.txt:5: --no-such-arg: sglang "):
        plan_of(tmp_path, base=f"{BASE}--no-such-arg\n")


def test_two_nodes_share_the_ranks(tmp_path):
    plan = plan_of(tmp_path, base=BASE + "--nnodes 2\n", count=2)
    assert (plan.mode, plan.launches[0].ranks) == ("gpu", 2)


@pytest.mark.parametrize(
    ("pp", "tp", "nodes", "ranks"),
    [(4, 1, 4, 1), (4, 2, 2, 4), (2, 4, 4, 2), (1, 8, 2, 4), (3, 1, 1, 3), (2, 2, 4, 1)],
)
def test_nodes_that_share_alike_get_their_ranks(tmp_path, pp, tp, nodes, ranks):
    base = f"--model-path x/y\n--pp-size {pp}\n--tp-size {tp}\n--nnodes {nodes}\n"
    assert {each.ranks for each in plan_of(tmp_path, base=base, count=8).launches} == {ranks}


@pytest.mark.parametrize(
    ("pp", "tp", "nodes", "told"),
    [
        (2, 1, 4, "--nnodes 4 for pp 2 x tp 1"),  # more nodes than ranks: 0 a node
        (4, 1, 8, "--nnodes 8"),
        (3, 1, 2, "--nnodes 2"),  # the third stage would be nobody's
        (4, 3, 6, "--nnodes 6"),
        (2, 3, 4, "--nnodes 4"),
        (4, 1, 0, "--nnodes 0"),
        (4, 1, -1, "--nnodes -1"),
        (0, 1, 1, "--pp-size 0"),
        (-4, 1, 1, "--pp-size -4"),
        (4, 0, 1, "--tp-size 0"),
        (4, 1, "", "--nnodes"),
        (4, 1, "--5", "several arguments on one line"),
        (4, 1, "two", "--nnodes two"),
    ],
)
def test_nodes_that_would_get_no_rank_or_fewer_are_refused(tmp_path, pp, tp, nodes, told):
    base = f"--model-path x/y\n--pp-size {pp}\n--tp-size {tp}\n--nnodes={nodes}\n"
    with pytest.raises((PlanError, ArgFileError)) as refused:
        plan_of(tmp_path, base=base, count=8)
    assert told in str(refused.value)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", ""])
def test_a_port_in_a_file_that_is_none_is_refused(tmp_path, port):
    with pytest.raises((PlanError, ArgFileError), match="--port"):
        plan_of(tmp_path, mine=f"--port {port}")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:30000"),
        ("--host 0.0.0.0", "http://127.0.0.1:30000"),
        ("--host ::1", "http://[::1]:30000"),
        ("--host 10.0.0.7", "http://10.0.0.7:30000"),
    ],
)
def test_a_server_is_asked_at_its_host(tmp_path, host, url):
    (launch,) = plan_of(tmp_path, mine=host).launches
    assert launch.base_url == url
    run_record.save(tmp_path, made_up_run.plan(launch))
    assert run_record.load(tmp_path).launches == [launch]


# what a run leaves, by name


def named(*labels: str, **changes) -> Plan:
    """A plan of one launch a label, in rounds of their own."""
    launches = (made_up_run.launch(label, case=label) for label in labels)
    return made_up_run.plan(*launches, **changes)


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (("CASE_A_decode_graphs", "CASE_B_no_graphs"), "A_vs_B"),
        (("CASE_A_decode_graphs", "CASE_B_no_graphs", "CASE_C_sync"), "A_vs_B"),
        (("CASE_A_decode_graphs", "CASE_C_sync"), "A_vs_C"),
        (("CASE_A_decode_graphs", "mine"), "CASE_A_decode_graphs_vs_mine"),
        (("CASE_B_no_graphs", "CASE_A_decode_graphs"), "A_vs_B"),  # whichever ran first
        (("CASE_A_decode_graphs", "CASE_A_decode_graphs_r2"), None),
        (("mine", "yours"), "mine_vs_yours"),
    ],
)
def test_the_side_by_side_trace_is_named_by_what_it_holds(labels, name):
    name = name or "_vs_".join(labels)
    assert results.side_by_side(named(*labels)) == f"trace/{name}_chrome_trace.json.gz"


def test_traces_of_the_first_round_are_plain_json_and_those_of_later_ones_compressed():
    plan = named("one", "one_r2")
    plan.launches[1].round = 2
    assert [results.merged(launch) for launch in plan.launches] == [
        "trace/one_chrome_trace.json",
        "trace/one_r2_chrome_trace.json.gz",
    ]


def test_one_launch_or_none_traced_has_no_side_by_side_trace():
    assert results.side_by_side(named("one")) == ""
    assert results.side_by_side(named("one", "two", profile=False)) == ""


@pytest.mark.parametrize(
    ("labels", "clash"),
    [
        (
            ("CASE_A_x", "CASE_B_y", "A_vs_B_chrome_trace.json.gz"),
            "trace/A_vs_B_chrome_trace.json.gz",
        ),
        (("a", "b", "a_vs_b_chrome_trace.json.gz"), "trace/a_vs_b_chrome_trace.json.gz"),
        (("a", "a_chrome_trace.json"), "trace/a_chrome_trace.json"),
        (("a", "a"), "logs/a_analysis.json"),
        (("a", "b", "a_vs_b_2"), None),
        (("run", "summary", "env", "merge"), None),
    ],
)
def test_two_results_of_one_name_are_seen_before_anything_runs(labels, clash):
    assert results.clashes(named(*labels))[:1] == ([clash] if clash else [])


def test_a_cases_own_pipeline_size_decides_what_it_needs(tmp_path):
    plan = plan_of(tmp_path, count=2, pp2="--pp-size 2\n")
    assert (plan.mode, plan.launches[0].ranks) == ("gpu", 2)


def test_on_a_cpu_the_overlay_yields_to_the_case_and_needs_no_gpu_argument(tmp_path):
    plan = plan_of(tmp_path, count=0, graphs_on=ON, more="--max-total-tokens 4096\n")
    one, other = plan.launches
    assert value(one, "--device") == "cpu" and value(one, "--load-format") == "dummy"
    assert value(one, "--max-total-tokens") != "4096" == value(other, "--max-total-tokens")
    assert one.expects_graphs is None
    assert Path(one.model).name == "tiny"
    assert one.env["REPRO_SHIMS"].split(",")[0] == "cpu"
    assert one.argv[1:3] == ["-m", "repro_pp_graphs.server.launch"]
    # one core or more for each of the two ranks, or newer releases refuse to start
    assert len(one.env["SGLANG_CPU_OMP_THREADS_BIND"].split("|")) == 2


def test_on_enough_gpus_nothing_stands_between_the_user_and_sglang(tmp_path):
    for launch in plan_of(tmp_path, "--no-pp-clock").launches:
        assert launch.argv[:3] == ["/usr/bin/python3", "-m", "sglang.launch_server"]
        assert launch.env == {}
        split, sends = [note.split(":")[0] for note in launch.notes]
        assert split == "--pp-max-micro-batch-size 4" and "are asynchronous" in sends
        assert launch.model == "meta-llama/Llama-3.1-70B-Instruct"


@pytest.mark.parametrize(
    ("release", "argv", "said"),
    [
        ("0.5.21", [], True),
        ("0.5.2", [], False),  # that of the issue
        ("0.5.21", ["--pp-size", "1"], False),
        ("0.5.21", ["--cases", "graphs_on"], False),  # #10865 is not asked
        ("0.5.21", ["--cpu"], False),
    ],
)
def test_a_release_of_which_the_issue_is_not_expected_is_named_before_it_runs(
    tmp_path, release, argv, said
):
    plan = plan_of(tmp_path, *argv, release=release)
    notes = [note for each in plan.launches for note in each.notes]
    assert any("#10865 is not expected" in note for note in notes) is said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--pp-size", "1"], True),
        (["--pp-size", "1", "--cpu"], True),
        (["--pp-size", "2"], False),
        (["--pp-size", "1", "--cases", "graphs_on"], False),  # #10865 is not asked
    ],
)
def test_that_one_pipeline_rank_has_no_send_is_said_before_it_runs(tmp_path, argv, said):
    plan = plan_of(tmp_path, *argv)
    noted = [any("nothing of #10865" in note for note in each.notes) for each in plan.launches]
    assert noted == [said] * len(plan.launches)


def test_the_clock_alone_stands_there_by_default_where_there_is_a_pipeline(tmp_path):
    for launch in plan_of(tmp_path).launches:
        assert launch.argv[:3] == ["/usr/bin/python3", "-m", "repro_pp_graphs.server.launch"]
        assert launch.env == {"REPRO_SHIMS": "pp_clock"}
    (one,) = plan_of(tmp_path, "--pp-size", "1", mine="").launches
    assert "REPRO_SHIMS" not in one.env


def test_ranks_on_one_gpu_get_the_shim_and_a_small_cache(tmp_path):
    launch = plan_of(tmp_path, "--one-gpu", count=1).launches[0]
    assert "one_gpu" in launch.env["REPRO_SHIMS"]
    assert "--max-total-tokens" in launch.args
    assert any("share a GPU" in note for note in launch.notes)
    assert launch.expects_graphs is True


def test_options_win_over_both_argument_files(tmp_path):
    argv = ("--pp-size", "2", "--port", "31000", "--model", "/m/8B", "--layers", "4")
    (launch,) = plan_of(tmp_path, *argv, mine="--pp-size 8\n--port 1\n--model x\n").launches
    assert (launch.pp_size, launch.port, launch.model) == (2, 31000, "/m/8B")
    assert value(launch, "--port") == "31000"
    assert json.loads(value(launch, "--json-model-override-args")) == {"num_hidden_layers": 4}


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("deepseek-ai/DeepSeek-V3", "deepseek-v3"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b"),
    ],
)
def test_dummy_weights_take_the_models_shape(tmp_path, model, shape):
    launch = plan_of(tmp_path, "--dummy-weights", "--model", model).launches[0]
    assert Path(launch.model).name == shape
    assert value(launch, "--load-format") == "dummy"
    assert launch.env["HF_HUB_OFFLINE"] == "1"


def test_dummy_weights_use_a_given_folders_config(tmp_path):
    folder = tmp_path / "llama-3.1-8b-mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    launch = plan_of(tmp_path, "--dummy-weights", "--model", str(folder)).launches[0]
    assert launch.model == str(folder) and value(launch, "--load-format") == "dummy"


def test_dummy_weights_of_an_unknown_shape_are_refused(tmp_path):
    with pytest.raises(PlanError, match=r"some/model.*llama-3\.1-8b"):
        plan_of(tmp_path, "--dummy-weights", "--model", "some/model")


def test_labels_number_the_later_rounds(tmp_path):
    plan = plan_of(tmp_path, "--rounds", "2")
    labels = [launch.label for launch in plan.launches]
    assert labels in (["A", "B", "B_r2", "A_r2"], ["B", "A", "A_r2", "B_r2"])
    assert [launch.round for launch in plan.launches] == [1, 1, 2, 2]
    assert {launch.block for launch in plan.launches} == {1}


def test_a_case_without_label_is_named_after_its_file(tmp_path):
    plan = plan_of(tmp_path, base="# label: base\n" + BASE, one="", two="")
    assert [launch.label for launch in plan.launches] == ["CASE_one", "CASE_two"]


@pytest.mark.parametrize(
    ("argv", "cases"),
    [
        ([], {"one": "# label: X", "two": "# label: X"}),
        (["--rounds", "2"], {"one": "# label: X", "two": "# label: X_r2"}),
        (["--cases", "one,one"], {"one": "# label: X"}),
    ],
)
def test_two_cases_of_one_label_are_refused(tmp_path, argv, cases):
    with pytest.raises(PlanError, match=r"share the label|is named twice"):
        plan_of(tmp_path, *argv, **cases)


@pytest.mark.parametrize(
    ("release", "pp_size", "needed"),
    [
        ("0.5.2", "4", True),
        ("0.5.3", "4", True),
        ("0.5.4", "4", False),
        ("0.5.6.post2", "4", False),
        ("0.5.10rc0", "4", False),
        ("0.5.10.post1", "4", False),
        ("0.5.2", "1", False),
    ],
)
def test_old_releases_get_the_pp_rank_into_their_traces(tmp_path, release, pp_size, needed):
    argv = ("--no-pp-clock", "--pp-size", pp_size)
    launch = plan_of(tmp_path, *argv, release=release).launches[0]
    assert ("trace_rank" in launch.env.get("REPRO_SHIMS", "")) == needed
    assert ("repro_pp_graphs.server.launch" in launch.argv) == needed
    assert any("trace_rank" in note for note in launch.notes) == needed


def test_the_reason_for_the_trace_shim_names_the_right_releases(tmp_path):
    # 0.5.3 leaves the PP rank out, 0.5.3.post3 and 0.5.4 write it
    note = plan_of(tmp_path, release="0.5.2").launches[0].notes[-1]
    assert "0.5.3" in note or "0.5.4" in note


def test_a_shim_that_the_user_names_is_kept_beside_ours(tmp_path):
    text = "REPRO_SHIMS=keep_profilers\n"
    (launch,) = plan_of(tmp_path, release="0.5.2", mine=text).launches
    assert launch.env["REPRO_SHIMS"].split(",") == ["keep_profilers", "trace_rank", "pp_clock"]
    with pytest.raises(PlanError, match="no such shim"):
        plan_of(tmp_path, mine="REPRO_SHIMS=nope\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", True),
        ("--cuda-graph-max-bs 64", True),
        ("--cuda-graph-backend-decode full", True),
        ('--cuda-graph-config \'{"decode": {"max_bs": 64}}\'', True),
        ('--cuda-graph-config \'{"prefill": {"backend": "disabled"}}\'', True),
        ("--disable-cuda-graph", False),
        ("--disable-decode-cuda-graph", False),
        ("--cuda-graph-backend-decode disabled", False),
        ("--cuda-graph-backend-decode=disabled", False),
        ('--cuda-graph-config \'{"decode": {"backend": "disabled"}}\'', False),
    ],
)
def test_every_way_to_switch_decode_graphs_off_is_seen(tmp_path, arguments, expected):
    (launch,) = plan_of(tmp_path, mine=arguments).launches
    assert launch.expects_graphs is expected
    if not expected:
        assert launch.captured_max_bs is None


@pytest.mark.parametrize(
    ("arguments", "batch", "captured", "noted"),
    [
        ("--cuda-graph-max-bs 64", "64", 64, ""),
        ("--cuda-graph-max-bs 64", "65", 65, "raised from 64 to 65"),
        ("--cuda-graph-bs 1 16 8", "16", 16, ""),
        ("--cuda-graph-bs 1 2 4", "16", 4, "run eagerly"),
        ("", "200", None, ""),
    ],
)
def test_captured_sizes_cover_the_loads_batch(tmp_path, arguments, batch, captured, noted):
    argv = ("--batch", batch, "--pp-size", "1")  # without pipeline the batch is never split
    (launch,) = plan_of(tmp_path, *argv, mine=arguments).launches
    assert launch.captured_max_bs == captured
    assert noted in " ".join(launch.notes) and bool(noted) == bool(launch.notes)
    if "--cuda-graph-max-bs" in launch.args:
        assert value(launch, "--cuda-graph-max-bs") == str(captured)


def test_captured_sizes_need_not_cover_more_than_a_micro_batch(tmp_path):
    argv = ("--batch", "65", "--pp-size", "4")
    (capped,) = plan_of(tmp_path, *argv, mine="--cuda-graph-bs 1 17").launches
    assert not [note for note in capped.notes if "eagerly" in note]
    text = "--cuda-graph-max-bs 16\n--pp-max-micro-batch-size 20"
    (given,) = plan_of(tmp_path, *argv, mine=text).launches
    assert given.captured_max_bs == 20


@pytest.mark.parametrize(
    ("argv", "arguments", "share", "noted"),
    [
        (["--batch", "16"], "", "4", 1),
        (["--batch", "17"], "", "5", 1),
        (["--batch", "2"], "", "1", "--batch 2 fills 2 of 4"),
        (["--batch", "16"], "--pp-async-batch-depth 1", "4", "--batch 16 fills 4 of 5"),
        (["--batch", "20"], "--pp-async-batch-depth 1", "4", 1),
        (["--batch", "16"], "--max-running-requests 16", "4", 1),
        (["--batch", "16"], "--pp-max-micro-batch-size 9", "9", 0),
        (["--batch", "16"], "--max-micro-batch-size 9", "9", 0),
        (["--batch", "16"], "--max-running-requests 15", None, 0),
        (["--batch", "16", "--pp-size", "1"], "", None, 0),
    ],
)
def test_the_load_is_split_evenly_unless_the_files_say_how(tmp_path, argv, arguments, share, noted):
    for launch in plan_of(
        tmp_path, *argv, one=arguments, two=f"# label: two\n{arguments}"
    ).launches:
        given = "--pp-max-micro-batch-size" in launch.args
        assert (value(launch, "--pp-max-micro-batch-size") if given else None) == share
        assert len(launch.notes) == (2 if isinstance(noted, str) else noted), launch.notes
        assert noted in launch.notes[1] if isinstance(noted, str) else True


def test_the_split_takes_the_name_that_the_release_has(tmp_path):
    names = {
        f"--{name}" for name in ("model-path", "pp-size", "tp-size", "port", "max-micro-batch-size")
    }
    found = frozenset(names)
    (launch,) = plan_of(tmp_path, release="0.5.2", flags=found, mine="").launches
    assert value(launch, "--max-micro-batch-size") == "4"


@pytest.mark.parametrize("text", ["--cuda-graph-bs 1 2 large", "--cuda-graph-bs", "--pp-size x"])
def test_a_size_that_is_no_number_is_refused_in_one_line(tmp_path, text):
    with pytest.raises((PlanError, ArgFileError), match=text.split()[0]):
        plan_of(tmp_path, mine=text)


def test_a_misspelt_argument_stops_the_plan(tmp_path):
    with pytest.raises(FlagError, match="did you mean --cuda-graph-max-bs"):
        plan_of(tmp_path, mine="--cuda-graph-maxbs 64")


def test_a_case_may_name_its_own_interpreter(tmp_path):
    plan = plan_of(tmp_path, new="", old="PYTHON=/venvs/0.5.6/bin/python\n")
    assert [launch.python for launch in plan.launches] == [
        "/usr/bin/python3",
        "/venvs/0.5.6/bin/python",
    ]
    assert plan.launches[1].argv[0] == "/venvs/0.5.6/bin/python"
    assert "PYTHON" not in plan.launches[1].env


def test_without_sglang_a_dry_run_still_has_a_plan(tmp_path):
    launch = plan_of(tmp_path, release=None).launches[0]
    assert launch.sglang_version == "unknown"
    assert value(launch, "--cuda-graph-max-bs") == "64"


def test_nsys_and_torchs_profiler_exclude_one_another(tmp_path):
    assert plan_of(tmp_path).profile
    plan = plan_of(tmp_path, "--nsys")
    assert plan.nsys and not plan.profile
    assert not plan_of(tmp_path, "--no-profile").profile


def test_a_rehearsals_load_is_small_unless_it_is_given(tmp_path):
    full, small = plan_of(tmp_path), plan_of(tmp_path, count=0)
    assert small.batch < full.batch and small.max_new_tokens < full.max_new_tokens
    argv = ("--batch", "3", "--max-new-tokens", "5", "--profile-steps", "7")
    given = plan_of(tmp_path, *argv, count=0)
    assert (given.batch, given.max_new_tokens, given.profile_steps) == (3, 5, 7)


def test_a_plan_comes_back_from_its_file(tmp_path):
    plan = plan_of(tmp_path, "--rounds", "2", count=0)
    plan.launches[0].notes.append('naïve 词 "quoted" \\ \n')
    run_record.save(tmp_path, plan)
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == 1
    assert run_record.load(tmp_path) == plan
    assert run_record.load(tmp_path) != replace(plan, batch=plan.batch + 1)


def test_facts_of_a_launch_add_up(tmp_path):
    assert launch_record.load(tmp_path, "A") is None
    launch_record.amend(tmp_path, "A", ["one"], status="running", profile_s=1.5)
    launch_record.amend(tmp_path, "A", ["two"], status="ok")
    stored = {"status": "ok", "warnings": ["one", "two"], "profile_s": 1.5}
    assert json.loads((tmp_path / "A_launch.json").read_text()) == stored
    assert launch_record.load(tmp_path, "A") == LaunchRecord(**stored)
    assert launch_record.load(tmp_path, "B") is None


def test_a_launch_that_runs_again_forgets_why_it_failed(tmp_path, monkeypatch):
    plan = plan_of(tmp_path, count=0)
    (tmp_path / "logs").mkdir()
    run_record.save(tmp_path / "logs", plan)
    launch_record.amend(tmp_path / "logs", "A", status="failed", reason="port in use")
    monkeypatch.setattr(begin_step, "obstacle", lambda *_: "")
    assert begin_step.main([str(tmp_path), "A", "--root", str(tmp_path)]) == 0
    assert finish_step.main([str(tmp_path), "A"]) == 0
    known = launch_record.load(tmp_path / "logs", "A")
    assert (known.status, known.reason) == ("ok", None)


def test_an_earlier_try_leaves_no_rows_of_any_ranks_clock_on_any_node(tmp_path):
    """Servers remove none themselves: of several nodes one starts while another's ranks write."""
    plan = plan_of(tmp_path, "--pp-size", "4")
    launch = plan.launches[0]
    launch.nodes = launch.started_nodes = 2
    (tmp_path / "logs").mkdir(exist_ok=True)
    start = f"logs/{launch.label}_pp_clock"
    ours = [f"{start}_PP{rank}_TP0.rows{end}" for rank in range(4) for end in ("", ".gz")]
    other = f"logs/{launch.label}_r2_pp_clock_PP0_TP0.rows.gz"
    for name in [*ours, other]:
        (tmp_path / name).touch()
    begin_step.begin(tmp_path, plan, launch.label)
    assert [name for name in [*ours, other] if (tmp_path / name).exists()] == [other]


@pytest.mark.parametrize(
    "argv",
    [
        ["--rounds", "0"],
        ["--pp-size", "four"],
        ["--batch", "-1"],
        ["--batch", "1.5"],
        ["--port", "70000"],
        ["--profile", "x"],  # no abbreviations: --profile is not --profile-steps
        ["--nope"],
    ],
)
def test_a_bad_option_is_a_usage_error(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        run_options.parse(["--root", ".", "--out", "o", "--python", "p", *argv])
    assert ended.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_a_dry_run_assumes_nodes_as_it_assumes_gpus(tmp_path, capsys):
    asked = ("--nodes", "2", "--pp-size", "8")
    launch = plan_of(tmp_path, "--dry-run", "--gpus", "4", *asked).launches[0]
    assert (launch.nodes, launch.ranks, value(launch, "--nnodes")) == (2, 8, "2")
    with pytest.raises(SystemExit):
        plan_of(tmp_path, *asked)
    assert "--dry-run --gpus N" in " ".join(capsys.readouterr().err.split())


def test_a_launch_that_is_interrupted_before_its_record_is_begun_is_of_this_run(tmp_path):
    plan = plan_of(tmp_path, count=0)
    plan.run_id = "r"
    (tmp_path / "logs").mkdir()
    run_record.save(tmp_path / "logs", plan)
    assert finish_step.main([str(tmp_path), "A", "--interrupted"]) == 1
    known = launch_record.load(tmp_path / "logs", "A")
    assert known is not None and (known.status, known.run_id) == ("interrupted", "r")
    (row, _) = run_summary.summarise(tmp_path / "logs", plan)["launches"]
    assert row["status"] == "interrupted" and "another run" not in row.get("reason", "")


OVERLAID = f"{BASE}--attention-backend nonsense\n--load-format dummy\nOMP_NUM_THREADS=4\n"


def test_a_rehearsal_says_which_arguments_it_replaces(tmp_path):
    plan = plan_of(tmp_path, "--cpu", base=OVERLAID)
    (said,) = [text for text in overview.notes(plan) if "replaces" in text]
    assert said == (
        "of server_args_base.txt a rehearsal replaces: --attention-backend torch_native (not "
        "nonsense), OMP_NUM_THREADS 1 (not 4); what a case's own file says stays"
    )
    assert not [text for text in overview.notes(plan_of(tmp_path)) if "replaces" in text]


def test_what_a_cases_own_file_says_is_not_called_replaced(tmp_path):
    cases = {"one": "# label: A\n--attention-backend nonsense\n", "two": "# label: B\n"}
    plan = plan_of(tmp_path, "--cpu", base=f"{BASE}--attention-backend triton\n", **cases)
    assert value(plan.launches[0], "--attention-backend") == "nonsense"
    (said,) = [text for text in overview.notes(plan) if "replaces" in text]
    assert said.startswith("two: ") and "torch_native (not triton)" in said


def test_nothing_is_called_replaced_where_the_base_file_has_nothing_else(tmp_path):
    assert not [text for text in overview.notes(plan_of(tmp_path, "--cpu")) if "replaces" in text]


@pytest.mark.parametrize(
    ("changes", "there", "text"),
    [
        ({}, "4 x NVIDIA H200", "2 of 4 x NVIDIA H200"),
        ({}, "2 x NVIDIA H200", "2 x NVIDIA H200"),
        ({}, "", "GPUs"),
        ({}, "nvidia-smi: not found", "nvidia-smi: not found"),
        ({"mode": "cpu"}, "4 x NVIDIA H200", "a CPU"),
        ({"mode": "one_gpu", "ranks_per_gpu": 2}, "4 x NVIDIA H200", "1 of 4 x NVIDIA H200"),
        ({"mode": "one_gpu", "ranks_per_gpu": 0}, "4 x NVIDIA H200", "4 x NVIDIA H200"),
    ],
)
def test_a_run_names_those_of_the_hosts_gpus_that_it_used(changes, there, text):
    assert made_up_run.plan(made_up_run.launch(), **changes).gpus(there) == text
