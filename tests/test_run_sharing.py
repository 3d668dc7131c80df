"""Ranks that share GPUs, MPS for them, sockets in place of NVLink: what is run, ended and said."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sglang.harness import PYTHON, Harness
from plan_harness import BASE, gpus, plan_of

from repro_pp_graphs.report.summary import remarks
from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.server.machine import network

SMALL = ("--dummy-weights", "--layers", "4", "--cases", "graphs_on", "--no-profile")
# -f stays in the foreground, as NVIDIA's does, until it is told to quit
MPS = """#!/usr/bin/env bash
pipes=$CUDA_MPS_PIPE_DIRECTORY
if [[ ${1:-} == -f ]]; then
  [[ -z ${FAKE_MPS_FAILS:-} ]] || { echo "no such device"; exit 1; }
  echo "devices ${CUDA_VISIBLE_DEVICES:-all} of $$"
  touch "$pipes/control"
  until [[ -e $pipes/quit ]]; do sleep 0.05; done
  echo "told to quit"
else
  read -r word && [[ $word == quit ]] && touch "$pipes/quit"
fi
"""


@pytest.mark.parametrize(
    ("argv", "count", "shared"),
    [
        (("--ranks-per-gpu", "2"), 2, 2),
        (("--ranks-per-gpu", "2"), 4, 2),
        (("--ranks-per-gpu", "4"), 8, 4),
        (("--ranks-per-gpu", "3"), 2, 3),
        (("--one-gpu",), 1, 4),
        (("--one-gpu",), 2, 2),
    ],
)
@pytest.mark.parametrize("release", ["0.5.2", "0.5.6.post2", "0.5.21"])
def test_ranks_share_gpus_in_every_release(tmp_path: Path, argv, count, shared, release):
    base = f"{BASE}--attention-backend flashinfer\n"  # triton dies there before 0.5.18
    plan = plan_of(tmp_path, *argv, count=count, release=release, base=base)
    assert (plan.mode, plan.ranks_per_gpu) == ("one_gpu", shared)
    assert plan.sharing == f"{shared} ranks a GPU, in time slices"
    for launch in plan.launches:
        assert "one_gpu" in launch.env["REPRO_SHIMS"]
        assert launch.env["REPRO_GPUS"] == str(-(-4 // shared))  # of 8 GPUs too


@pytest.mark.parametrize(
    ("argv", "count", "said"),
    [
        (("--ranks-per-gpu", "2"), 1, "asks for 4: use --ranks-per-gpu 4"),
        (("--ranks-per-gpu", "2"), 0, "--ranks-per-gpu: nvidia-smi shows no GPU"),
        (("--mps",), 4, "--mps is for ranks that share a GPU"),
        (("--mps", "--one-gpu"), 4, "--mps is for ranks that share a GPU"),
    ],
)
def test_what_cannot_share_is_refused_with_what_can(tmp_path: Path, argv, count, said):
    with pytest.raises(PlanError, match=said):
        plan_of(tmp_path, *argv, count=count)


@pytest.mark.parametrize("option", ["--mps", "--sockets", "--ranks-per-gpu=2"])
def test_the_probe_has_no_use_for_them(option, capsys):
    with pytest.raises(SystemExit):
        run_options.parse(["--", "--engine", "probe", *option.split("=")])
    assert option.partition("=")[0] in capsys.readouterr().err


def test_a_gpu_that_no_rank_takes_may_be_busy(tmp_path: Path):
    plan = plan_of(tmp_path, "--ranks-per-gpu", "2", "--dummy-weights", "--layers", "4")
    found = [*gpus(2), *(type(one)("9", one.uuid, one.name, 100, 90) for one in gpus(1))]
    assert preflight.check_memory(plan, found) == []


def test_a_plan_says_what_the_kv_cache_of_ranks_that_share_takes(tmp_path: Path):
    small = ("--one-gpu", "--dummy-weights", "--layers", "16")  # 16 of 80: 65,536 bytes a token
    plan = plan_of(tmp_path, *small, count=1)
    (text,) = weights.sentences(plan, gpus(1))
    cache = "--max-total-tokens sizes the KV cache: 65,536 tokens, 4.3 GB of a GPU, 1.1 GB a rank"
    assert text.endswith(cache)
    wide = f"{BASE}--tensor-parallel-size 2\n"  # each of two TP ranks has half of the heads
    plan = plan_of(tmp_path, *small, "--pp-size", "2", count=1, base=wide)
    assert weights.sentences(plan, gpus(1))[0].endswith(cache)
    (text,) = weights.sentences(plan_of(tmp_path, "--one-gpu", "--model", "x/y", count=1), gpus(1))
    assert "KV cache" not in text


def test_sockets_are_set_for_every_case_and_said_in_words(tmp_path: Path):
    plan = plan_of(tmp_path, "--sockets")
    for launch in plan.launches:
        assert network.SOCKETS.items() <= launch.env.items()
        assert network.transport(launch.env) == network.BY_SOCKETS


def test_a_case_may_ask_for_sockets_by_its_own_lines(tmp_path: Path):
    mine = "# label: A\nNCCL_P2P_DISABLE=1\nNCCL_SHM_DISABLE=1\n"
    plan = plan_of(tmp_path, mine=mine, other="# label: B\n")
    rows = [
        {"case": launch.case, "network": network.transport(launch.env)} for launch in plan.launches
    ]
    (text,) = remarks._network(rows)
    assert "(mine)" in text and "sockets in place of NVLink" in text
    assert remarks._network(rows[1:]) == []
    assert network.transport({"NCCL_P2P_DISABLE": "1"}) == ""


def test_on_a_cpu_sockets_are_said_to_do_nothing(tmp_path: Path):
    plan = plan_of(tmp_path, "--sockets", count=0)
    assert not plan.sockets and any("does nothing" in note for note in plan.launches[0].notes)


@pytest.fixture
def harness() -> Iterator[Harness]:
    # the path of a socket has room for a hundred characters, which tmp_path may fill
    with (
        tempfile.TemporaryDirectory(prefix="mps") as folder,
        Harness(Path(folder) / "r", version="0.5.2", gpus=[(81559, 3)] * 2) as made,
    ):
        tool = made.root / "fake_tools" / "nvidia-cuda-mps-control"
        tool.write_text(MPS)
        tool.chmod(0o755)
        base = made.root / "server_args_base.txt"
        text = base.read_text()
        base.unlink()  # it may be a link to the checkout's
        base.write_text(f"{text}\n--attention-backend flashinfer\n")
        made.env |= {"CUDA_MPS_PIPE_DIRECTORY": str(made.root / "nobodys")}
        yield made


SHARED = (*SMALL, "--pp-size", "4", "--ranks-per-gpu", "2", "--mps")


@pytest.mark.launches
def test_mps_is_begun_and_ended_by_the_launch_and_named_everywhere(harness: Harness):
    done = harness.run(*SHARED, "--sockets")
    assert done.status == 0, done.lines
    log = (harness.out / "mps" / f"{harness.summary()['launches'][0]['label']}.log").read_text()
    assert "devices all" in log and "told to quit" in log
    assert not (harness.out / "mps" / "pipe").exists() and harness.left_over() == []
    summary = harness.summary()
    assert summary["sharing"] == "2 ranks a GPU, side by side through MPS"
    assert summary["launches"][0]["network"] == "sockets in place of NVLink"
    report = (harness.logs / "report.md").read_text()
    for text in (done.out, report):
        flat = " ".join(text.split())
        assert "2 ranks a GPU, side by side through MPS" in flat
        assert "sockets in place of NVLink" in flat
    assert "NCCL between ranks" in done.out


@pytest.mark.launches
def test_ctrl_c_ends_the_daemon_too(harness: Harness):
    harness.case("slow", "FAKE_FAULT=never_ready")
    run = harness.start(*SHARED, "--cases", "slow")
    run.until_log("slow", "Load weight begin")
    run.process.send_signal(signal.SIGINT)
    assert run.end().status == 130 and harness.left_over() == []


@pytest.mark.launches
def test_a_daemon_that_does_not_start_fails_the_launch_with_what_to_do(harness: Harness):
    harness.env["FAKE_MPS_FAILS"] = "1"
    done = harness.run(*SHARED)
    (launch,) = harness.summary()["launches"]
    assert done.status == 1 and launch["status"] == "failed"
    for text in (launch["reason"], " ".join(done.out.split())):
        assert "--mps: its daemon did not start (see " in text and "ranks take turns" in text
    assert not (harness.logs / f"{launch['label']}_server.log").exists()
    assert harness.left_over() == []


@pytest.mark.launches
def test_no_launch_has_the_daemon_of_another(harness: Harness):
    """One that met a GPU fault under a launch refused the ranks of the next."""
    program = harness.root / "python_one"
    program.write_text(
        "#!/bin/sh\ncase $* in *server.launch\\ *|*launch_server\\ *)\n"
        f'echo "pipes: $CUDA_MPS_PIPE_DIRECTORY"\nesac\nexec "{PYTHON}" "$@"\n'
    )
    program.chmod(0o755)
    harness.case("one", f"PYTHON={program}")
    harness.case("two")
    done = harness.run(*SHARED, "--cases", "one,two")
    assert done.status == 0, done.lines
    logs = [(harness.out / "mps" / f"{name}.log").read_text() for name in ("one", "two")]
    assert all("told to quit" in log for log in logs)
    began = [next(line for line in log.splitlines() if "devices" in line) for log in logs]
    assert began[0] != began[1], "one process was the daemon of both"
    assert f"pipes: {harness.out}/mps/pipe" in (harness.logs / "one_server.log").read_text()
    assert "CUDA_MPS" not in done.out, "what only servers have is no change of the machine"


@pytest.mark.launches
@pytest.mark.parametrize("mps", [True, False])
def test_what_to_do_about_a_gpu_that_refuses_suits_whose_daemon_it_may_be(
    harness: Harness, mps: bool
):
    harness.case("busy", "FAKE_FAULT=die:busy")
    done = harness.run(*[word for word in SHARED if mps or word != "--mps"], "--cases", "busy")
    text = " ".join(done.out.split())
    assert "cause: a GPU is busy or refuses: another process, its compute mode, or an MPS" in text
    own = f"see what its MPS server said ({harness.out}/mps/busy.log) and dmesg"
    assert (own in text) == mps and ("for an MPS daemon of another user" in text) != mps


@pytest.mark.launches
def test_mps_without_its_tool_or_beside_anothers_is_refused(harness: Harness, tmp_path: Path):
    (harness.root / "fake_tools" / "nvidia-cuda-mps-control").unlink()
    there = Path(harness.env["CUDA_MPS_PIPE_DIRECTORY"])
    there.mkdir()
    (there / "control").touch()
    done = harness.run(*SHARED, out=tmp_path / ("o" * 90))
    assert done.status == 2
    text = " ".join(done.own_errors)
    if not any(Path(folder, preflight.MPS).exists() for folder in os.environ["PATH"].split(":")):
        assert "is not on the PATH" in text
    assert "an MPS daemon is at" in text and "too long a path" in text
