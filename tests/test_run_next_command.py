"""What a run ends with: the command that goes on, its user's own options repeated, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import made_up_run
import pytest
from programs import ran

from repro_pp_graphs import launch_record
from repro_pp_graphs.run import estimate, next_command
from repro_pp_graphs.run.folder import resume
from repro_pp_graphs.run_record import Look, Plan

CALL = ["bash", "run_repro.sh"]


def plan(rounds: int = 1, cases: Sequence[str] = "AB", **changes) -> Plan:
    launches = [
        made_up_run.launch(f"{case}_r{number}", case=case, round=number, block=-(-number // 2))
        for number in range(1, rounds + 1)
        for case in (cases if number % 2 else reversed(cases))
    ]
    made = made_up_run.plan(*launches, max_new_tokens=256, profile=False, run_id="r")
    made.looks, made.command = [Look(rounds, True)], [*CALL, "--pp-size", "2"]
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def took(logs: Path, label: str, wall_s: float, **changes) -> None:
    logs.mkdir(exist_ok=True)
    launch_record.amend(logs, label, status="ok", run_id="r", wall_s=wall_s)
    launch_record.amend(logs, label, **changes)


def command_of(lines: list[str]) -> list[str]:
    """The words that a shell makes of what is printed."""
    script = "printf '%s\\n' " + "\n".join(lines)
    done = ran(["bash", "-c", script], check=True)
    return done.stdout.splitlines()


def test_a_first_round_ends_with_the_way_to_a_verdict_and_its_minutes(tmp_path):
    took(tmp_path / "logs", "A_r1", 100)
    took(tmp_path / "logs", "B_r1", 140)
    how, *command = next_command.lines(tmp_path, plan(), complete=True)
    assert how == "For a verdict (4 launches a case, about 12 min more):"
    assert command_of(command) == [*CALL, "--pp-size", "2", "--rounds", "4", "--resume"]


def test_two_rounds_go_on_to_a_verdict_and_three_have_one(tmp_path):
    took(tmp_path / "logs", "A_r1", 100)
    took(tmp_path / "logs", "B_r1", 140)
    how, *command = next_command.lines(tmp_path, plan(2), complete=True)
    assert how == "For a verdict (4 launches a case, about 8 min more):"
    assert command_of(command)[-3:] == ["--rounds", "4", "--resume"]
    assert next_command.lines(tmp_path, plan(3), complete=True) == []


def test_without_times_it_names_none(tmp_path):
    how, *_ = next_command.lines(tmp_path, plan(), complete=True)
    assert how == "For a verdict (4 launches a case):"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["--rounds", "1", "--out", "my runs"], ["--out", "my runs"]),
        (["--resume", "--no-profile"], ["--no-profile"]),
        (["--model", "it's", "--rounds", "1"], ["--model", "it's"]),
        (["--cases", "graphs_on," + "x" * 90], ["--cases", "graphs_on," + "x" * 90]),
        (["--batch", "32"] * 12, ["--batch", "32"] * 12),
    ],
)
def test_the_users_own_options_are_repeated_so_that_a_shell_reads_them(tmp_path, given, kept):
    lines = next_command.lines(tmp_path, plan(command=[*CALL, *given]), complete=True)
    assert command_of(lines[1:]) == [*CALL, *kept, "--rounds", "4", "--resume"]
    assert [line for line in lines if len(line) > 80 and "xxx" not in line] == []


def test_what_is_not_measured_is_gone_on_with(tmp_path):
    lines = next_command.lines(tmp_path, plan(4, command=[*CALL, "--rounds", "4"]), complete=False)
    assert lines[0] == "To run what is not finished:"
    assert command_of(lines[1:]) == [*CALL, "--rounds", "4", "--resume"]


def test_a_planned_second_look_is_offered(tmp_path):
    made = plan(4, looks=[Look(4, True), Look(8, True)], command=[*CALL, "--rounds", "4+4"])
    lines = next_command.lines(tmp_path, made, complete=True)
    assert "second look" in lines[0] and "4 more launches" in lines[0]
    assert command_of(lines[1:]) == [*CALL, "--rounds", "4+4", "--resume"]


@pytest.mark.parametrize(
    "made", [plan(4), plan(1, "A"), plan(3), plan(command=[])], ids=["4", "one case", "3", "old"]
)
def test_where_nothing_is_left_to_do_nothing_is_said(tmp_path, made):
    assert next_command.lines(tmp_path, made, complete=True) == []


def test_three_cases_get_whole_blocks(tmp_path):
    lines = next_command.lines(tmp_path, plan(1, "ABC"), complete=True)
    assert command_of(lines[1:])[-3:] == ["--rounds", "6", "--resume"]


def test_a_case_against_itself_is_the_noise_floor(tmp_path):
    lines = next_command.lines(tmp_path, plan(aa="graphs_on"), complete=True)
    assert lines[0].startswith("For the noise floor ")


# the times


def test_only_measured_launches_of_this_run_are_a_basis(tmp_path):
    made = plan(2)
    assert estimate.seconds(tmp_path, made, made.launches) is None
    took(tmp_path, "A_r1", 100)
    took(tmp_path, "B_r1", 5, status="failed")
    took(tmp_path, "B_r2", 5, run_id="another")
    assert estimate.seconds(tmp_path, made, made.launches) == 400
    took(tmp_path, "B_r1", 60)
    assert estimate.seconds(tmp_path, made, made.launches) == 320
    assert estimate.seconds(tmp_path, made, made.launches[:1]) == 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3, "about 10 s"), (44, "about 40 s"), (120, "about 2 min"), (3600 * 3 + 1200, "3 h 20 min")],
)
def test_a_time_is_told_as_roughly_as_it_is_known(seconds, text):
    assert estimate.text(seconds).endswith(text)


# what --resume repeats


def done(tmp_path: Path, made: Plan, *lost: str) -> tuple[set[str], list[str]]:
    for one in made.launches:
        status = "failed" if one.label in lost else "ok"
        launch_record.amend(tmp_path, one.label, status=status, run_id="r")
        (tmp_path / f"{one.label}_client.json").write_text("{}", encoding="utf-8")
    return resume.done(tmp_path, made)


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ([], []),
        (["A_r1"], ["A_r1", "B_r1", "B_r2", "A_r2"]),
        (["B_r2"], ["B_r2", "A_r2"]),  # round 1 is whole: both cases are in it once
        (["A_r2"], ["B_r2", "A_r2"]),
        (["B_r2", "A_r2"], ["B_r2", "A_r2"]),
        (["A_r3"], ["A_r3", "B_r3", "B_r4", "A_r4"]),
        (["B_r1", "A_r4"], ["A_r1", "B_r1", "B_r2", "A_r2", "B_r4", "A_r4"]),
    ],
)
def test_a_block_that_lost_a_launch_runs_again_from_its_last_whole_round(tmp_path, lost, again):
    made = plan(4)
    labels, lines = done(tmp_path, made, *lost)
    assert [one.label for one in made.launches if one.label not in labels] == again
    dropped = [label for label in again if label not in lost]
    assert all(any(label in line for line in lines) for label in dropped)
    assert bool(lines) == bool(dropped)


def test_what_runs_again_though_it_was_finished_is_said_before_it_is_gone_on_with(tmp_path):
    (logs := tmp_path / "logs").mkdir()
    made = plan(4, command=[*CALL, "--rounds", "4"])
    made.profile = False
    for lost, again in (("A_r2", "finished launch of the same block"), ("A_r1", "launches")):
        done(logs, made, lost)
        lines = next_command.lines(tmp_path, made, complete=False)
        command = next(at for at, line in enumerate(lines) if line.startswith("  bash"))
        said = " ".join(lines[:command])
        assert "not finished, and again the" in said and again in said and "B_r2" in said
        assert "A_r2" not in said or lost == "A_r1"
        assert command_of(lines[command:]) == [*CALL, "--rounds", "4", "--resume"]
    done(logs, made, "A_r1", "B_r1", "B_r2", "A_r2")  # of this block nothing was finished
    (first, *_) = next_command.lines(tmp_path, made, complete=False)
    assert first == "To run what is not finished:"


def test_in_a_single_round_only_what_failed_runs_again(tmp_path):
    assert done(tmp_path, plan(1), "B_r1") == ({"A_r1"}, [])


def test_launches_of_an_earlier_version_count_one_by_one(tmp_path):
    made = plan(2)
    for one in made.launches:
        one.block = 0
    assert done(tmp_path, made, "A_r1") == ({"B_r1", "B_r2", "A_r2"}, [])


@pytest.mark.parametrize(
    ("cases", "what"),
    [
        (["graphs_on", "graphs_off"], "gives no verdict on #10865"),
        (["graphs_on", "graphs_off", "sync_send"], "gives no verdict on #10865"),
        (["graphs_on", "small_chunks"], "does not tell how these cases compare on GPUs"),
    ],
)
def test_a_rehearsal_is_not_gone_on_with_for_what_only_gpus_tell(tmp_path, cases, what):
    text = " ".join(next_command.lines(tmp_path, plan(mode="cpu", cases=cases), complete=True))
    assert what in text and "--resume" not in text
    assert ("#10865" in text) is ("graphs_off" in cases)


def test_of_one_pipeline_rank_no_verdict_on_the_issue_is_promised(tmp_path):
    made = plan(mode="cpu", cases=["graphs_on", "graphs_off"])
    for launch in made.launches:
        launch.pp_size = 1
    text = " ".join(next_command.lines(tmp_path, made, complete=True))
    assert "#10865" not in text and "how these cases compare on GPUs" in text


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        (["--cases", "graphs_on,lof", "--cpu"], ["--cases", "graphs_on,lof"]),
        (["--pp-size", "4", "--rounds", "2", "--out", "/x"], ["--pp-size", "4"]),
        (["--sends=both", "--out=/x", "--no-profile"], ["--sends=both", "--no-profile"]),
        (["--sweep", "batch=4,8", "--python", "/p"], ["--sweep", "batch=4,8"]),
    ],
)
def test_a_rehearsal_says_how_to_ask_the_same_on_gpus(tmp_path, given, kept):
    made = plan(mode="cpu", command=[*CALL, *given])
    lines = next_command.lines(tmp_path, made, complete=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("  bash"))
    assert "on a machine with GPUs:" in " ".join(lines[:at])
    assert command_of(lines[at:]) == [*CALL, *kept, "--rounds", "4"]


def test_a_rehearsal_whose_load_does_not_reach_what_cases_differ_in_names_one_that_does(tmp_path):
    made = plan(mode="cpu", reaching="input_len=4096")
    lines = next_command.lines(tmp_path, made, complete=True)
    at = next(n for n, line in enumerate(lines) if line.startswith("  bash"))
    assert "under a load that reaches what they differ in" in " ".join(lines[:at])
    given = [*CALL, "--pp-size", "2", "--sweep", "input_len=4096", "--rounds", "4"]
    assert command_of(lines[at:]) == given
