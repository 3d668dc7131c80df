"""How many ranks a launch has, on which GPUs and nodes, and which numbers of them are refused."""

from __future__ import annotations

import made_up_run
import pytest
from plan_harness import BASE, ON, plan_of, value

from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.case.argfile import ArgFileError


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


def test_the_option_for_tensor_parallel_ranks_stands_above_every_file(tmp_path):
    words = ("--pp-size", "2", "--tp-size", "4")
    plan = plan_of(tmp_path, *words, count=8, base=BASE + "--tp-size 2\n")
    assert [(one.pp_size, one.tp_size) for one in plan.launches] == [(2, 4)] * len(plan.launches)
    for launch in plan.launches:
        assert launch.args[launch.args.index("--tp-size") + 1] == "4"
    with pytest.raises(PlanError, match="asks for 8"):
        plan_of(tmp_path, *words, count=4)


def test_the_case_that_asks_for_more_ranks_than_the_others_is_named(tmp_path):
    with pytest.raises(PlanError, match=r"asks for 8 \(wide\): use"):
        plan_of(tmp_path, graphs_on=ON, wide="# label: W\n--tp-size 2\n")
    with pytest.raises(PlanError, match="asks for 4: use"):
        plan_of(tmp_path, count=2)


def test_a_cases_own_pipeline_size_decides_what_it_needs(tmp_path):
    plan = plan_of(tmp_path, count=2, pp2="--pp-size 2\n")
    assert (plan.mode, plan.launches[0].ranks) == ("gpu", 2)


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


def test_a_dry_run_assumes_nodes_as_it_assumes_gpus(tmp_path, capsys):
    asked = ("--nodes", "2", "--pp-size", "8")
    launch = plan_of(tmp_path, "--dry-run", "--gpus", "4", *asked).launches[0]
    assert (launch.nodes, launch.ranks, value(launch, "--nnodes")) == (2, 8, "2")
    with pytest.raises(SystemExit):
        plan_of(tmp_path, *asked)
    assert "--dry-run --gpus N" in " ".join(capsys.readouterr().err.split())


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
