"""Files and servers of another origin: never taken for a launch's own, moved aside or named."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import Done, Harness, at_once, wait_until

pytestmark = pytest.mark.launches


def without(harness: Harness, earlier: Path, names: tuple[str, ...]) -> Done:
    """Run over some of what an earlier run left, with a server that dies as it profiles."""
    harness.case("one", "FAKE_FAULT=die_profile")
    shutil.copytree(earlier, harness.out)
    for name in names:
        path = harness.out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return harness.run("--cases", "one")


def with_foreign_files(harness: Harness) -> Done:
    """Results by the names of a launch's own, that no run of this folder left."""
    harness.case("one")
    for name in ("logs/one_client.json", "trace/one/1-TP-0-PP-0.trace.json.gz", "logs/env.json"):
        path = harness.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("foreign")
    for name in ("logs/of_the_user.log", "trace/notes/mine.txt"):
        path = harness.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("the user's")
    return harness.run("--cases", "one")


def run_fault(harness: Harness, fault: str, *options: str) -> Done:
    harness.case("one", f"FAKE_FAULT={fault}")
    return harness.run("--cases", "one", *options)


# name -> (release, what runs)
SCENES = {
    "foreign": ("0.5.16", with_foreign_files),
    "late_traces": ("0.5.16", partial(run_fault, fault="foreign_traces")),
    "late_traces_old": ("0.5.2", partial(run_fault, fault="foreign_traces")),
    "usurped": ("0.5.16", partial(run_fault, fault="usurped")),
}
LEFT = {"no_logs": ("logs",)}
if THOROUGH:
    LEFT |= {"no_plan": ("logs/run.json",), "no_trace_folder": ("trace",)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Harness, Done]]]:
    """Every scene, several at once."""
    root = tmp_path_factory.mktemp("origin")
    with Harness(root / "earlier") as earlier:
        earlier.case("one")
        assert earlier.run("--cases", "one").status == 0
    over = {name: partial(without, earlier=earlier.out, names=LEFT[name]) for name in LEFT}
    scenes = SCENES | {name: ("0.5.16", run) for name, run in over.items()}
    made = {name: Harness(root / name, version) for name, (version, _) in scenes.items()}
    done = at_once({name: partial(run, made[name]) for name, (_, run) in scenes.items()})
    yield {name: (made[name], done[name]) for name in scenes}
    for harness in made.values():
        harness.__exit__()


@pytest.mark.parametrize("name", LEFT)
def test_traces_of_an_earlier_run_are_not_taken_for_those_of_a_server_that_died(
    name: str, scenes: dict[str, tuple[Harness, Done]]
):
    harness, done = scenes[name]
    assert done.status == 1, done.lines
    (launch,) = harness.summary()["launches"]
    assert launch["status"] == "failed"
    assert "0 of 2 ranks' traces are whole" in launch["reason"]
    assert launch["metrics"]["completed"] > 0, "what this launch measured is lost"
    assert not (harness.out / "trace/one_chrome_trace.json").exists()
    assert list((harness.out / "trace/one").iterdir()) == []


def test_what_was_moved_aside_is_named_and_whole(scenes: dict[str, tuple[Harness, Done]]):
    harness, done = scenes["no_logs"]
    said = " ".join(done.err.split())
    assert "not of this run: trace/one, trace/one_chrome_trace.json; moved to" in said
    (kept,) = (harness.out / "previous").iterdir()
    assert str(kept) in said
    assert len(list((kept / "trace/one").glob("*.trace.json.gz"))) == 2
    assert (kept / "trace/one_chrome_trace.json").exists()


def test_only_what_a_run_would_write_is_moved(scenes: dict[str, tuple[Harness, Done]]):
    harness, done = scenes["foreign"]
    assert done.status == 0, done.lines
    assert (harness.logs / "of_the_user.log").read_text() == "the user's"
    assert (harness.out / "trace/notes/mine.txt").read_text() == "the user's"
    (kept,) = (harness.out / "previous").iterdir()
    files = {str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()}
    wanted = {"logs/one_client.json", "logs/env.json", "trace/one/1-TP-0-PP-0.trace.json.gz"}
    assert files == wanted
    assert harness.summary()["launches"][0]["metrics"]["completed"] == 2


@pytest.mark.parametrize("name", ["late_traces", "late_traces_old"])
def test_what_another_server_writes_into_the_folder_is_moved_out_before_it_is_merged(
    name: str, scenes: dict[str, tuple[Harness, Done]]
):
    harness, done = scenes[name]
    assert done.status == 0, done.lines
    stems = {path.name.partition("-")[0] for path in (harness.out / "trace/one").iterdir()}
    assert len(stems) == 1 and "1790000000.5" not in stems
    moved = list((harness.out / "previous").glob("*_other_*/trace/one/1790000000.5-*"))
    assert len(moved) == 2
    said = " ".join(done.out.split())
    assert "not of this launch: trace/one/1790000000.5-TP-0-PP-0.trace.json.gz" in said
    (launch,) = harness.summary()["launches"]
    assert any("not of this launch" in text for text in launch["warnings"])
    merged = json.loads((harness.out / "trace/one_chrome_trace.json").read_text())
    (names,) = merged["mergedFrom"].values()
    assert len(names) == 2 and not [each for each in names if each.startswith("1790000000.5")]


def test_a_server_that_was_not_started_here_is_not_measured(
    scenes: dict[str, tuple[Harness, Done]],
):
    harness, done = scenes["usurped"]
    assert done.status == 1, done.lines
    said = " ".join(done.out.split())
    assert f"port {harness.port} is answered by pid" in said
    assert "cause: another server on its port" in said and "--port" in said
    assert f"server's end: port {harness.port}, by pid" in said
    (launch,) = harness.summary()["launches"]
    assert (launch["status"], launch["metrics"]) == ("failed", {})
    assert [line for line in harness.left_over() if "standin_server" in line], "not ours to end"


def test_a_second_run_in_the_same_folder_refuses_in_a_line_and_touches_nothing(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("busy", "FAKE_ITL_MS=600000")
        running = harness.start("--cases", "busy", "--no-profile")
        running.until_log("busy", "Decode batch")
        before = harness.files()
        planned = harness.run("--dry-run", "--cases", "busy")
        assert planned.status == 2 and f"pid {running.process.pid} on " in planned.out
        for options in ((), ("--resume",)):
            second = harness.run("--cases", "busy", "--no-profile", *options)
            assert second.status == 2 and second.out == ""
            (told,) = second.own_errors
            assert f"pid {running.process.pid} on " in told and "another --out" in told
        assert harness.files() == before
        running.process.send_signal(signal.SIGINT)
        assert running.end().status == 130
        assert not (harness.out / "run.lock").exists()
        assert harness.statuses() == {"busy": "interrupted"}


def test_two_runs_that_start_together_leave_one_at_work(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("busy", "FAKE_ITL_MS=600000")
        both = [harness.start("--cases", "busy", "--no-profile") for _ in range(2)]
        wait_until(lambda: [each for each in both if each.process.poll() is not None])
        both.sort(key=lambda running: running.process.poll() is None)
        assert both[0].end().status == 2
        both[1].until_log("busy", "Decode batch")
        both[1].process.send_signal(signal.SIGINT)
        assert both[1].end().status == 130
        assert harness.statuses() == {"busy": "interrupted"}
        assert not (harness.out / "previous").exists()


def test_the_lock_that_kill_9_left_is_taken_over_with_a_word(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("busy", "FAKE_ITL_MS=600000")
        harness.case("good")
        running = harness.start("--cases", "busy", "--no-profile")
        running.until_log("busy", "Decode batch")
        running.process.kill()
        running.process.wait()
        assert (harness.out / "run.lock").exists()
        done = harness.run("--cases", "good", "--no-profile")
        assert done.status == 0, done.lines
        said = " ".join(done.err.split())
        assert f"of a run that has ended (pid {running.process.pid}): taken over" in said
        assert not (harness.out / "run.lock").exists()
