"""--sweep: what its values may be, the loads that they make, what the server is told of each."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_harness import BASE, FLAGS, OFF, ON, gpus, plan_of, value

from repro_pp_graphs.run import dry_run
from repro_pp_graphs.run.checks import kv_cache
from repro_pp_graphs.run.folder import results, resume
from repro_pp_graphs.run.plan import client_words, options, sweep
from repro_pp_graphs.run.plan.sweep import MICRO_BATCH, SweepError
from repro_pp_graphs.run_record import load, save
from repro_pp_graphs.server import shim_names

TWO = ("--pp-size", "2")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["batch"], "AXIS=V,V"),
        (["depth=1"], "one of batch, micro_batch, input_len, tokens, rate, mix"),
        (["batch=0"], "whole numbers from 1 to 65536"),
        (["batch=1,,2"], "whole numbers"),
        (["batch=1", "batch=2"], "given twice"),
        (["batch=1,1"], "given twice"),
        (["tokens=9999999999"], "whole numbers"),
        (["rate=0"], "requests a second"),
        (["rate=1e3"], "requests a second"),
        (["mix=4000"], "TOKENS@RATE"),
        (["mix=@2"], "whole numbers"),
        (["mix=10@x"], "requests a second"),
        (["batch=1,2,3,4,5,6", "tokens=1,2,3,4,5,6"], "36 loads: 32 at most"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_what_to_do(words, said):
    with pytest.raises(SweepError, match=said):
        sweep.parse(words)


def test_hyphens_and_underscores_name_the_same_axis():
    assert sweep.parse(["input-len=1", "micro_batch=2"]) == {
        "input_len": ["1"],
        "micro_batch": ["2"],
    }


def test_values_of_several_axes_make_every_combination():
    made = sweep.loads(sweep.parse(["batch=4,16", "input_len=100,4000"]), 1, 48)
    assert [each.name for each in made] == ["b4_in100", "b4_in4000", "b16_in100", "b16_in4000"]
    assert [each.title for each in made][1] == "batch 4, input 4000"
    assert {each.max_new_tokens for each in made} == {48}


@pytest.mark.parametrize(("batch", "main"), [(16, "b16"), (4, "b4"), (7, "b4")])
def test_the_main_load_is_that_of_batch_or_else_the_first(batch, main):
    made = sweep.loads(sweep.parse(["batch=4,16,64"]), batch, 48)
    assert made[0].name == main and len({each.name for each in made}) == 3


def test_a_rate_and_a_mix_exclude_each_other():
    with pytest.raises(SweepError, match="leave one out"):
        sweep.loads(sweep.parse(["rate=1", "mix=100@1"]), 4, 4)
    assert len(sweep.loads(sweep.parse(["rate=1", "mix=none"]), 4, 4)) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sweep", "depth=1"], "--sweep depth=1: give AXIS=V,V"),
        (["--sweep", "batch=1,2", "--batch", "4"], "batch=1,2 lacks it: add it there"),
        (["--sweep", "batch=1", "--engine", "probe"], "the probe has none"),
        (["--sweep", "batch=1", "--attach", "http://h:1", "--yes"], "one --batch at a time"),
        (["--sweep"], "--sweep needs a value"),
        (["--profile-loads", "all"], "--profile-loads is for the loads of a --sweep"),
        (["--sweep", "batch=1,2", "--profile-loads", "b1", "--no-profile"], "there is no profile"),
        (["--sweep", "batch=1,2", "--profile-loads", "b1", "--nsys"], "--nsys: there is no"),
    ],
)
def test_options_that_do_not_go_with_a_sweep_are_refused(given, said, capsys):
    with pytest.raises(SystemExit):
        options.parse(["--", *given])
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_option_may_be_repeated_or_take_several_words():
    want = {"batch": ["1", "2"], "tokens": ["8"]}
    assert options.parse(["--", "--sweep", "batch=1,2", "tokens=8"]).sweep == want
    assert (
        options.parse(["--", "--sweep", "batch=1,2", "--aa", "--sweep", "tokens=8"]).sweep == want
    )


def test_the_server_starts_with_room_for_every_load_and_is_told_each(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=4,16,64", base="--model-path m\n")
    for launch in plan.launches:
        assert launch.loads == {"b4": 2, "b16": 8, "b64": 32}
        assert value(launch, MICRO_BATCH) == "32"
    assert plan.batch == plan.loads[0].batch == 16


def test_graphs_are_captured_for_the_largest_micro_batch(tmp_path: Path):
    on = "# label: A\n--cuda-graph-max-bs 8\n"
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=4,64", graphs_on=on, graphs_off=OFF)
    assert value(plan.launches[0], "--cuda-graph-max-bs") == "32"


def test_a_case_with_more_micro_batches_in_flight_shares_a_load_among_them(tmp_path: Path):
    deep = f"{ON}--pp-async-batch-depth 1\n"
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=12", graphs_on=ON, deep=deep.replace("A", "D"))
    assert [launch.loads["b12"] for launch in plan.launches] == [6, 4]


def test_a_mix_leaves_room_for_what_arrives_beside(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "mix=none,4000@2")
    assert plan.launches[0].loads == {"mixnone": 8, "mix4000at2": 9}


def test_micro_batches_of_a_sweep_are_told_and_may_be_uneven(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "micro_batch=4,8,12")
    assert plan.launches[0].loads == {"mb4": 4, "mb8": 8, "mb12": 12}
    assert any("micro-batch 4: the micro-batches do not hold" in n for n in plan.launches[0].notes)


@pytest.mark.parametrize(
    ("release", "argument"), [("0.5.2", "--max-micro-batch-size"), ("0.5.21", MICRO_BATCH)]
)
def test_a_dry_run_sends_the_size_by_the_name_of_the_release(tmp_path: Path, release, argument):
    flags = FLAGS - {MICRO_BATCH} | {argument}
    words = (*TWO, "--sweep", "batch=4,16")
    plan = plan_of(tmp_path, *words, release=release, flags=flags)
    required = ("--root", str(tmp_path), "--out", str(tmp_path / "out"), "--python", "python3")
    text = "\n".join(dry_run.lines(plan, options.parse([*required, *words])))
    name = argument.removeprefix("--").replace("-", "_")
    assert text.count(f'{{"server_args": {{"{name}": ') == 2 * len(plan.launches)


@pytest.mark.parametrize(("lines", "sizes"), [(f"{MICRO_BATCH} 3\n", [None, None]), ("", [2, 8])])
def test_a_size_that_the_files_say_holds_for_all_loads(tmp_path: Path, lines, sizes):
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=4,16", one=ON + lines, two=OFF)
    assert [plan.launches[0].loads[name] for name in ("b4", "b16")] == sizes


def test_one_rank_has_no_micro_batches_to_vary(tmp_path: Path):
    with pytest.raises(SweepError, match="one PP rank"):
        plan_of(tmp_path, "--pp-size", "1", "--sweep", "micro_batch=2")
    plan = plan_of(tmp_path, "--pp-size", "1", "--sweep", "batch=2,4")
    assert set(plan.launches[0].loads.values()) == {None}


@pytest.mark.parametrize(
    ("base", "words", "said"),
    [
        ("--max-running-requests 8\n", "batch=4,16", "batch 16: --max-running-requests is 8"),
        ("--max-running-requests 8\n", "batch=16,32", "batch 16; batch 32: --max-running"),
    ],
)
def test_loads_whose_prompts_will_wait_are_named(tmp_path: Path, base, words, said):
    plan = plan_of(tmp_path, *TWO, "--sweep", words, base=f"--model-path m\n{base}")
    (note,) = [text for text in plan.launches[0].notes if text.endswith("prompts wait")]
    assert note.startswith(said)


def test_every_case_of_a_round_measures_the_loads_in_one_order_and_rounds_differ(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--rounds", "4", "--sweep", "batch=1,2,4,8,16,32,64")
    orders: dict[int, set[tuple[str, ...]]] = {}
    for launch in plan.launches:
        orders.setdefault(launch.round, set()).add(tuple(launch.loads))
    assert all(len(its) == 1 for its in orders.values())
    assert len(set.union(*orders.values())) > 1


def test_a_plan_with_a_sweep_is_read_as_it_was_written(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=1,2", "mix=none,10@0.5")
    save(tmp_path, plan)
    read = load(tmp_path)
    assert read == plan and list(read.launches[0].loads) == list(plan.launches[0].loads)


def test_the_client_is_asked_for_what_a_load_is(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=4,16", "input_len=100", "mix=10@0.5")
    launch, logs = plan.launches[0], tmp_path
    words = " ".join(client_words.measured(plan, launch, logs, plan.load("b4_in100_mix10at0.5")))
    assert "--batch 4 --input-len 100 --beside-input-len 10 --beside-rate 0.5" in words
    assert words.endswith(f"--output {logs}/A_at_b4_in100_mix10at0.5_client.json")
    main = " ".join(client_words.measured(plan, launch, logs, plan.loads[0]))
    assert main.endswith(f"--output {logs}/A_client.json") and "--batch 16" in main
    assert "--batch 16 --input-len 100" in " ".join(client_words.profiled(plan))


def test_only_the_first_load_of_a_server_has_a_request_ahead_of_its_warm_up(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "batch=1,2,4")
    launch = plan.launches[0]
    ahead = [
        words[words.index("--warmup") + 1]
        for name in launch.loads
        for words in [client_words.measured(plan, launch, tmp_path, plan.load(name))]
    ]
    assert ahead == ["1", "0", "0"]


def test_a_rate_is_of_single_prompts_with_at_most_the_batch_in_flight(tmp_path: Path):
    plan = plan_of(tmp_path, *TWO, "--sweep", "rate=4,0.5")
    words = " ".join(client_words.measured(plan, plan.launches[0], tmp_path, plan.load("rate4")))
    assert "--request-rate 4 --concurrency 16" in words and "--num-prompts 64" in words
    assert "--batch" not in words


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["all"], ["b4", "b64"]),
        (["b64", "b4"], ["b4", "b64"]),
        (["b64"], ["b64"]),
        (["b16"], []),  # the main one, which is profiled anyway
    ],
)
def test_the_loads_to_profile_are_named_as_their_files_are(tmp_path: Path, asked, found):
    words = ("--sweep", "batch=4,16,64", "--profile-loads", ",".join(asked), "--rounds", "2")
    plan = plan_of(tmp_path, *TWO, *words)
    first, *_, last = plan.launches
    assert plan.profiled_loads(first) == found and plan.profiled_loads(last) == []
    kept = "keep_profilers" in shim_names.names_in(first.env)
    assert kept == bool(found), "several profiles in one server"
    names = results.of_launch(first, plan)
    for name in ("b4", "b64"):
        there = f"logs/{first.label}_at_{name}_analysis.txt" in names
        assert there == (name in found)
    assert results.clashes(plan) == []


def test_a_load_that_the_sweep_lacks_cannot_be_profiled(tmp_path: Path):
    with pytest.raises(SweepError, match="all, or some of b16, b4, b64"):
        plan_of(tmp_path, *TWO, "--sweep", "batch=4,16,64", "--profile-loads", "b5")


def test_resume_with_other_loads_to_profile_is_another_run(tmp_path: Path):
    sweeps = ("--sweep", "batch=4,16")
    then = plan_of(tmp_path, *TWO, *sweeps)
    now = plan_of(tmp_path, *TWO, *sweeps, "--profile-loads", "b4")
    assert any("--profile-loads" in each for each in resume.differences(then, now))


@pytest.mark.parametrize(
    ("said", "found"), [("", "65536"), ("--max-total-tokens 270000\n", "270000")]
)
def test_ranks_that_share_a_gpu_have_the_cache_that_the_base_names(tmp_path: Path, said, found):
    shared = ("--pp-size", "4", "--ranks-per-gpu", "2", "--dummy-weights")
    words = (*shared, "--max-new-tokens", "96", "--sweep", "batch=4,16,64", "input_len=4000")
    plan = plan_of(tmp_path, *words, count=2, base=f"{BASE}{said}")
    first = plan.launches[0]
    assert value(first, sweep.CAPACITY) == found
    held = kv_cache.queued(plan, gpus(2))
    assert bool(held) == (not said)
    assert not held or "at once of batch 64, input 4000 (up to 262,144 tokens" in held[0]
