"""Usage errors and preflight: one line with the remedy, exit 2, nothing started or written."""

from __future__ import annotations

import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from fake_sglang.harness import PYTHON, Done, Harness

pytestmark = pytest.mark.launches


def refusal(done: Done) -> str:
    """The one line that says why; asserts that there is one and that no launch began."""
    assert done.status == 2, done.lines
    assert len(done.own_errors) == 1, done.lines
    assert done.out == "", done.out
    return done.own_errors[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--nope"], "--nope"),
        (["--batch"], "--batch"),
        (["--batch", "many"], "--batch"),
        (["--rounds", "0"], "--rounds"),
        (["--port", "99999"], "--port"),
        (["--start-timeout", "soon"], "--start-timeout"),
        (["--engine", "vllm"], "--engine"),
        (["--cases", ""], "--cases"),
        (["--cases", "graphs_on,graphs_on"], "named twice"),
    ],
)
def test_a_usage_error_is_one_line(options: list[str], told: str, harness: Harness):
    done = harness.start_bare("--out", str(harness.out), "--python", PYTHON, *options).end()
    assert told in refusal(done)
    others = [line for line in done.err.splitlines() if not line.startswith("  ")]
    assert len(others) == 1, done.err
    assert harness.files() == set()


def test_a_usage_error_comes_before_an_environment_is_made(harness: Harness):
    bare = harness.root / "python_without"
    bare.write_text(f'#!/bin/sh\nexec "{PYTHON}" -S "$@"\n')
    bare.chmod(0o755)
    harness.env.update(PYTHON=str(bare), PYTHONPATH="")
    (harness.root / "fake_tools" / "python3").unlink()
    (harness.root / "fake_tools" / "python3").symlink_to(bare)
    told = refusal(harness.start_bare("--cpu", "--batch", "many").end())
    assert "--batch many: not a whole number" in told
    assert not list(harness.root.glob(".venv-*"))


@pytest.mark.parametrize("spelling", [["--max_new_tokens", "5"], ["--max-new-tokens=5"]])
def test_underscores_and_equals_signs_do_as_well(spelling: list[str], harness: Harness):
    done = harness.run("--dry-run", "--cpu", *spelling)
    assert done.status == 0, done.lines
    assert "--max-new-tokens 5" in done.out


def test_help_has_examples_and_exits_0(harness: Harness):
    done = harness.start_bare("--help").end()
    assert done.status == 0
    assert "EXAMPLES" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_a_case_without_its_file_names_those_there_are(harness: Harness):
    told = refusal(harness.run("--cases", "graphs_on,nosuch"))
    assert "server_args_nosuch.txt" in told and "graphs_off" in told


def test_a_port_that_is_taken(harness: Harness):
    with socket.create_server(("127.0.0.1", harness.port)):
        told = refusal(harness.run("--cases", "graphs_on"))
    assert str(harness.port) in told and "--port" in told
    assert f"in use by pid {os.getpid()} (" in told


@pytest.mark.parametrize(("part", "target"), [("logs", "/nowhere"), ("trace", "gone")])
def test_a_link_to_a_folder_that_is_not_there(part: str, target: str, harness: Harness):
    harness.out.mkdir()
    (harness.out / part).symlink_to(target)
    told = refusal(harness.run("--cases", "graphs_on"))
    assert f"{harness.out}/{part}: a link to {target}" in told
    assert [path.name for path in harness.out.iterdir()] == [part]


def test_a_file_where_a_folder_should_be(harness: Harness):
    harness.out.mkdir()
    (harness.out / "trace").write_text("mine")
    assert f"{harness.out}/trace: not a folder" in refusal(harness.run("--cases", "graphs_on"))
    assert (harness.out / "trace").read_text() == "mine"


@pytest.mark.parametrize(
    ("gpus", "offers"), [(1, ["--one-gpu", "--cpu"]), (2, ["--pp-size 2", "--one-gpu", "--cpu"])]
)
def test_fewer_gpus_than_ranks_get_an_offer(gpus: int, offers: list[str], tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 0)] * gpus) as harness:
        told = refusal(harness.run("--dummy-weights"))
        assert "tp x pp" in told
        assert [offer for offer in offers if offer not in told] == []


def test_gpu_memory_that_others_hold(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 0), (81559, 40000)]) as harness:
        given = ("--dummy-weights", "--pp-size", "2", "--layers", "2", "--no-profile")
        told = refusal(harness.run(*given))
        assert "GPU 1" in told and "40000 of 81559" in told and "CUDA_VISIBLE_DEVICES" in told


def test_a_gpu_that_is_not_used_may_be_taken(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 0), (81559, 40000)]) as harness:
        harness.env["CUDA_VISIBLE_DEVICES"] = "0"
        given = ("--dummy-weights", "--pp-size", "1", "--layers", "2", "--no-profile")
        assert harness.run(*given, "--cases", "graphs_on").status == 0


def test_weights_that_cannot_fit(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(24576, 0)] * 4) as harness:
        told = refusal(harness.run("--dummy-weights", "--no-profile"))
        assert "--layers" in told and "141 GB" in told


def test_more_pp_ranks_than_layers(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 0)] * 4) as harness:
        given = ("--dummy-weights", "--pp-size", "4", "--layers", "3", "--no-profile")
        told = refusal(harness.run(*given))
        assert "--pp-size 4" in told and "3 layers" in told
        folder = tmp_path / "mine"
        folder.mkdir()
        (folder / "config.json").write_text('{"text_config": {"num_hidden_layers": 2}}')
        told = refusal(harness.run("--model", str(folder), "--pp-size", "3", "--no-profile"))
        assert "mine has 2 layers" in told


def test_a_model_folder_without_a_config(harness: Harness, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    told = refusal(harness.run("--model", str(empty)))
    assert str(empty) in told and "config.json" in told


def test_nsys_where_there_is_none(harness: Harness):
    folders = harness.env["PATH"].split(":")
    harness.env["PATH"] = ":".join(f for f in folders if not shutil.which("nsys", path=f))
    told = refusal(harness.run("--nsys"))
    assert "nsys is not on the PATH" in told


def test_an_interpreter_without_sglang(harness: Harness):
    bare = harness.root / "python_without"
    bare.write_text(f'#!/bin/sh\nexec "{PYTHON}" -I -S "$@"\n')
    bare.chmod(0o755)
    told = refusal(harness.run("--python", str(bare)))
    assert str(bare) in told and "sglang" in told


def test_a_cases_own_interpreter_without_sglang(harness: Harness):
    bare = harness.root / "python_without"
    bare.write_text(f'#!/bin/sh\nexec "{PYTHON}" -I -S "$@"\n')
    bare.chmod(0o755)
    harness.case("other", f"PYTHON={bare}")
    assert str(bare) in refusal(harness.run("--cases", "other"))


@pytest.mark.parametrize("line", ["--api-key hush-hush", "HF_TOKEN=hush-hush"])
def test_a_secret_in_an_argument_file_is_refused_and_not_shown(line: str, harness: Harness):
    harness.case("keyed", line)
    done = harness.run("--cases", "keyed")
    assert "server_args_keyed.txt:2" in refusal(done)
    assert "hush-hush" not in done.out + done.err


def test_an_argument_that_the_release_lacks(harness: Harness):
    harness.case("odd", "--disable-cuda-graphs")
    told = refusal(harness.run("--cases", "odd"))
    assert "--disable-cuda-graphs" in told and "did you mean --disable-cuda-graph?" in told


def test_a_dry_run_runs_nothing_and_writes_nothing(harness: Harness):
    with socket.create_server(("127.0.0.1", harness.port)):
        done = harness.run("--dry-run")
    assert done.status == 2, done.lines
    assert not harness.out.exists()
    assert "sglang.launch_server" in done.out or "repro_pp_graphs.server.launch" in done.out
    assert "client_benchmark.py" in done.out
    assert "CASE_B_no_graphs_chrome_trace.json" in done.out
    (told,) = stops(done)
    assert f"stop the run: port {harness.port} is in use" in told


def stops(done: Done) -> list[str]:
    """What a dry run says would stop the run."""
    said = re.sub(r"\n# {2,}", " ", "".join(done.out.partition("# would stop")[1:]))
    return said.splitlines()


def test_a_dry_run_for_another_machine_is_not_stopped_by_what_this_one_lacks(harness: Harness):
    asked = ("--dry-run", "--gpus", "4", "--dummy-weights")
    with socket.create_server(("127.0.0.1", harness.port)):
        fits = harness.run(*asked, "--layers", "16")
        heavy = harness.run(*asked, "--pp-size", "1", "--gpus", "1")
    assert fits.status == 0, fits.lines
    (told,) = stops(fits)
    assert told.startswith(f"# would stop the run on this machine: port {harness.port} is in use")
    assert heavy.status == 2, heavy.lines
    told, here = stops(heavy)
    assert "stop the run: " in told and "GB of weights" in told
    assert "on this machine: port" in here


def test_a_dry_run_foresees_what_a_run_would_refuse_of_its_folder(harness: Harness):
    given = ("--cases", harness.case("one"), "--no-profile")
    assert harness.run(*given).status == 0
    for more, told in [
        (["--resume", "--batch", "3"], "--resume: not as in"),
        (["--resume"], ""),
        ([], ""),
    ]:
        planned = harness.run(*given, *more, "--dry-run")
        assert planned.status == (2 if told else 0), planned.lines
        assert [told in line for line in stops(planned)] == [True] * bool(told)
    (harness.out / "run.lock").write_text("mine")
    planned = harness.run(*given, "--dry-run")
    assert planned.status == 2 and "run.lock is no lock of this harness" in stops(planned)[0]
    below = harness.run(*given, "--dry-run", out=harness.out / "run.lock" / "below")
    assert below.status == 2 and "run.lock is not a folder" in stops(below)[0]
    assert (harness.out / "run.lock").read_text() == "mine"


def test_a_dry_run_of_what_can_run_has_no_complaints(harness: Harness):
    done = harness.run("--dry-run", "--pp-size", "2")
    assert done.status == 0, done.lines
    assert "would stop" not in done.out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "it holds no prompt"),
        (b"\n \n\t\n", "it holds no prompt"),
        (b"caf\xe9\n", "not UTF-8"),
    ],
)
def test_prompts_that_the_client_could_not_read(content: bytes | None, told: str, harness: Harness):
    path = harness.root / "prompts.txt"
    path.unlink() if content is None else path.write_bytes(content)
    said = refusal(harness.run("--cases", "graphs_on"))
    assert str(path) in said and told in said


def test_every_argument_file_is_read_before_the_first_server_starts(harness: Harness):
    harness.case("good")
    harness.case("odd", "--mem-fraction-static 0.5 --port 1")
    assert "server_args_odd.txt:2" in refusal(harness.run("--cases", "good,odd"))
    for line in ("--max-total-tokens", "--max-total-tokens many", "--disable-radix-cache 1"):
        harness.case("odd", line)
        told = refusal(harness.run("--cases", "good,odd"))
        assert line.split()[0] in told and "server_args_" in told


def test_a_host_that_is_not_this_machine(harness: Harness):
    harness.case("far", "--host 192.0.2.1")
    told = refusal(harness.run("--cases", "far"))
    assert "--host 192.0.2.1" in told and "--host 127.0.0.1" in told


def test_a_label_that_is_the_side_by_side_traces_name(harness: Harness):
    harness.case("CASE_A_1")
    harness.case("CASE_B_1")
    harness.case("A_vs_B")
    told = refusal(harness.run("--cases", "CASE_A_1,CASE_B_1,A_vs_B"))
    assert "label 'A_vs_B': files of a run have that name" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_results_that_cannot_be_written(harness: Harness, tmp_path: Path):
    out = tmp_path / "locked" / "out"
    out.parent.mkdir(0o555)
    assert str(out) in refusal(harness.run("--cases", "graphs_on", out=out))


@pytest.mark.parametrize(
    ("script", "visible_devices", "told"),
    [
        ("exec sleep 600", None, "has not answered in 1 s"),
        ("echo 'Failed to initialize NVML'; exit 18", None, "Failed to initialize NVML"),
        ("", "MIG-11111111-2222-3333-4444-555555555555", "lists no such device"),
        ("", "7", "lists no such device"),
    ],
)
def test_gpus_that_cannot_be_counted_stop_the_run_and_never_become_a_rehearsal(
    script: str, visible_devices: str | None, told: str, tmp_path: Path
):
    with Harness(tmp_path / "r", gpus=[(81559, 0)] * 2) as harness:
        limit_s = "1.0" if "sleep" in script else "600.0"
        harness.replace("server/machine/gpus.py", "LIMIT_S = 10.0", f"LIMIT_S = {limit_s}")
        if script:
            (harness.root / "fake_tools" / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        if visible_devices:
            harness.env["CUDA_VISIBLE_DEVICES"] = visible_devices
        options = ("--pp-size", "2", "--dummy-weights", "--layers", "2")
        said = refusal(harness.run(*options))
        assert told in said and "--cpu for a rehearsal" in said
        # asked for, a rehearsal needs no GPU to answer
        given = ("--cases", "graphs_on", "--no-profile", "--cpu", *options[:2])
        planned = ["--dry-run"] * ("sleep" not in script)
        assert harness.run(*given, *planned).status == 0


def test_hidden_gpus_are_named_where_a_rehearsal_begins(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=[(81559, 0)] * 2) as harness:
        harness.env["CUDA_VISIBLE_DEVICES"] = "-1"
        done = harness.run("--dry-run")
        assert "hides 2 GPU(s)" in done.err and "REHEARSAL" in done.err
