"""Result files that are torn, or of something else: a line with the remedy, never a traceback, and
the other launches still count."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from fake_sglang.harness import Done, Harness

from repro_pp_graphs.__main__ import main as command
from repro_pp_graphs.bundle.__main__ import main as bundle

pytestmark = pytest.mark.launches

CONTENTS = {
    "empty": "",
    "zeros": "\0" * 100,
    "cut": None,
    "list": "[]\n",
    "null": "null\n",
    "other keys": '{"name": "someone else", "version": 3}\n',
    "other types": None,
}
SPOILT = {  # a value of another type, by file
    "run.json": {"launches": {}, "batch": "2"},
    "one_launch.json": {"status": 3, "warnings": "none"},
    "one_client.json": {"summary": []},
    "one_analysis.json": {"ranks": [], "token_return": 5},
    "env.json": {"summary": "x", "gpus": [1]},
    "summary.json": {"launches": 3},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """A run of two launches."""
    with Harness(tmp_path_factory.mktemp("torn") / "r") as harness:
        harness.case("one")
        harness.case("two")
        done = harness.run("--cases", "one,two")
        assert done.status == 0, done.lines
        yield harness


def spoil(path: Path, how: str) -> None:
    whole = path.read_text()
    text = CONTENTS[how]
    if how == "cut":
        text = whole[: len(whole) // 2]
    elif how == "other types":
        text = json.dumps({**json.loads(whole), **SPOILT[path.name]})
    path.write_text(text)


def summary_of(out: Path) -> Done:
    """`python -m repro_pp_graphs summary`, in this process."""
    with redirect_stdout(io.StringIO()) as shown, redirect_stderr(io.StringIO()) as said:
        status = command(["summary", str(out)])
    return Done(status, shown.getvalue(), said.getvalue())


def bundled(out: Path) -> Done:
    """What `collect_env.sh --bundle` becomes (test_collect_env_bundle.py), in this process."""
    with redirect_stdout(io.StringIO()) as shown, redirect_stderr(io.StringIO()) as said:
        status = bundle([str(out)])
    return Done(status, shown.getvalue(), said.getvalue())


def copied(harness: Harness, tmp_path: Path) -> Path:
    return Path(shutil.copytree(harness.out, tmp_path / "out"))


@pytest.mark.parametrize("how", CONTENTS)
@pytest.mark.parametrize("name", [name for name in SPOILT if name != "summary.json"])
def test_summary_says_so_in_a_line_and_counts_the_others(
    name: str, how: str, measured: Harness, tmp_path: Path
):
    out = copied(measured, tmp_path)
    spoil(out / "logs" / name, how)
    done = summary_of(out)
    said = " ".join((done.out + done.err).split())
    assert "Traceback" not in said
    if name == "run.json":
        assert done.status == 2
        assert f"summary: {out}/logs/run.json " in said and "run again" in said
        return
    found = json.loads((out / "logs" / "summary.json").read_text())
    one, two = found["launches"]
    assert two["status"] == "ok" and two["metrics"]["completed"] == 2
    if name == "one_launch.json":
        assert (done.status, one["status"], one["metrics"]) == (1, "unreadable", {})
        assert f"! one: {out}/logs/one_launch.json " in said and "--resume" in said
    if name == "one_client.json":
        assert (done.status, one["status"], one["metrics"]) == (1, "unreadable", {})
        assert "--resume measures that launch again" in said
    if name == "one_analysis.json" and how != "other keys":
        assert (done.status, one["status"], one["token_send_ms"]) == (0, "ok", {})
        assert f"{out}/logs/one_analysis.json" in said and "analyze trace/one" in said


def test_a_summary_is_made_anew_whatever_was_there(measured: Harness, tmp_path: Path):
    out = copied(measured, tmp_path)
    whole = json.loads((out / "logs" / "summary.json").read_text())
    for how in CONTENTS:
        spoil(out / "logs" / "summary.json", how)
        assert summary_of(out).status == 0
        assert json.loads((out / "logs" / "summary.json").read_text()) == whole


def test_files_of_another_launch_are_not_taken(measured: Harness, tmp_path: Path):
    out = copied(measured, tmp_path)
    logs = out / "logs"
    shutil.copy2(logs / "two_client.json", logs / "one_client.json")
    done = summary_of(out)
    said = " ".join(done.out.split())
    one, two = json.loads((logs / "summary.json").read_text())["launches"]
    assert (one["status"], one["metrics"]) == ("unreadable", {})
    assert two["status"] == "ok"
    assert f"{logs}/one_client.json is not what was measured" in said
    facts = json.loads((logs / "one_launch.json").read_text())
    (logs / "one_launch.json").write_text(json.dumps({**facts, "run_id": "another"}))
    assert summary_of(out).status == 1
    assert "one_launch.json is of another run" in " ".join(summary_of(out).out.split())


def test_a_record_cannot_pass_for_another_launch(measured: Harness, tmp_path: Path):
    out = copied(measured, tmp_path)
    path = out / "logs" / "one_launch.json"
    forged = {**json.loads(path.read_text()), "label": "two", "metrics": {"completed": 9}}
    path.write_text(json.dumps(forged))
    summary_of(out)
    one, _ = json.loads((out / "logs" / "summary.json").read_text())["launches"]
    assert (one["label"], one["metrics"]["completed"]) == ("one", 2)


@pytest.mark.parametrize("how", ["empty", "cut", "list", "other keys", "other types"])
def test_the_bundle_stands_a_torn_summary_and_record(how: str, measured: Harness, tmp_path: Path):
    out = copied(measured, tmp_path)
    for name in ("summary.json", "one_launch.json"):
        spoil(out / "logs" / name, how)
    done = bundled(out)
    assert done.status == 0, done.err
    assert "Traceback" not in done.out + done.err
    assert "unreadable" in done.out


@pytest.mark.parametrize("how", ["empty", "cut", "list", "other keys"])
def test_the_bundle_of_a_torn_plan_is_a_line(how: str, measured: Harness, tmp_path: Path):
    out = copied(measured, tmp_path)
    spoil(out / "logs" / "run.json", how)
    done = bundled(out)
    assert done.status == 1
    assert len(done.err.splitlines()) == 1 and "run.json" in done.err, done.err


def test_a_run_over_a_foreign_plan_moves_it_aside(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("one")
        harness.logs.mkdir(parents=True)
        (harness.logs / "run.json").write_text("[]")
        done = harness.run("--cases", "one", "--no-profile")
        assert done.status == 0, done.lines
        (kept,) = (harness.out / "previous").iterdir()
        assert (kept / "logs" / "run.json").read_text() == "[]"
