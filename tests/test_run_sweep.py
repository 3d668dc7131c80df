"""run_repro.sh --sweep with the stand-in: one server for all loads, what is kept, what is shown."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_sglang.harness import Done, Harness, wait_until

pytestmark = pytest.mark.launches

HELD = ("--sweep", "batch=2,4")
GIVEN = ("--cases", "one,two", "--pp-size", "2", "--cpu", "--no-profile")
A, B = "one", "two"


def made(root: Path, *lines: str) -> Harness:
    harness = Harness(root)
    harness.case(A, *lines)
    harness.case(B)
    return harness


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """Two cases under three loads."""
    with made(tmp_path_factory.mktemp("sweep") / "r") as harness:
        yield harness, harness.run(*GIVEN, "--sweep", "batch=2,4", "mix=none,3@50")


def record(harness: Harness, label: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((harness.logs / f"{label}_launch.json").read_text())
    return found


def test_every_load_is_measured_on_one_server_a_case(swept: tuple[Harness, Done]):
    harness, done = swept
    assert done.status == 0, done.lines
    for label in (A, B):
        log = (harness.logs / f"{label}_server.log").read_text()
        assert log.count("The server is fired up") == 1
        loads = record(harness, label)["loads"]
        assert [each["place"] for each in loads.values()] == [1, 2, 3, 4]
        assert {each["status"] for each in loads.values()} == {"ok"}
        assert loads["b4_mixnone"]["micro_batch"] == 2
        assert loads["b4_mix3at50"]["micro_batch"] == 3
    assert list(record(harness, A)["loads"]) == list(record(harness, B)["loads"])


def test_each_load_leaves_its_own_result_and_the_main_one_the_launchs(swept: tuple[Harness, Done]):
    harness, _ = swept
    main = json.loads((harness.logs / f"{A}_client.json").read_text())["summary"]
    other = json.loads((harness.logs / f"{A}_at_b4_mix3at50_client.json").read_text())["summary"]
    assert (main["batch"], main["beside_rate"]) == (2, None)
    assert (other["batch"], other["beside_rate"]) == (4, 50)
    assert {f"logs/{B}_at_b2_mix3at50_client.log"} <= harness.files()


def test_the_summary_the_table_and_both_reports_have_every_load(swept: tuple[Harness, Done]):
    harness, done = swept
    summary = harness.summary()
    assert summary["sweep"][0]["load"]["name"] == "b2_mixnone"
    for launch in summary["launches"]:
        assert [each["status"] for each in launch["loads"]] == ["ok"] * 4
        assert launch["metrics"] == launch["loads"][0]["metrics"]
        assert all("mean_tpot_ms" in each["metrics"] for each in launch["loads"])
    assert all(len(each["pairs"]) == 1 for each in summary["sweep"])
    for text in (done.out, (harness.logs / "report.md").read_text()):
        assert "batch 4, beside 3 tokens at 50/s" in text.replace("\\", "")
    assert '"loads":{"choose":"Figure"' in (harness.logs / "report.html").read_text()
    own = [line for line in done.out.splitlines() if str(harness.root) not in line]
    assert max(map(len, own)) <= 80


def test_a_dry_run_names_the_loads_the_time_and_what_the_server_is_told(tmp_path: Path):
    with made(tmp_path / "r") as harness:
        done = harness.run(*GIVEN, "--sweep", "batch=2,4", "--dry-run")
    text = " ".join(done.out.split())
    assert done.status == 0 and "2 loads on every server" in " ".join(done.lines)
    assert "time: " in " ".join(done.lines)
    assert text.count("/set_internal_state") == 2 and "one_at_b4_client.json" in text


# case -> its fault; under batches of 2, 3 and 4 prompts
FAULTY = {
    "one": "FAKE_FAULT=refuse_batch:4",
    "two": "",
    "older": "FAKE_MICRO_BATCH=max_micro_batch_size:64",  # as 0.5.2
    "takes_none": "FAKE_MICRO_BATCH=pp_max_micro_batch_size:0",
    "dies_at_2": "FAKE_FAULT=die_batch:2",
    "dies_at_4": "FAKE_FAULT=die_batch:4",
}
UNDER_FAULTS = ("--cases", ",".join(FAULTY), *GIVEN[2:], "--sweep", "batch=2,4,3")


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """A case a fault, and one without, under three loads."""
    with Harness(tmp_path_factory.mktemp("faulty") / "r") as harness:
        for name, fault in FAULTY.items():
            harness.case(name, *[fault] * bool(fault))
        yield harness, harness.run(*UNDER_FAULTS)


def states_of(harness: Harness, label: str) -> dict[str, str]:
    return {name: each["status"] for name, each in record(harness, label)["loads"].items()}


def test_a_launch_that_fails_costs_no_other(faulty: tuple[Harness, Done]):
    harness, done = faulty
    failed = ("takes_none", "dies_at_2", "dies_at_4")
    assert done.status == 1
    assert harness.statuses() == {name: "failed" if name in failed else "ok" for name in FAULTY}
    assert states_of(harness, B) == {"b2": "ok", "b3": "ok", "b4": "ok"}


def told(harness: Harness, label: str) -> list[dict[str, int]]:
    """What a server was asked to set, in order."""
    lines = (harness.logs / f"{label}_server.log").read_text().splitlines()
    return [json.loads(line.partition("told ")[2]) for line in lines if "told " in line]


def test_an_older_release_is_told_by_its_own_name_alone(faulty: tuple[Harness, Done]):
    """Up to 0.5.14 an answer of [true] means nothing: 0.5.2 gave it to the name it did not know."""
    harness, _ = faulty
    assert states_of(harness, "older") == {"b2": "ok", "b3": "ok", "b4": "ok"}
    asked = told(harness, "older")
    assert asked and {name for each in asked for name in each} == {"max_micro_batch_size"}


def test_a_server_that_takes_no_micro_batch_size_measures_nothing_and_says_so(
    faulty: tuple[Harness, Done],
):
    harness, done = faulty
    assert "ok" not in states_of(harness, "takes_none").values()
    text = " ".join(done.out.split())
    assert "micro-batch 1: the server did not take it: its pp_max_micro_batch_size is 0" in text
    assert "answered 200: [true]); it takes 1 to --max-running-requests / PP ranks" in text


def interrupted(harness: Harness) -> Done:
    """A run that is stopped in its first launch under its second load; the first is measured."""
    run = harness.start(*GIVEN, *HELD)
    path = harness.logs / f"{A}_launch.json"
    wait_until(lambda: path.exists() and "loads" in json.loads(path.read_text()))
    run.process.send_signal(signal.SIGINT)
    return run.end()


def test_ctrl_c_keeps_the_loads_that_were_measured_and_resume_measures_the_launch_again(
    tmp_path: Path,
):
    mended = tmp_path / "mended"
    with made(tmp_path / "r", "FAKE_FAULT=hold_second_batch", f"FAKE_MENDED={mended}") as harness:
        done = interrupted(harness)
        assert done.status == 130
        (launch,) = [one for one in harness.summary()["launches"] if one["label"] == A]
        states = [each["status"] for each in launch["loads"]]
        assert "ok" in states and "not measured" in states and launch["status"] == "interrupted"
        assert "not measured:" in " ".join(done.out.split())
        firsts = [each["pairs"][0]["comparisons"][0] for each in harness.summary()["sweep"]]
        assert all(each["values_a"] == {} for each in firsts), "a partial launch is compared"
        assert harness.left_over() == []
        mended.touch()
        again = harness.run(*GIVEN, *HELD, "--resume")
        assert again.status == 0 and harness.statuses() == {A: "ok", B: "ok"}


def test_resume_with_another_sweep_is_refused(swept: tuple[Harness, Done]):
    harness, _ = swept
    done = harness.run(*GIVEN, "--sweep", "batch=2,8", "--resume")
    assert done.status == 2 and "--sweep (batch 2, nothing beside" in done.own_errors[0]


@pytest.mark.parametrize("deadly", [2, 4])
def test_a_server_that_dies_under_a_load_costs_none_before_it(
    faulty: tuple[Harness, Done], deadly: int
):
    harness, _ = faulty
    label = f"dies_at_{deadly}"
    loads = record(harness, label).get("loads", {})
    plan = json.loads((harness.logs / "run.json").read_text())
    (order,) = (each["loads"] for each in plan["launches"] if each["label"] == label)
    assert "died under load" in record(harness, label)["reason"]
    assert list(loads) == list(order)[: len(loads)], "a load after it was measured"
    *before, last = loads.items()
    assert last[0] == f"b{deadly}" and last[1]["status"] == "failed"
    assert all(state["status"] == "ok" for _, state in before)


def test_one_load_that_fails_costs_only_itself(faulty: tuple[Harness, Done], tmp_path: Path):
    harness, done = faulty
    assert states_of(harness, A) == {"b2": "ok", "b3": "ok", "b4": "failed"}
    text = " ".join(done.out.split())
    assert "one: not measured: batch 4; --resume measures that launch again" in text
    (four,) = [each for each in harness.summary()["sweep"] if each["load"]["name"] == "b4"]
    left_out = next(each["left_out"] for each in four["pairs"] if each["left_out"])
    assert left_out[0]["label"] == A
    shutil.copytree(harness.out, tmp_path / "copy")  # of which the other tests see nothing
    again = harness.start(*UNDER_FAULTS, "--resume", out=tmp_path / "copy")
    wait_until((tmp_path / "copy/previous").exists)
    again.process.send_signal(signal.SIGINT)
    assert "one is measured again: batch 4 is not measured" in " ".join(again.end().lines)


TRACED = ("--cases", "one,two", "--pp-size", "2", "--cpu", "--max-new-tokens", "40")


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """Two rounds of a case under three loads, of which one besides the main one is profiled."""
    with made(tmp_path_factory.mktemp("profiled") / "r") as harness:
        sweep = ("--sweep", "batch=2,4,8", "--profile-loads", "b8", "--rounds", "2")
        yield harness, harness.run("--cases", A, *TRACED[2:], *sweep)


def test_a_load_that_is_named_leaves_traces_and_an_analysis_of_its_own(
    profiled: tuple[Harness, Done],
):
    harness, done = profiled
    assert done.status == 0, done.lines
    state = record(harness, A)["loads"]
    assert list(state["b8"]["profile"]["trace_bytes"]) and "profile" not in state["b4"]
    assert "profile" not in state["b2"], "the main load's profile is the launch's"
    names = {f"logs/{A}_at_b8_analysis.{kind}" for kind in ("json", "txt")}
    names |= {f"trace/{A}_at_b8_chrome_trace.json.gz"}
    assert names <= harness.files()
    assert not any(f"{A}_at_b4_analysis" in name for name in harness.files())


def test_under_it_the_server_has_the_micro_batches_of_that_load(profiled: tuple[Harness, Done]):
    harness, _ = profiled
    log = (harness.logs / f"{A}_at_b8_profile_load.log").read_text()
    assert "8" in log and "No reported number is from it" in log
    assert [*told(harness, A)[-1].values()] == [4], "half of the batch of 8"


def test_only_the_first_launch_of_a_case_is_profiled_under_further_loads(
    profiled: tuple[Harness, Done],
):
    harness, _ = profiled
    assert harness.statuses() == dict.fromkeys((A, f"{A}_r2"), "ok")
    assert not any("_r2_at_b8_analysis" in name for name in harness.files())
    assert "profile" not in record(harness, f"{A}_r2")["loads"]["b8"]


def test_its_summary_and_report_say_what_its_traces_say(profiled: tuple[Harness, Done]):
    harness, _ = profiled
    row = harness.summary()["launches"][0]
    (b8,) = [each for each in row["loads"] if each["load"] == "b8"]
    assert b8["profile"]["seconds"] > 0
    text = (harness.logs / "report.md").read_text().replace("\\", "")
    assert f"batch 8, profiled in {row['label']}: " in text and "it alone has traces" not in text


@pytest.fixture(scope="module")
def dying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """Every load is profiled; the servers die under the second profile, and under the third."""
    with Harness(tmp_path_factory.mktemp("dying") / "r") as harness:
        harness.case(A, "FAKE_FAULT=die_profile:2")
        harness.case(B, "FAKE_FAULT=die_profile:3")
        sweep = ("--sweep", "batch=2,4,8", "--profile-loads", "all")
        yield harness, harness.run(*TRACED, *sweep)


@pytest.mark.parametrize(
    ("label", "fine", "died", "after"), [(A, ["b2"], "b4", ["b8"]), (B, ["b2", "b4"], "b8", [])]
)
def test_a_server_that_dies_under_a_further_profile_costs_no_measurement(
    dying: tuple[Harness, Done], label: str, fine: list[str], died: str, after: list[str]
):
    harness, done = dying
    assert done.status == 0 and harness.statuses() == {A: "ok", B: "ok"}
    found = record(harness, label)["loads"]
    faults = {name: each.get("profile", {}).get("fault", "") for name, each in found.items()}
    assert "the server died" in faults[died]
    assert [faults[name] for name in fine] == [""] * len(fine)
    assert [faults[name] for name in after] == ["the server had ended before it"] * len(after)
    assert {each["status"] for each in found.values()} == {"ok"}
    said = " ".join((harness.logs / "report.md").read_text().replace("\\", "").split())
    assert f"profiled in {label}: cannot tell: " in said
    assert harness.left_over() == []
