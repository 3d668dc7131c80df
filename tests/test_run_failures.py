"""Servers that die, hang or lie: what run_repro.sh says, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sglang.harness import Done, Harness

# fault -> (cause, what the remedy names)
DEATHS = {
    "oom": ("out of GPU memory", "--mem-fraction-static"),
    "kv_cache": ("no GPU memory left for the KV cache", "raise --mem-fraction-static"),
    "capture": ("unsupported graph size", "server_args_graphs_on.txt"),
    "capture_oom": ("out of GPU memory during graph capture", "--cuda-graph-max-bs"),
    "ordinal": ("too few GPUs", "--pp-size"),
    "port": ("port in use", "--port"),
    "gated": ("hub access denied", "HF_TOKEN"),
    "argument": ("unknown argument", "server_args_"),
    "silent": ("killed", "dmesg"),
}
TWO_GPUS = [(81559, 3)] * 2
SMALL = ("--pp-size", "2", "--dummy-weights", "--layers", "2")


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """One run of a case a death, one whose main process lingers, and a good one at the end."""
    with Harness(tmp_path_factory.mktemp("deaths") / "r") as made:
        for name in DEATHS:
            made.case(f"dies_{name}", f"FAKE_FAULT=die:{name}")
        made.case("lingers", "FAKE_FAULT=linger:oom")
        made.case("good")
        cases = [f"dies_{name}" for name in DEATHS] + ["lingers", "good"]
        yield made, made.run("--cases", ",".join(cases), "--no-profile")


def said_of(done: Done, label: str) -> list[str]:
    """The lines between a launch's title and the next unindented line."""
    lines = done.out.splitlines()
    start = lines.index(label) + 1
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith(" "))
    return lines[start:end]


@pytest.mark.parametrize("fault", DEATHS)
def test_a_server_that_dies_is_explained_at_once(fault: str, deaths: tuple[Harness, Done]):
    _, done = deaths
    cause, remedy = DEATHS[fault]
    said = said_of(done, f"dies_{fault}")
    assert any("died while" in line for line in said), said
    assert [line for line in said if line.strip().startswith("cause:") and cause in line], said
    assert [line for line in said if line.strip().startswith("try:") and remedy in line], said
    assert [line for line in said if f"dies_{fault}_server.log" in line]


def test_the_logs_telling_line_is_shown(deaths: tuple[Harness, Done]):
    _, done = deaths
    assert any("Tried to allocate 448.00 MiB" in line for line in said_of(done, "dies_oom"))


def test_a_dead_rank_is_noticed_although_the_main_process_lingers(deaths: tuple[Harness, Done]):
    harness, done = deaths
    said = said_of(done, "lingers")
    assert any("a rank failed" in line for line in said)
    assert any("cause: out of GPU memory" in line for line in said)
    assert harness.statuses()["lingers"] == "failed"


def test_failing_cases_do_not_stop_the_others_and_the_run_exits_1(deaths: tuple[Harness, Done]):
    harness, done = deaths
    assert done.status == 1
    assert harness.statuses()["good"] == "ok"
    assert set(harness.statuses().values()) == {"ok", "failed"}
    assert (harness.logs / "good_client.json").exists()
    assert harness.left_over() == []


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Harness, Done]]:
    """One run of a case a way in which measurement or profile goes wrong."""
    faults = ("die_measure", "die_profile", "die_after_traces", "truncated", "missing_rank")
    with Harness(tmp_path_factory.mktemp("profiles") / "r") as made:
        made.replace("run/profile_pass.py", "STEPS_LIMIT_S = 180.0", "STEPS_LIMIT_S = 1.0")
        made.replace("run/profile_pass.py", "WRITE_LIMIT_S = 300.0", "WRITE_LIMIT_S = 1.0")
        for name in (*faults, "steps_never"):
            made.case(name, f"FAKE_FAULT={name}")
        yield made, made.run("--cases", ",".join((*faults, "steps_never")))


def launch(harness: Harness, label: str) -> dict[str, object]:
    return next(one for one in harness.summary()["launches"] if one["label"] == label)


def test_a_server_that_dies_under_load_fails_its_case_with_the_cause(
    profiles: tuple[Harness, Done],
):
    harness, done = profiles
    assert launch(harness, "die_measure")["status"] == "failed"
    assert any("illegal memory access" in line for line in said_of(done, "die_measure"))


def test_a_death_in_the_profile_keeps_the_measurement(profiles: tuple[Harness, Done]):
    harness, _ = profiles
    found = launch(harness, "die_profile")
    assert found["status"] == "failed"
    assert "server died" in str(found["reason"])
    assert "0 of 2 ranks" in str(found["reason"])
    assert found["metrics"]["completed"] > 0  # type: ignore[index]


def test_a_death_after_the_traces_are_whole_is_a_warning(profiles: tuple[Harness, Done]):
    harness, done = profiles
    found = launch(harness, "die_after_traces")
    assert found["status"] == "ok", found
    assert any("died" in text for text in found["warnings"]), "the death is not told"  # type: ignore[union-attr,attr-defined]
    assert not any("failed" in line for line in said_of(done, "die_after_traces"))


@pytest.mark.parametrize("fault", ["truncated", "missing_rank"])
def test_a_rank_without_a_whole_trace_fails_the_case(fault: str, profiles: tuple[Harness, Done]):
    harness, _ = profiles
    found = launch(harness, fault)
    assert found["status"] == "failed"
    assert "1 of 2 ranks' traces are whole" in str(found["reason"])
    assert found["metrics"]["completed"] > 0  # type: ignore[index]


def test_steps_that_do_not_pass_are_stopped_and_still_give_every_trace(
    profiles: tuple[Harness, Done],
):
    harness, _ = profiles
    found = launch(harness, "steps_never")
    assert found["status"] == "ok", found
    assert any("stopped" in text for text in found["warnings"])  # type: ignore[union-attr,attr-defined]
    assert len(list((harness.out / "trace" / "steps_never").iterdir())) == 2


def test_a_server_that_is_not_ready_in_time_is_given_up(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("hangs", "FAKE_FAULT=never_ready")
        done = harness.run("--cases", "hangs", "--no-profile", "--start-timeout", "1")
        assert done.status == 1
        said = said_of(done, "hangs")
        assert any("--start-timeout" in line and "loading weights" in line for line in said), said
        assert harness.left_over() == []


def test_servers_that_ignore_signals_are_ended_by_force_before_the_next_launch(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.replace("sh/../../run_repro.sh", "stop_grace_s=20", "stop_grace_s=1")
        harness.case("stubborn", "FAKE_FAULT=stubborn")
        harness.case("good")
        done = harness.run("--cases", "stubborn,good", "--no-profile")
        assert done.status == 0, done.lines
        assert harness.left_over() == []


def test_an_arm_that_is_not_what_it_claims_fails_loudly_either_way(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=TWO_GPUS) as harness:
        harness.case("claims_graphs", "--cuda-graph-max-bs 64", "FAKE_GRAPHS=False")
        harness.case("claims_none", "--disable-cuda-graph", "FAKE_GRAPHS=True")
        done = harness.run(*SMALL, "--cases", "claims_graphs,claims_none")
        assert done.status == 1
        assert harness.statuses() == {"claims_graphs": "failed", "claims_none": "failed"}
        eager = [line for line in done.out.splitlines() if "claims_graphs: NOT WHAT IT" in line]
        replayed = [line for line in done.out.splitlines() if "claims_none: NOT WHAT IT" in line]
        assert any("ran eagerly" in line for line in eager)
        assert any("no cudaGraphLaunch on rank 0, 1" in line for line in eager)
        assert any("replayed a graph" in line for line in replayed)
        assert any("hold cudaGraphLaunch" in line for line in replayed)


def test_an_arm_is_checked_by_the_log_alone_where_nothing_is_traced(tmp_path: Path):
    with Harness(tmp_path / "r", gpus=TWO_GPUS) as harness:
        harness.case("claims_graphs", "--cuda-graph-max-bs 64", "FAKE_GRAPHS=False")
        done = harness.run(*SMALL, "--cases", "claims_graphs", "--no-profile")
        assert done.status == 1
        assert "claims_graphs: NOT WHAT IT CLAIMS" in done.out
