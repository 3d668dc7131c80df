"""The main job on the real sglang: run_repro.sh on the CPU with two PP ranks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import free_port
from programs import ran

from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.server.release import installed
from repro_pp_graphs.server.release.installed import CachedProbe, ProbeError

ROOT = Path(__file__).resolve().parents[1]
LABELS = ("CASE_A_decode_graphs", "CASE_B_no_graphs")
PYTHON = os.environ.get("REPRO_SERVER_PYTHON", sys.executable)

# the load that a rehearsal has by itself, or a third of it: the servers' starts are the same
TOKENS, SIZES = (48, []) if THOROUGH else (16, ["--max-new-tokens", "16", "--profile-steps", "12"])

# In every process of its servers. A sixth of what each computes is looking for garbage among its
# imports. sglang spawns its ranks and its detokenizer, and each imports it anew, 6 s of CPU: so do
# all with --thorough, else the first rank of the first launch; what is forked is of a process that
# has imported it.
SITE = """
import gc, os, sys

gc.set_threshold(50_000, 20, 20)
if not os.environ.get("REPRO_THOROUGH"):
    import multiprocessing
    from multiprocessing import context

    spawned = [] if "--disable-cuda-graph" not in sys.orig_argv else ["none of this launch"]

    def popen(process):
        how = context.ForkProcess if spawned else context.SpawnProcess
        spawned.append(process.name)
        return how._Popen(process)

    context.Process._Popen = staticmethod(popen)
"""

pytestmark = pytest.mark.rehearsal


def has_sglang() -> bool:
    find = "import importlib.util as u, sys; sys.exit(u.find_spec('sglang') is None)"
    return subprocess.run([PYTHON, "-c", find], check=False).returncode == 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One A/B; the folder it left and what it printed."""
    if not has_sglang():
        pytest.skip(f"needs sglang in {PYTHON} (tests/run.sh makes it)")
    out = tmp_path_factory.mktemp("a b")
    port = free_port()
    command = ["bash", str(ROOT / "run_repro.sh"), "--cpu", "--python", PYTHON]
    command += ["--port", str(port), "--out", str(out), *SIZES]
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(SITE)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = ran(command, env={**os.environ, "PYTHONPATH": path}, cwd=out)
    logs = "\n".join(path.read_text()[-3000:] for path in out.glob("logs/*_server.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return out, done.stdout + done.stderr, port


def test_the_names_kept_of_a_release_are_those_of_the_arguments_that_it_takes(run):
    plan = json.loads((run[0] / "logs/run.json").read_text())["launches"][0]
    found = CachedProbe(ROOT / ".state/releases", dry_run=True)(PYTHON, plan["env"])
    assert found.flags == environments.arguments(ROOT, found.version)


@pytest.fixture
def asked_once(monkeypatch):
    """A question to an interpreter is asked once: each imports sglang, seconds of CPU."""
    answers: dict[str, installed.Release | ProbeError] = {}

    def probe(python: str, env: dict[str, str]) -> installed.Release:
        key = json.dumps([python, env], sort_keys=True)
        if key not in answers:
            try:
                answers[key] = ask(python, env)
            except ProbeError as error:
                answers[key] = error
        if isinstance(answers[key], ProbeError):
            raise answers[key]
        return answers[key]

    ask = installed.probe
    monkeypatch.setattr(installed, "probe", probe)


@pytest.mark.usefixtures("asked_once")
def test_a_plan_for_gpus_is_the_same_before_and_after_a_rehearsal(run, tmp_path):
    """Whose torch is built for the CPU alone: its sglang loads as a rehearsal's does, no other."""
    plan = json.loads((run[0] / "logs/run.json").read_text())["launches"][0]
    fresh = CachedProbe(tmp_path / "fresh", dry_run=True, assumed=True)(PYTHON, {})
    if not fresh.cpu_torch:
        pytest.skip(f"torch of {PYTHON} is a CUDA build")
    kept = shutil.copytree(ROOT / ".state/releases", tmp_path / "kept")  # with that run's answer
    rehearsed = CachedProbe(kept, dry_run=True)(PYTHON, plan["env"])
    assert fresh == rehearsed == CachedProbe(kept, dry_run=True, assumed=True)(PYTHON, {})
    with pytest.raises(ProbeError, match="built for the CPU alone"):
        CachedProbe(kept, dry_run=True)(PYTHON, {})


def test_every_launch_is_measured_and_named_a_rehearsal(run):
    out, text, _ = run
    summary = json.loads((out / "logs/summary.json").read_text())
    assert summary["rehearsal"] and summary["complete"]
    assert [launch["status"] for launch in summary["launches"]] == ["ok", "ok"]
    assert "REHEARSAL" in text
    for launch in summary["launches"]:
        assert launch["resolved"]["pp_size"] == 2
        assert launch["graph_state"]["decode_lines"] > 0
        assert launch["graph_state"]["with_graph"] == 0
        assert set(launch["graph_state"]["launches"].values()) == {0}


@pytest.mark.parametrize("label", LABELS)
def test_the_client_counts_every_token(run, label):
    out, _, _ = run
    client = json.loads((out / f"logs/{label}_client.json").read_text())
    assert [request["tokens"] for request in client["requests"]] == [TOKENS] * 8
    assert all(request["error"] is None for request in client["requests"])
    assert client["summary"]["median_itl_ms"] > 0


@pytest.mark.parametrize("label", LABELS)
def test_both_ranks_are_in_the_merged_trace(run, label):
    out, _, _ = run
    assert len(list((out / f"trace/{label}").glob("*-PP-[01].trace.json.gz"))) == 2
    merged = json.loads((out / f"trace/{label}_chrome_trace.json").read_text())
    names = {
        event["args"]["name"]
        for event in merged["traceEvents"]
        if event.get("ph") == "M" and event["name"] == "process_name"
    }
    assert any(name.startswith("PP0") for name in names)
    assert any(name.startswith("PP1") for name in names)


@pytest.mark.parametrize("label", LABELS)
def test_the_ring_s_messages_are_paired(run, label):
    out, _, _ = run
    analysis = json.loads((out / f"logs/{label}_analysis.json").read_text())
    assert analysis["pp_size"] == 2
    edges = {(edge["src"], edge["dst"]): edge for edge in analysis["p2p"]}
    for edge in (edges[0, 1], edges[1, 0]):
        assert edge["pairs"] > edge["sends"] / 2, analysis["warnings"]
    assert analysis["token_return"]["steps"] > 0
    for rank in analysis["ranks"].values():  # the batch in which the profiler stops is none
        assert rank["batches"] == sum(rank["modes"].values())


@pytest.mark.parametrize("label", LABELS)
def test_every_rank_s_turns_are_timed(run, label):
    clock = json.loads((run[0] / f"logs/{label}_pp_clock.json").read_text())
    turns = {name: rank["measured"]["decode"]["turn"] for name, rank in clock["ranks"].items()}
    assert {name: turn["count"] > 0 for name, turn in turns.items()} == {"PP0": True, "PP1": True}


def test_nothing_is_left_running(run):
    out, _, port = run
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    records = (ROOT / ".state/groups").glob("*")
    # of this run; another of this checkout may be at work
    assert not [path for path in records if f" {out}" in path.read_text()]
