"""run_repro.sh inside a Slurm allocation of two nodes, both this machine (fake_slurm.py).

The real Slurm and server, on two network namespaces: tests/slurm.sh.
"""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fake_sglang.harness import Done, Harness, at_once
from fake_slurm import allocate

pytestmark = pytest.mark.launches

FOUR = ("--pp-size", "4", "--dummy-weights")
GPUS = ((80000, 0), (80000, 0))
CASE = "CASE_A_decode_graphs"
ENVIRONMENTS = """case ${SLURMD_NODENAME:-} in
  node1) torch=2.9 ;;
  *) torch=2.8 ;;
esac
printf '{"summary": {"sglang": "0.5.16", "torch": "%s"}, "software": {"nvcc": "12"}}\\n' "$torch"
last=""
for word; do
  [[ $last != --json-file ]] || echo {} >"$word"
  last=$word
done
"""


def run_both(run: Harness) -> Done:
    (run.root / "collect_env.sh").write_text(ENVIRONMENTS)
    # the first node's ranks are long at work: the other's server takes nothing of theirs away
    late = run.root / "fake_tools" / "late_node1"
    late.write_text(f"{run.logs}/{CASE}_pp_clock_PP1_TP0.rows*")
    return run.run("--cases", "graphs_on", *FOUR)


def run_one(run: Harness) -> Done:
    two = ["--pp-size", "2", "--dummy-weights", "--layers", "16"]
    return run.run("--cases", "graphs_on", *two, "--nodes", "1", "--no-profile")


def run_own_disk(run: Harness) -> Done:
    marks = f"{run.out}:{run.root}/out_of_node1"
    (run.root / "fake_tools" / "own_out_node1").write_text(marks)
    old = run.root / "out_of_node1" / "trace" / CASE
    old.mkdir(parents=True)
    (old / "someone's").write_text("kept")
    return run.run("--cases", "graphs_on", *FOUR)


def run_faults(run: Harness) -> Done:
    run.case("dead", "FAKE_FAULT=die_node1:oom", "--disable-cuda-graph")
    run.case("missing", "FAKE_FAULT=missing_rank", "--disable-cuda-graph")
    run.case("good", "--disable-cuda-graph")
    run.give_up_traces(1.0, whole=3, label="missing")
    return run.run("--cases", "dead,missing,good", *FOUR)


def run_cut(run: Harness) -> Done:
    run.env["REPRO_NODE_SILENT_S"] = "6"
    run.case("cut", "FAKE_ITL_MS=600000", "--disable-cuda-graph")
    (run.root / "fake_tools" / "cut_node1").touch()
    return run.run("--cases", "cut", *FOUR)


def run_lost(run: Harness) -> Done:
    (run.root / "fake_tools" / "lost_node1").touch()
    return run.run("--cases", "graphs_on", *FOUR)


def run_elsewhere(run: Harness) -> Done:
    run.env["SLURMD_NODENAME"] = "node1"
    return run.run("--cases", "graphs_on", *FOUR)


def run_interrupted(run: Harness) -> Done:
    run.case("victim", "FAKE_ITL_MS=600000", "--disable-cuda-graph")
    running = run.start("--cases", "victim", *FOUR)
    running.until_log("victim", "Decode batch")
    running.process.send_signal(signal.SIGINT)
    return running.end()


SCENES = {
    "both": run_both,
    "one": run_one,
    "own_disk": run_own_disk,
    "faults": run_faults,
    "cut": run_cut,
    "lost": run_lost,
    "elsewhere": run_elsewhere,
    "interrupted": run_interrupted,
}
Scenes = dict[str, tuple[Harness, Done]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    root = tmp_path_factory.mktemp("nodes")
    runs = {name: allocate(Harness(root / name, gpus=GPUS)) for name in SCENES}
    done = at_once({name: partial(scene, runs[name]) for name, scene in SCENES.items()})
    yield {name: (runs[name], done[name]) for name in SCENES}
    for run in runs.values():
        run.__exit__()


def launch(run: Harness, label: str) -> dict[str, Any]:
    return next(one for one in run.summary()["launches"] if one["label"] == label)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_node_runs_the_ranks_of_its_number(scenes: Scenes):
    run, done = scenes["both"]
    assert done.status == 0, done.lines
    logs = [run.logs / f"{CASE}_server{node}.log" for node in ("", "_node1")]
    loaded = [re.findall(r"PP(\d)\] Load weight end", path.read_text()) for path in logs]
    assert [sorted(ranks) for ranks in loaded] == [["0", "1"], ["2", "3"]]


def test_the_traces_and_rows_of_all_nodes_are_there(scenes: Scenes):
    run, _ = scenes["both"]
    assert len(names(run.out / "trace" / CASE)) == 4
    analysis = json.loads((run.logs / f"{CASE}_analysis.json").read_text())
    assert sorted(analysis["ranks"]) == ["0", "1", "2", "3"]
    assert len(list(run.logs.glob(f"{CASE}_pp_clock_PP*.rows.gz"))) == 4
    planned = {f"logs/{name}" for name in ("nodes.json", "nodes.sh", f"{CASE}_server_node1.log")}
    assert planned <= run.files()


def test_gloo_gets_the_interface_of_the_way_to_the_head(scenes: Scenes):
    run, _ = scenes["both"]
    assert "interface lo of node 1" in (run.logs / f"{CASE}_server_node1.log").read_text()


def test_the_table_says_what_differs_and_on_which_node(scenes: Scenes):
    run, done = scenes["both"]
    assert "  nodes:  2 of job 7; head node0, 127.0.0.1:" in done.out
    assert "    torch     DIFFERS: 2.8 on node0; 2.9 on node1\n" in done.out
    assert "    sglang    0.5.16\n" in done.out
    assert "    node1     127.0.0.1 on lo\n" in done.out
    assert "torch   2.9" in (run.logs / "env_node1.txt").read_text()


def test_servers_go_through_srun_beside_the_other_steps_of_the_job(scenes: Scenes):
    run, _ = scenes["both"]
    calls = (run.root / "fake_tools" / "srun_calls").read_text().splitlines()
    servers = [call for call in calls if "node.sh" in call]
    assert len(servers) == 2
    assert all("--overlap --nodes=1 --ntasks=1" in call for call in calls)


def test_nodes_1_stays_on_this_node(scenes: Scenes):
    run, done = scenes["one"]
    assert done.status == 0, done.lines
    assert not (run.root / "fake_tools" / "srun_calls").exists()


def test_files_of_a_node_with_a_disk_of_its_own_are_fetched(scenes: Scenes):
    run, done = scenes["own_disk"]
    assert done.status == 0, done.lines
    assert "does not see --out" in done.out
    assert len(names(run.out / "trace" / CASE)) == 4
    assert len(list(run.logs.glob(f"{CASE}_pp_clock_PP*.rows.gz"))) == 4
    there = run.root / "out_of_node1" / "trace"
    kept = [path for path in there.rglob("*") if path.name == "someone's"]
    assert [path.parent.name.startswith(".earlier-7-") for path in kept] == [True]


def test_a_process_that_dies_on_another_node_is_explained_by_its_own_log(scenes: Scenes):
    run, done = scenes["faults"]
    assert done.status == 1
    assert "out of GPU memory" in launch(run, "dead")["reason"]
    assert any("dead_server_node1.log" in line for line in done.lines)


def test_a_missing_rank_is_named_with_its_node(scenes: Scenes):
    run, _ = scenes["faults"]
    found = launch(run, "missing")
    assert found["status"] == "failed"
    assert "3 of 4 ranks' traces are whole, PP3 on node 1 missing" in found["reason"]


def test_the_cases_after_a_failed_one_still_run(scenes: Scenes):
    run, _ = scenes["faults"]
    assert run.statuses()["good"] == "ok"
    assert run.left_over() == []


def test_a_link_that_is_cut_fails_the_launch_with_the_node_named(scenes: Scenes):
    run, done = scenes["cut"]
    assert done.status == 1
    assert "its link is cut, or it is down" in launch(run, "cut")["reason"]
    said = " ".join(done.out.split())  # whichever end notices first
    assert re.search(r"node 1 \(node1\) has (not answered|heard nothing) for 6 s", said)
    assert run.left_over() == []


def test_a_node_that_is_down_stops_the_run_before_its_first_server(scenes: Scenes):
    run, done = scenes["lost"]
    assert done.status == 2
    assert any("node1" in error and "is down" in error for error in done.own_errors)
    assert not list(run.logs.glob("*_server.log"))


def test_the_head_must_be_the_first_node(scenes: Scenes):
    _, done = scenes["elsewhere"]
    assert done.status == 2
    assert any("runs on node1" in error and "sbatch" in error for error in done.own_errors)


def test_an_interrupt_leaves_nothing_on_any_node(scenes: Scenes):
    run, done = scenes["interrupted"]
    assert done.status == 130
    assert run.left_over() == []
    assert run.statuses() == {"victim": "interrupted"}


@pytest.mark.parametrize("option", ["--nsys", "--one-gpu", "--mps", "--sockets"])
def test_what_is_of_one_machine_is_refused_on_several_nodes(tmp_path: Path, option: str):
    with allocate(Harness(tmp_path / "r", gpus=GPUS)) as run:
        done = run.run(option, "--cases", "graphs_on")
        assert done.status == 2
        assert any(option in error and "--nodes 1" in error for error in done.own_errors), done.err


def test_a_dry_run_says_that_the_command_is_for_every_node(tmp_path: Path):
    with allocate(Harness(tmp_path / "r", gpus=GPUS)) as run:
        done = run.run("--cases", "graphs_on", *FOUR, "--dry-run")
        assert done.status == 0, done.lines
        assert "on 2 nodes" in done.err
        assert "  --nnodes 2" in done.out
        assert "# on each node by srun, with --node-rank N" in done.out


def test_more_nodes_than_allocated_are_refused(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=GPUS) as run:
        for allocated, words in ((False, "is not one of several nodes"), (True, "has 2")):
            if allocated:
                allocate(run)
            done = run.run("--nodes", "3", "--cases", "graphs_on")
            assert done.status == 2
            assert any(words in error for error in done.own_errors), done.err
