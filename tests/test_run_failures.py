"""Servers that die, hang or lie: what run_repro.sh says, and what it keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from examples import THOROUGH
from fake_sglang.harness import Done, Harness, at_once

pytestmark = pytest.mark.launches

# fault -> (cause, what the remedy names). Whole logs of every cause: test_server_diagnosis
DEATHS = {
    "oom": ("out of GPU memory", "--mem-fraction-static"),
    "kv_cache": ("no GPU memory left for the KV cache", "raise --mem-fraction-static"),
    "capture": ("graph capture failed", "server_args_graphs_on.txt"),
    "capture_oom": ("out of GPU memory during graph capture", "--cuda-graph-max-bs"),
    "ordinal": ("too few GPUs", "--pp-size"),
    "port": ("port in use", "--port"),
    "gated": ("hub access denied", "HF_TOKEN"),
    "argument": ("unknown argument", "server_args_"),
    "silent": ("killed", "dmesg"),
}
if not THOROUGH:
    for like_oom in ("kv_cache", "capture_oom", "ordinal", "gated"):
        del DEATHS[like_oom]
TWO_GPUS = [(81559, 3)] * 2
SMALL = ("--pp-size", "2", "--dummy-weights", "--layers", "2")


def run_deaths(harness: Harness) -> Done:
    """A case a death, one whose main process lingers, one that is not what it claims, one that only
    SIGKILL ends, and a good one on the same port at the end."""
    # a busy machine's bash notes late how a server ended
    harness.replace("run/launch/failure.py", "EXIT_LIMIT_S = 1.0", "EXIT_LIMIT_S = 5.0")
    harness.replace("../run_repro.sh", "stop_grace_s=20", "stop_grace_s=1")
    for name in DEATHS:
        harness.case(f"dies_{name}", f"FAKE_FAULT=die:{name}")
    harness.case("lingers", "FAKE_FAULT=linger:oom")
    harness.case("claims_graphs", "--cuda-graph-max-bs 64", "FAKE_GRAPHS=False")
    harness.case("stubborn", "FAKE_FAULT=stubborn")
    harness.case("good")
    cases = [f"dies_{name}" for name in DEATHS]
    cases += ["lingers", "claims_graphs", "stubborn", "good"]
    return harness.run(*SMALL, "--cases", ",".join(cases), "--no-profile")


def run_profiles(harness: Harness, faults: tuple[str, ...]) -> Done:
    """A case a way in which measurement or profile goes wrong."""
    for name in faults:
        harness.case(name, f"FAKE_FAULT={name}")
    return harness.run("--cases", ",".join(faults))


def run_without_traces(harness: Harness) -> Done:
    """The last rank writes none, or a part."""
    harness.give_up_traces(2.0)
    return run_profiles(harness, ("truncated", "missing_rank"))


def run_without_steps(harness: Harness) -> Done:
    harness.replace("run/profile_step.py", "STEPS_LIMIT_S = 180.0", "STEPS_LIMIT_S = 2.0")
    return run_profiles(harness, ("steps_never",))


def run_lies(harness: Harness) -> Done:
    """Arms that are not what they claim, traced."""
    harness.case("claims_graphs", "--cuda-graph-max-bs 64", "FAKE_GRAPHS=False")
    harness.case("claims_none", "--disable-cuda-graph", "FAKE_GRAPHS=True")
    return harness.run(*SMALL, "--cases", "claims_graphs,claims_none")


def run_broken_off(harness: Harness) -> Done:
    """Traces whose explanation ends in an error that nobody foresaw, or is killed."""
    harness.replace(
        "run/explain_step.py",
        '    plan = run_record.load(out / "logs")\n',
        '    plan = run_record.load(out / "logs")\n'
        '    import os; os.kill(os.getpid(), 9) if label == "killed" else 1 / 0\n',
    )
    harness.case("breaks_off")
    harness.case("killed")
    return harness.run("--cases", "breaks_off,killed")


# name -> (GPUs, what runs)
SCENES = {
    "deaths": (TWO_GPUS, run_deaths),
    "load": ((), partial(run_profiles, faults=("die_measure", "die_profile", "die_after_traces"))),
    "traces": ((), run_without_traces),
    "steps": ((), run_without_steps),
    "lies": (TWO_GPUS, run_lies),
    "broken_off": ((), run_broken_off),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Harness, Done]]]:
    """Every scene, all at once."""
    root = tmp_path_factory.mktemp("failures")
    harnesses = {name: Harness(root / name, gpus=gpus) for name, (gpus, _) in SCENES.items()}
    done = at_once({name: partial(run, harnesses[name]) for name, (_, run) in SCENES.items()})
    yield {name: (harnesses[name], done[name]) for name in SCENES}
    for harness in harnesses.values():
        harness.__exit__()


@pytest.fixture
def deaths(scenes: dict[str, tuple[Harness, Done]]) -> tuple[Harness, Done]:
    return scenes["deaths"]


@pytest.fixture
def load(scenes: dict[str, tuple[Harness, Done]]) -> tuple[Harness, Done]:
    return scenes["load"]


@pytest.fixture
def traces(scenes: dict[str, tuple[Harness, Done]]) -> tuple[Harness, Done]:
    return scenes["traces"]


def said_of(done: Done, label: str) -> list[str]:
    """What stands between a launch's title and the next unindented line, without its wrapping."""
    lines = done.out.splitlines()
    start = lines.index(label) + 1
    end = next(n for n in range(start, len(lines)) if not lines[n].startswith(" "))
    said: list[str] = []
    for line in lines[start:end]:
        text = line.strip()
        if re.match(r"(server|client|profile|cause:|by:|try:|log:) ", text) or not said:
            said.append(text)
        else:
            said[-1] += " " + text.removeprefix("| ")
    return said


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


def launch(harness: Harness, label: str) -> dict[str, object]:
    return next(one for one in harness.summary()["launches"] if one["label"] == label)


def test_a_server_that_dies_under_load_fails_its_case_with_the_cause(load: tuple[Harness, Done]):
    harness, done = load
    assert launch(harness, "die_measure")["status"] == "failed"
    assert any("illegal memory access" in line for line in said_of(done, "die_measure"))


def test_a_death_in_the_profile_keeps_the_measurement(load: tuple[Harness, Done]):
    harness, _ = load
    found = launch(harness, "die_profile")
    assert found["status"] == "failed"
    assert "server died" in str(found["reason"])
    assert "0 of 2 ranks" in str(found["reason"])
    assert found["metrics"]["completed"] > 0  # type: ignore[index]


def test_a_death_after_the_traces_are_whole_is_a_warning(load: tuple[Harness, Done]):
    harness, done = load
    found = launch(harness, "die_after_traces")
    assert found["status"] == "ok", found
    assert any("died" in text for text in found["warnings"]), "the death is not told"  # type: ignore[union-attr,attr-defined]
    assert not any("failed" in line for line in said_of(done, "die_after_traces"))


@pytest.mark.parametrize("fault", ["truncated", "missing_rank"])
def test_a_rank_without_a_whole_trace_fails_the_case(fault: str, traces: tuple[Harness, Done]):
    harness, _ = traces
    found = launch(harness, fault)
    assert found["status"] == "failed"
    assert "1 of 2 ranks' traces are whole" in str(found["reason"])
    assert found["metrics"]["completed"] > 0  # type: ignore[index]


def test_steps_that_do_not_pass_are_stopped_and_still_give_every_trace(
    scenes: dict[str, tuple[Harness, Done]],
):
    harness, _ = scenes["steps"]
    found = launch(harness, "steps_never")
    assert found["status"] == "ok", found
    assert any("stopped" in text for text in found["warnings"])  # type: ignore[union-attr,attr-defined]
    assert len(list((harness.out / "trace" / "steps_never").iterdir())) == 2


def test_servers_that_ignore_signals_are_ended_by_force_before_the_next_launch(
    deaths: tuple[Harness, Done],
):
    harness, _ = deaths
    assert [harness.statuses()[name] for name in ("stubborn", "good")] == ["ok", "ok"]
    assert harness.left_over() == []


def test_an_arm_that_is_not_what_it_claims_fails_loudly_either_way(
    scenes: dict[str, tuple[Harness, Done]],
):
    harness, done = scenes["lies"]
    assert done.status == 1
    assert harness.statuses() == {"claims_graphs": "failed", "claims_none": "failed"}
    said = " ".join(done.out.split())  # long lines are wrapped
    assert re.search(r"claims_graphs: NOT WHAT IT CLAIMS: graphs on, but \d+ of .* eagerly", said)
    assert (
        "claims_graphs: NOT WHAT IT CLAIMS: graphs on, but no cudaGraphLaunch on rank 0, 1" in said
    )
    assert re.search(r"claims_none: NOT WHAT IT CLAIMS: graphs off, but \d+ .* replayed", said)
    assert (
        "claims_none: NOT WHAT IT CLAIMS: graphs off, but the traces hold cudaGraphLaunch" in said
    )


def test_an_arm_is_checked_by_the_log_alone_where_nothing_is_traced(deaths: tuple[Harness, Done]):
    harness, done = deaths
    assert harness.statuses()["claims_graphs"] == "failed"
    assert "claims_graphs: NOT WHAT IT CLAIMS" in done.out


def test_a_launch_whose_traces_cannot_be_explained_for_an_unknown_reason_has_failed_and_ended(
    scenes: dict[str, tuple[Harness, Done]],
):
    harness, done = scenes["broken_off"]
    assert done.status == 1 and "ZeroDivisionError" in done.err
    launches = harness.summary()["launches"]
    assert [launch["label"] for launch in launches] == ["breaks_off", "killed"]
    for launch in launches:
        assert (launch["status"], launch["measured"]) == ("failed", True)
        assert launch["reason"] == "a step of the harness broke off; see the terminal"
    assert harness.left_over() == []
