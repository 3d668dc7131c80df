"""The probe on the CPU: every send path, its JSON and traces, and the traces against the truth."""

from __future__ import annotations

import json
import subprocess

import pytest
from examples import THOROUGH
from probe_harness import CHECKOUT, PYTHON, Probe

from repro_pp_graphs.traces.commands.analyze import main as analyze

pytestmark = pytest.mark.launches

SENDS = ["blocking", "async", "comm_stream", "event_send", "batched_p2p"]
# a share, not all: a rank can be preempted between its note and its call
SHARE_THAT_FITS = 0.5
TRIES = 4  # and a busy machine preempts often; a wrong reading is wrong every time


# of a scheduler's job, say: they must not make a rank of the launcher
CLUSTER = {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1", "MASTER_ADDR": "192.0.2.1"}


def finished(folder, *argv, env=None):
    """The JSON and what was printed of a run that went well."""
    with Probe(folder, *argv, "--json", "a/r.json", env=env) as probe:
        status, out, err = probe.end()
    assert (status, err) == (0, "")
    return json.loads((folder / "a/r.json").read_text()), out


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """Two ranks, every send path, with traces, among a cluster's variables; the folder, the JSON
    and what was printed."""
    folder = tmp_path_factory.mktemp("two ranks")
    argv = ["--ranks", "2", "--steps", "6", "--trace", "t"]
    return folder, *finished(folder, *argv, env=CLUSTER)


def three(folder):
    """Three ranks, more micro-batches than ranks, one step. (In threads: test_probe_order.py)"""
    argv = ["--ranks", "3", "--micro-batches", "4", "--layers", "4", "--steps", "1"]
    return finished(folder, *argv)


@pytest.fixture(scope="module")
def printed(traced, tmp_path_factory):
    """Ranks, sends of a path, the JSON and what was printed."""
    found = [(2, 2 * 6, *traced[1:])]
    return [*found, (3, 4 * 1, *three(tmp_path_factory.mktemp("three")))] if THOROUGH else found


def test_all_send_paths_are_measured_and_marked_probe(printed):
    for _, sends, document, _ in printed:
        assert (document["schema"], document["probe"]) == (1, True)
        assert [row["send"] for row in document["rows"]] == SENDS
        assert {row["graphs"] for row in document["rows"]} == {"off"}
        assert all(row["step_ms"] > 0 and row["tokens_per_s"] > 0 for row in document["rows"])
        assert [row["sends_counted"] for row in document["rows"]] == [sends] * 5


def test_the_parts_of_the_sends_add_up_in_the_rows(traced):
    for row in traced[1]["rows"]:
        parts = row["own_ms"] + row["late_peer_ms"] + row["rest_ms"]
        assert min(row["own_ms"], row["late_peer_ms"], row["rest_ms"]) >= 0
        assert parts <= row["delivered_own_ms"] + row["delivered_late_peer_ms"] + (
            row["delivered_rest_ms"]) + 1e-6  # fmt: skip


def test_the_screen_fits_80_columns_and_has_every_path(printed):
    for ranks, _, _, out in printed:
        assert out.startswith(f"PROBE (no sglang): {ranks} ranks on cpu\n")
        table = out.split("trace analysis")[0]
        assert {line.split()[1] for line in table.splitlines() if line[:4] == "off "} == {*SENDS}
        assert [line for line in out.splitlines() if len(line) > 79] == []


@pytest.mark.parametrize("send", ["blocking", "async", "comm_stream", "event_send"])
def test_every_pair_of_the_analyser_is_right_and_most_times_fit(traced, tmp_path, send):
    argv = ["--ranks", "2", "--steps", "6", "--send", send, "--trace", "t"]
    document, shares = traced[1], []
    while not shares or (max(shares) < SHARE_THAT_FITS and len(shares) < TRIES):
        if shares:
            document, _ = finished(tmp_path / str(len(shares)), *argv)
        (truth,) = (each for each in document["truth"] if each["send"] == send)
        assert truth["pairs"] > 50 and truth["right"] == truth["pairs"]
        assert truth["uneven"] == [] and truth["without_peer"] == 0 < truth["times"]
        shares.append(truth["within"] / truth["times"])
    assert max(shares) >= SHARE_THAT_FITS, shares


def test_what_is_received_in_batches_is_not_paired(traced):
    (truth,) = (each for each in traced[1]["truth"] if each["send"] == "batched_p2p")
    assert truth["uneven"] == [] and truth["without_peer"] == 0
    # rank 1 receives two messages a batch, two thirds of all; rank 0 one
    assert truth["pairs"] <= truth["messages"] // 2


def test_analyze_reads_a_paths_folder_as_one_case_of_all_ranks(traced):
    folder, _, _ = traced
    command = [PYTHON, "-m", "repro_pp_graphs", "analyze", str(folder / "t/graphs_off_async")]
    subprocess.run(
        [*command, "--json", str(folder / "a.json")], cwd=CHECKOUT, check=True, capture_output=True
    )
    found = json.loads((folder / "a.json").read_text())
    assert found["pp_size"] == 2
    assert {(edge["src"], edge["dst"]) for edge in found["p2p"]} == {(0, 1), (1, 0)}


def test_an_analysis_whose_json_cannot_be_written_is_still_shown(traced, capsys):
    folder, _, _ = traced
    assert analyze([str(folder / "t/graphs_off_async"), "--json", str(folder)]) == 1
    shown = capsys.readouterr()
    assert shown.out and "cannot be written (Is a directory)" in shown.err.replace("\n", " ")


def test_a_rank_computes_the_same_with_torchrun_and_one_report_is_printed(tmp_path):
    module = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    argv = ["--send", "blocking", "--graphs", "off", "--steps", "3", "--json", "r.json"]
    argv += ["--trace", "t"] if THOROUGH else []  # a profiler takes a second of CPU a rank
    with Probe(tmp_path, *argv, module=module) as probe:
        status, out, _ = probe.end()
    assert status == 0 and out.count("PROBE (no sglang): 2 ranks") == 1
    assert json.loads((tmp_path / "r.json").read_text())["options"]["ranks"] == 2
    assert len(list((tmp_path / "t").glob("*.trace.json.gz"))) == (2 if THOROUGH else 0)


@pytest.mark.parametrize("module", ["torch", "numpy"])
def test_without_what_it_needs_it_says_what_to_install(tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules['{module}'] = None")
    with Probe(tmp_path) as probe:
        status, out, err = probe.end()
    assert (status, out) == (2, "") and f"probe: no module '{module}': " in err
    assert f"-m pip install {module}" in err and "Traceback" not in err


def test_a_place_that_cannot_be_written_is_refused_before_any_rank_starts(tmp_path):
    (tmp_path / "file").touch()
    with Probe(tmp_path, "--json", "file/r.json") as probe:
        status, out, err = probe.end()
    assert (status, out, err.count("\n")) == (2, "", 1) and "--json file/r.json" in err


def test_graphs_on_a_cpu_are_refused(tmp_path):
    with Probe(tmp_path, "--graphs", "on") as probe:
        status, out, err = probe.end()
    assert (status, out) == (2, "") and "CUDA graphs need a GPU" in err
