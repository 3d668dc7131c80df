"""run_repro.sh --engine probe: the same files and table as a run of sglang, marked probe."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from examples import THOROUGH
from programs import ran

from repro_pp_graphs.bundle import issue

pytestmark = pytest.mark.launches

ROOT = Path(__file__).resolve().parents[1]
CASES = {"graphs_on": "CASE_A_decode_graphs", "graphs_off": "CASE_B_no_graphs"}
if not THOROUGH:  # a case is 5 s of CPU; how two stand beside one another: test_run_results.py
    del CASES["graphs_off"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return ran(
        ["bash", str(ROOT / "run_repro.sh"), "--engine", "probe", "--cpu", *options],
        env={**os.environ, "PYTHON": os.environ.get("REPRO_SERVER_PYTHON", "python3")},
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("probe run")
    load = ("--pp-size", "2", "--batch", "4", "--max-new-tokens", "16")
    done = run("--cases", ",".join(CASES), *load, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout


def test_leaves_the_files_of_the_contract(finished):
    out, _ = finished
    for label in CASES.values():
        for name in ("probe.log", "client.log", "client.json", "probe.json", "analysis.json"):
            assert (out / "logs" / f"{label}_{name}").exists()
        assert len(list((out / "trace" / label).glob("*.trace.json.gz"))) == 2
        merged = json.loads((out / "trace" / f"{label}_chrome_trace.json").read_text())
        assert merged["traceEvents"]


def test_marks_every_number_as_the_probes(finished):
    out, printed = finished
    summary = json.loads((out / "logs/summary.json").read_text())
    assert summary["engine"] == "probe" and summary["rehearsal"] and summary["complete"]
    assert "PROBE" in printed and "REHEARSAL" in printed
    assert max(map(len, printed.splitlines()[:20])) <= 80


def test_the_hint_names_what_a_rehearsals_traces_hold(finished):
    out, printed = finished
    assert "type DECODE" in printed and "cudagraph" not in printed
    merged = (out / "trace" / "CASE_A_decode_graphs_chrome_trace.json").read_text()
    assert "[DECODE" in merged


def test_its_issue_text_speaks_of_the_probe(finished):
    text = issue.text_of(finished[0])
    assert "without sglang (`python -m repro_pp_graphs probe`): 2 ranks, torch " in text
    reported = text.partition("### Environment")[0]
    for words in ("sglang none", "127.0.0.1", "Model:"):
        assert words not in reported
    assert text.count("-m repro_pp_graphs probe --ranks 2") == len(CASES)
    command = (finished[0] / "logs/CASE_A_decode_graphs_probe_command.sh").read_text()
    assert "# The probe of CASE_A_decode_graphs" in command


def test_counts_every_token_of_every_sequence(finished):
    out, _ = finished
    client = json.loads((out / "logs/CASE_A_decode_graphs_client.json").read_text())
    assert client["schema"] == 1
    assert [request["tokens"] for request in client["requests"]] == [16] * 4
    for request in client["requests"]:
        times = [arrival_ns for arrival_ns, _ in request["events"]]
        assert times == sorted(times) and times[0] > request["start_ns"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pp-size", "1"], "a ring of 1"),
        (["--pp-size", "4", "--batch", "6"], "not a multiple of the 4 micro-batches"),
        (["--nsys"], "not under --nsys"),
        (["--cases", "graphs_on,sync_send"], "graphs_on sends so already"),
        (["--pp-size", "4", "--layers", "3"], "fewer than the 4 ranks"),
        (["--model", "x"], "it has no model"),
        (["--cases", "nothing"], "there is no server_args_nothing.txt"),
    ],
)
def test_refuses_in_one_line(tmp_path, options, message):
    done = run(*options, "--out", str(tmp_path))
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_dry_run_shows_the_probe_of_each_case(tmp_path):
    cases = "graphs_on,comm_overlap"
    done = run("--dry-run", "--cases", cases, "--pp-size", "2", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for words in ("--send blocking", "--send comm_stream"):
        assert words in done.stdout.replace(" \\\n ", "")
    assert not list(tmp_path.iterdir())
