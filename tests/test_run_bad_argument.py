"""A server that refuses an argument: named, not tried again, and not gone on with by --resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_sglang.harness import Harness
from plan_harness import BASE, plan_of

from repro_pp_graphs.run.checks import preflight
from repro_pp_graphs.run.launch import failure
from repro_pp_graphs.server.log import diagnosis, refused_argument

SCHEDULER = (
    "[2026-11-23 21:16:19 PP1] Scheduler hit an exception: Traceback (most recent call last):\n"
    '  File "/site-packages/sglang/srt/managers/scheduler.py", line 3415, in run_scheduler\n'
)
BAD = ("FAKE_FAULT=die:value", "FAKE_KIND=chunky")


@pytest.fixture
def launch(tmp_path: Path):
    base = f"{BASE}--attention-backend triton\nA_KIND=3,x\nPORTS=30000\nPLACE=/some/place\n"
    return plan_of(tmp_path, base=base).launches[0]


@pytest.mark.parametrize(
    ("message", "argument"),
    [
        ("ValueError: Invalid partition string: 3,x", "A_KIND=3,x"),
        ("ValueError: invalid literal for int() with base 10: '3,x'", "A_KIND=3,x"),
        ("KeyError: 'triton'", "--attention-backend triton"),
        ("ValueError: Unknown level: 'TRITON'", "--attention-backend triton"),
        ("ValueError: Unknown backend: triton. Choose one of fa3", "--attention-backend triton"),
        (
            "AttributeError: module 'logging' has no attribute 'TRITON'",
            "--attention-backend triton",
        ),
        ("ValueError: Unknown backend: tritonic", ""),
        ("ValueError: no such kind: '3,xy'", ""),
        (
            "RuntimeError: Triton Error [CUDA]: device kernel: triton",
            "",
        ),  # it need not be the value
        ("ValueError: bad port: 30000", ""),  # any number may be another's
        ("ValueError: cannot read: /some/place", ""),
    ],
)
def test_the_argument_that_a_message_quotes_is_found_and_no_other(launch, message, argument):
    found = diagnosis.diagnose(f"{SCHEDULER}{message}\n")
    assert refused_argument.of_death(found, launch.arguments) == argument


@pytest.mark.parametrize(
    ("said", "argument"),
    [
        ("error: argument --attention-backend: invalid choice: 'triton'", True),
        ("error: unrecognized arguments: --attention-backend triton", True),
        ("error: unrecognized arguments: --attention-backends triton", False),
    ],
)
def test_an_argument_that_sglangs_parser_refuses_is_found(launch, said, argument):
    found = diagnosis.diagnose(f"usage: launch_server.py [-h]\nlaunch_server.py: {said}\n")
    assert (
        refused_argument.of_death(found, launch.arguments)
        == "--attention-backend triton" * argument
    )


@pytest.mark.launches
def test_what_one_server_refuses_is_not_started_again_and_not_resumed(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.case("one", *BAD)
        harness.case("two", *BAD, "OTHER=1")
        harness.case("good")
        done = harness.run("--cases", "one,two,good", "--no-profile")
        text = " ".join(done.out.split())
        assert done.status == 1, text
        assert "cause: the server refuses FAKE_KIND=chunky" in text
        assert "mend it in server_args_base.txt, or in server_args_one.txt" in text
        assert (
            "not begun: the server of one refused FAKE_KIND=chunky, which this case has too" in text
        )
        assert not (harness.logs / "two_server.log").exists()
        assert "good" in text and "two: not begun" in text and "one: failed" in text
        assert "pp_clock: no rank left rows" not in text.partition("two")[2]
        end = text.rpartition("With FAKE_KIND=chunky mended in server_args_*.txt")[2]
        assert "it is another run: " in end and "--cases one,two,good" in end
        assert "--resume" not in end
        assert harness.summary()["complete"] is False


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("3,x", "as whole numbers"),
        ("40", "1 numbers for 2 PP ranks"),
        ("40,39", "79 layers in all, and the model has 80"),
        ("40,40", ""),
        (" 39, 41", ""),  # as Python reads numbers
    ],
)
def test_a_split_that_the_server_would_refuse_stops_the_plan(tmp_path, given, said):
    base = f"{BASE}SGLANG_PP_LAYER_PARTITION='{given}'\n"
    plan = plan_of(tmp_path, "--pp-size", "2", base=base)
    found = [text for text in preflight.of_ranks(plan, []) if "PARTITION" in text]
    assert len(found) == bool(said)
    assert not said or (said in found[0] and "mend it in server_args_*.txt" in found[0])


def test_a_split_in_the_shells_environment_is_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setenv("SGLANG_PP_LAYER_PARTITION", "1,2,3")
    plan = plan_of(tmp_path, "--pp-size", "2")
    (found,) = [text for text in preflight.of_ranks(plan, []) if "PARTITION" in text]
    assert found.endswith("mend it in your environment")
    unknown = [replace(one, model="/no/model", pp_size=3) for one in plan.launches]
    assert preflight.of_ranks(replace(plan, launches=unknown), []) == []


def test_a_log_that_ends_at_a_tracebacks_head_has_no_line_that_says_why(tmp_path, monkeypatch):
    cut = SCHEDULER.partition("\n")[0] + "\n"
    found = diagnosis.diagnose(cut)
    assert not found.known and found.line is None
    log = tmp_path / "A_server.log"
    log.write_text(cut)
    monkeypatch.setattr(failure.files, "low_space", lambda *_, **__: "the disk of X has 0 MB free")
    monkeypatch.setattr(failure, "EXIT_LIMIT_S", 0.0)
    full, _ = failure.of_dead(log)
    assert "the disk of X has 0 MB free" in full.cause and full.line is None
    assert full.remedy == "free some, then go on with --resume"


def test_on_a_full_disk_a_line_that_explains_nothing_is_no_cause(tmp_path, monkeypatch):
    log = tmp_path / "A_server.log"
    log.write_text(f"{SCHEDULER}SomeError: what nobody knows\n")
    monkeypatch.setattr(failure.files, "low_space", lambda *_, **__: "the disk of X has 0 MB free")
    assert "may lack the cause" in failure.of_dead(log)[0].cause
    log.write_text(f"{SCHEDULER}torch.OutOfMemoryError: CUDA out of memory.\n")
    assert failure.of_dead(log)[0].cause == "out of GPU memory"
