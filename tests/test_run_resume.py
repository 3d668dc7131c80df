"""--resume: the same run, or a line that names what differs; launches before and after marked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import made_up_run
import pytest
from fake_sglang.harness import Done, Harness

from repro_pp_graphs import files, launch_record, run_record
from repro_pp_graphs.run import clear
from repro_pp_graphs.run.folder import inputs, resume
from repro_pp_graphs.run.plan import options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine.gpus import Gpu

pytestmark = pytest.mark.launches

GIVEN = ("--cases", "good,bad", "--no-profile")
GPU = Gpu("0", "GPU-8f1c", "NVIDIA H200", 143771, 0)


def launch(label: str, **changes) -> Launch:
    fields = {
        **{"case": label, "python": "/usr/bin/python3", "env": {"NCCL_DEBUG": "INFO"}},
        **{"args": ["--port", "30000", "--cuda-graph-bs", "1", "2", "--disable-radix-cache"]},
        **{"port": 30000, "model": "/m", "expects_graphs": True},
    }
    return made_up_run.launch(label, **{**fields, **changes})


def plan(*launches: Launch, **changes) -> Plan:
    fields = {
        **{"inputs": {"prompts.txt": "aa" * 32}, "machine": {"CPU": "x", "GPUs": "a"}},
        **{"run_id": "r", "began": "2026-11-24 03:15:00"},
    }
    return made_up_run.plan(*launches or (launch("A"), launch("B")), **{**fields, **changes})


def with_launch(**changes) -> Plan:
    return plan(launch("A"), launch("B", **changes))


ARGS = launch("A").args


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (plan(batch=8), ["--batch (16 then, 8 now)"]),
        (plan(max_new_tokens=1, with_stack=True), ["--max-new-tokens", "--with-stack"]),
        (plan(profile=False), ["profiled (True then, False now)"]),
        (plan(engine="probe"), ["--engine"]),
        (plan(mode="cpu"), ["mode (gpu then, cpu now)"]),
        (plan(nsys=True), ["--nsys"]),
        (plan(inputs={"prompts.txt": "bb" * 32}), ["prompts.txt has other content"]),
        (
            plan(inputs={"prompts.txt": "aa" * 32, "model /m": "cc"}),
            ["model /m (not recorded then, cc now)"],
        ),
        (plan(machine={"CPU": "x", "GPUs": "b"}), ["machine: GPUs (a then, b now)"]),
        (plan(machine={"host": "h", "CPU": "x"}), ["machine: GPUs", "machine: host (none then"]),
        (plan(launch("A")), ["launches (A, B then; A now)"]),
        (plan(launch("B"), launch("A")), ["launches (A, B then; B, A now)"]),
        (with_launch(python="/p"), ["B: interpreter (/usr/bin/python3 then, /p now)"]),
        (with_launch(sglang_version="0.5.6"), ["B: sglang (0.5.21 then, 0.5.6 now)"]),
        (with_launch(model="/n"), ["B: model (/m then, /n now)"]),
        (with_launch(args=[*ARGS, "--x"]), ["B: --x (none then, set now)"]),
        (with_launch(args=ARGS[:-1]), ["B: --disable-radix-cache (set then, none now)"]),
        (
            with_launch(args=[*ARGS[:4], "4", ARGS[-1]]),
            ["B: --cuda-graph-bs (1 2 then, 1 4 now)"],
        ),
        (
            plan(*(replace(launch(name), args=[*ARGS, "--x"]) for name in "AB")),
            ["--x (none then, set now)"],
        ),
        (with_launch(env={"NCCL_DEBUG": "WARN"}), ["B: NCCL_DEBUG (INFO then, WARN now)"]),
        (with_launch(env={}), ["B: NCCL_DEBUG (INFO then, none now)"]),
    ],
)
def test_what_differs_is_named(tmp_path, now, told):
    found = resume.differences(plan(), now)
    assert len(found) == len(told), found
    for text in told:
        assert any(each.startswith(text) for each in found), found
    reason = resume.refusal(tmp_path, plan(), now)
    assert reason.startswith("--resume: ") and found[0] in reason and "moved aside" in reason


@pytest.mark.parametrize(
    "now",
    [
        plan(),
        plan(gpu_used_mib={"GPU-0": 9}, began="", run_id="", resumed=["x"]),
        plan(*(replace(launch(name), port=1, notes=["n"]) for name in "AB")),
        with_launch(port=31000, args=["--port", "31000", *ARGS[2:]]),
    ],
)
def test_what_decides_nothing_that_is_measured_may_differ(tmp_path, now):
    assert resume.refusal(tmp_path, plan(), now) == ""


def test_many_differences_are_told_in_part(tmp_path):
    now = plan(batch=1, max_new_tokens=1, profile=False, profile_steps=1, nsys=True, engine="x")
    assert "; and 2 more; without" in resume.refusal(tmp_path, plan(), now)


def test_inputs_are_the_contents_of_prompts_client_and_model(tmp_path):
    client = tmp_path / inputs.CLIENT_FOLDER / "reader.py"
    client.parent.mkdir(parents=True)
    for path in (tmp_path / inputs.PROMPTS, tmp_path / inputs.CLIENT, client):
        path.write_text(path.name, encoding="utf-8")
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "weights.safetensors"):
        (model / name).write_text("{}", encoding="utf-8")
    planned = with_launch(model=str(model))
    planned.inputs = inputs.of(planned, tmp_path)
    assert inputs.changed(planned, tmp_path) == []
    files.draft_of(model / "config.json").touch()  # another run is just writing it anew
    assert inputs.changed(planned, tmp_path) == []
    for path, text, name in (
        (tmp_path / "prompts.txt", "other", "prompts.txt"),
        (tmp_path / "client_benchmark.py", "other", "client_benchmark.py"),
        (client, "other", "client_benchmark.py"),
        (model / "config.json", "[]", f"model {model}"),  # of the same length
        (model / "weights.safetensors", "more", f"model {model}"),
        (model / "more.bin", "", f"model {model}"),
    ):
        before = path.read_text(encoding="utf-8") if path.exists() else None
        path.write_text(text, encoding="utf-8")
        assert inputs.changed(planned, tmp_path) == [name]
        path.unlink() if before is None else path.write_text(before, encoding="utf-8")
    (tmp_path / "prompts.txt").unlink()
    assert inputs.changed(planned, tmp_path) == ["prompts.txt"]


def test_gpus_tell_machines_apart_and_without_them_the_host_does():
    assert inputs.machine("gpu", [GPU])["GPUs"] == "NVIDIA H200 GPU-8f1c"
    assert "host" not in inputs.machine("gpu", [GPU])
    assert set(inputs.machine("cpu", [GPU])) == {"host", "CPU"}


def stored(logs: Path, label: str, **facts: object) -> None:
    launch_record.amend(logs, label, **{"status": "ok", "run_id": "r", **facts})
    for name in ("client", "analysis"):
        (logs / f"{label}_{name}.json").write_text('{"summary": {}}', encoding="utf-8")


def break_record(logs: Path) -> None:
    (logs / "B_launch.json").write_text('{"status": "o', encoding="utf-8")


def break_client(logs: Path) -> None:
    (logs / "B_client.json").write_text("", encoding="utf-8")


def drop_analysis(logs: Path) -> None:
    (logs / "B_analysis.json").unlink()


def of_another_run(logs: Path) -> None:
    launch_record.amend(logs, "B", run_id="another")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (break_record, "B_launch.json is cut off"),
        (break_client, "B_client.json is empty"),
        (drop_analysis, "B_analysis.json"),
        (of_another_run, "B_launch.json is of another run"),
    ],
)
def test_a_launch_whose_files_cannot_be_trusted_is_measured_again(
    tmp_path, fault: Callable[[Path], None], told: str
):
    stored(tmp_path, "A")
    stored(tmp_path, "B")
    assert resume.done(tmp_path, plan()) == ({"A", "B"}, [])
    fault(tmp_path)
    done, (line,) = resume.done(tmp_path, plan())
    assert done == {"A"}
    assert line.startswith("B is measured again: ") and told in line


# as run_repro.sh does it


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, list[Done]]]:
    """A run whose second launch failed, three refusals to resume it, the plan of its resume, and
    its resume."""
    with Harness(tmp_path_factory.mktemp("resume") / "r") as harness:
        harness.case("good")
        bad = ["FAKE_FAULT=die:oom", f"FAKE_MENDED={harness.root}/mended"]
        harness.case("bad", *bad)
        done = [harness.run(*GIVEN)]
        prompts = harness.root / "prompts.txt"
        kept = prompts.read_bytes()
        prompts.write_text("another\n")
        harness.case("bad", *bad, "--max-total-tokens 4096")
        done.append(harness.run(*GIVEN, "--resume"))
        prompts.write_bytes(b" \n\n")
        done.append(harness.run(*GIVEN, "--resume"))
        prompts.write_bytes(kept)
        harness.case("bad", *bad)
        plan_text = (harness.logs / "run.json").read_text()
        (harness.logs / "run.json").write_text(plan_text[:-40])
        done.append(harness.run(*GIVEN, "--resume"))
        (harness.logs / "run.json").write_text(plan_text)
        (harness.root / "mended").touch()
        done.append(harness.run(*GIVEN, "--resume", "--dry-run"))
        done.append(harness.run(*GIVEN, "--resume"))
        yield harness, done


def test_prompts_and_arguments_that_differ_are_named_and_nothing_is_touched(
    begun: tuple[Harness, list[Done]],
):
    _, (_, refused, *_) = begun
    assert refused.status == 2 and refused.out == ""
    (told,) = refused.own_errors
    assert "prompts.txt has other content" in told
    assert "bad: --max-total-tokens (16384 then, 4096 now)" in told


def test_prompts_are_read_before_any_server_starts(begun: tuple[Harness, list[Done]]):
    _, (_, _, refused, *_) = begun
    assert refused.status == 2 and refused.out == ""
    (told,) = refused.own_errors
    assert "prompts.txt: it holds no prompt" in told


def test_a_plan_that_is_cut_off_is_a_line_with_what_to_do(begun: tuple[Harness, list[Done]]):
    _, (*_, refused, _, _) = begun
    assert refused.status == 2
    (told,) = refused.own_errors
    assert "run.json is cut off" in told and "without --resume" in told


def test_the_plan_of_a_resume_says_what_is_kept_and_how_long_the_rest_takes(
    begun: tuple[Harness, list[Done]],
):
    _, (*_, planned, done) = begun
    assert planned.status == 0, planned.lines
    for text in (planned.err, done.err):
        assert "resume: the run begun " in text
        assert "1 of 2 launches is kept, the other runs" in " ".join(text.split())
        (time,) = [line for line in text.splitlines() if line.startswith("  time:   ")]
        assert "for 1 launch, as long as those so far" in time
    assert "# good: measured already, is kept" in planned.out
    assert "--max-total-tokens 16384" in planned.out and "# bad\n" in planned.out
    assert "moved:" in done.err and "moved:" not in planned.err


def test_launches_before_and_after_a_resume_are_marked(begun: tuple[Harness, list[Done]]):
    harness, (*_, done) = begun
    assert done.status == 0, done.lines
    summary = harness.summary()
    assert [launch["session"] for launch in summary["launches"]] == [1, 2]
    began, resumed = summary["sessions"]
    assert began == summary["began"] <= resumed
    (row,) = [line for line in done.out.splitlines() if line.startswith("session ")]
    assert row.split() == ["session", "(--resume)", "1", "of", "2", "2", "of", "2"]
    said = " ".join(done.out.split())
    assert f"session 1, begun {began}: good; session 2, begun {resumed}: bad" in said


def test_a_resume_of_what_is_done_runs_nothing_and_marks_nothing(
    begun: tuple[Harness, list[Done]],
):
    harness, _ = begun
    before = harness.summary()
    kept = {name: (harness.out / name).read_bytes() for name in harness.files()}
    done = harness.run(*GIVEN, "--resume")
    assert done.status == 0, done.lines
    assert harness.summary() == before
    changed = {
        name for name in harness.files() if kept.get(name) != (harness.out / name).read_bytes()
    }
    assert changed <= {"logs/run.json"}
    assert (
        json.loads(kept["logs/run.json"])["resumed"]
        == json.loads((harness.logs / "run.json").read_text())["resumed"]
    )


def test_a_block_that_lost_a_launch_runs_again_whole_and_says_so_beforehand(tmp_path: Path):
    given = (*GIVEN, "--rounds", "2")
    with Harness(tmp_path / "r") as harness:
        harness.case("good")
        harness.case("bad", "FAKE_FAULT=die:oom", f"FAKE_MENDED={harness.root}/mended")
        said = " ".join(harness.run(*given).out.split())
        assert "and again the finished launches of the same block" in said
        assert "(good, good_r2)" in said or "(good_r2, good)" in said
        (harness.root / "mended").touch()
        first = (harness.logs / "good_client.json").read_bytes()
        done = harness.run(*given, "--resume")
        assert done.status == 0, done.lines
        told = " ".join(done.err.split())
        assert "2 finished launches are measured again, no launch is kept, all 4 run" in told
        (folder,) = (harness.out / "previous").iterdir()
        assert folder.name in done.err.replace("\n          ", "")
        assert (folder / "logs" / "good_client.json").read_bytes() == first


def test_what_is_resumed_without_a_launch_of_its_own_says_how_long_it_takes(tmp_path, capsys):
    made = plan()
    (tmp_path / "logs").mkdir()
    run_record.save(tmp_path / "logs", made)
    asked = options.parse(["--root", str(tmp_path), "--out", str(tmp_path), "--resume"])
    assert clear.clear_the_way(plan(), asked, made) == set()
    told = " ".join(capsys.readouterr().err.split())
    assert "no launch is kept, both run time: about " in told and "for 2 servers" in told


def test_prompts_that_change_during_a_run_stop_the_launches_after_it(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        # the first launch changes them once it is under way
        hook = f"echo other >'{harness.root}/prompts.txt'"
        harness.case("first")
        harness.case("second")
        path = harness.root / "collect_env.sh"
        path.write_text(f"{path.read_text()}{hook}\n")
        done = harness.run(*GIVEN[2:], "--cases", "first,second")
        assert done.status == 1
        assert harness.statuses() == {"first": "failed", "second": "failed"}
        said = " ".join(done.out.split())
        assert "not begun: prompts.txt changed after the run was planned" in said
        assert not (harness.logs / "first_server.log").exists()
