"""Ctrl-C, SIGTERM and kill -9: no process stays, nothing measured is lost."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from examples import THOROUGH
from fake_sglang.harness import (
    CHECKOUT,
    LIMIT_S,
    Done,
    Harness,
    Running,
    at_once,
    rewrite,
    wait_until,
)
from programs import ran

from repro_pp_graphs.pp_clock import rows

pytestmark = pytest.mark.launches

# moment -> (the victim's lines, what its log then shows, options)
MOMENTS = {
    "starting": ("FAKE_FAULT=never_ready", "Load weight begin", ["--no-profile"]),
    "measuring": ("FAKE_ITL_MS=600000", "Decode batch", ["--no-profile"]),
    "profiling": ("FAKE_FAULT=missing_rank", "Profiling done", []),
    "stopping": ("FAKE_FAULT=slow_stop", "FAKE stopping", ["--no-profile"]),
}
RUNS = [
    ("starting", signal.SIGINT),
    ("measuring", signal.SIGTERM),
    ("profiling", signal.SIGTERM),
    ("stopping", signal.SIGINT),
]
if THOROUGH:
    RUNS = list(itertools.product(MOMENTS, (signal.SIGINT, signal.SIGTERM)))


def interrupted(root: Path, moment: str, sent: signal.Signals) -> tuple[Harness, Done, list[str]]:
    """Measure a good case, then interrupt at a moment of the next; what was left at once."""
    fault, shown, options = MOMENTS[moment]
    harness = Harness(root)
    harness.case("good")
    harness.case("victim", fault)
    running = harness.start("--cases", "good,victim", *options)
    running.until_log("victim", shown)
    running.process.send_signal(sent)
    done = running.end()
    return harness, done, harness.left_over()


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[tuple[str, signal.Signals], tuple[Harness, Done, list[str]]]]:
    """All of RUNS."""
    root = tmp_path_factory.mktemp("interrupts")
    found = at_once(
        {key: partial(interrupted, root / f"{key[0]}_{key[1].name}", *key) for key in RUNS}
    )
    yield found
    for harness, _, _ in found.values():
        harness.__exit__()


@pytest.mark.parametrize(("moment", "sent"), RUNS)
def test_a_signal_ends_all_and_keeps_what_was_measured(moment: str, sent: signal.Signals, runs):
    harness, done, left = runs[moment, sent]
    assert done.status == 130, done.lines
    assert left == []
    assert list((harness.root / ".state" / "groups").iterdir()) == []
    assert harness.statuses() == {"good": "ok", "victim": "interrupted"}
    assert json.loads((harness.logs / "good_client.json").read_text())["schema"] == 1
    assert "interrupted; the run so far" in done.out
    assert "Traceback" not in done.out + done.err


@pytest.mark.parametrize(("moment", "sent"), RUNS)
def test_what_its_measured_pass_gave_is_shown_and_compared_in_no_word(
    moment: str, sent: signal.Signals, runs
):
    harness, done, _ = runs[moment, sent]
    (victim,) = [one for one in harness.summary()["launches"] if one["label"] == "victim"]
    whole = moment in ("profiling", "stopping")
    assert bool(victim.get("measured")) is whole
    lines = done.out.splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("TPOT mean ms"))
    said = " ".join(done.out.split())
    cell = lines[at].split()[4]
    if whole:
        assert float(cell) == pytest.approx(victim["metrics"]["mean_tpot_ms"], rel=1e-3)
        assert "Measured, then cut short: 1 of 2 launches (victim: interrupted)" in said
        lacks = ", before its profile was whole" * (moment == "profiling")
        assert victim["reason"] == f"interrupted after its measured pass{lacks}"
        assert victim["graph_state"]["decode_lines"] > 0, "was it looked at?"
    else:
        assert cell == "interrupted"
        assert "Not measured: 1 of 2 launches (victim: interrupted)" in said
    for pair in harness.summary()["verdict"]["pairs"]:
        assert [one["label"] for one in pair["left_out"]] == ["victim"]
        assert all("victim" not in one["values_b"] for one in pair["comparisons"])


def row_numbers(folder: Path) -> dict[str, list[int]]:
    """The rows of each rank's clock in a folder, by the file's name."""
    return {path.name: [row.number for row in rows.read(path).rows] for path in folder.glob(CLOCKS)}


CLOCKS = "victim_pp_clock_PP*"
RANKS = {f"victim_pp_clock_PP{rank}_TP0.rows.gz": [1] for rank in (0, 1)}


@pytest.mark.parametrize(("moment", "sent"), RUNS)
def test_what_its_clocks_wrote_is_kept_in_little_room(moment: str, sent: signal.Signals, runs):
    assert row_numbers(runs[moment, sent][0].logs) == RANKS


@pytest.mark.parametrize("sent", [signal.SIGTERM, *[signal.SIGHUP] * THOROUGH])
def test_a_signal_to_the_whole_group_while_a_server_stops_prints_nothing_of_bash(
    harness: Harness, sent: signal.Signals
):
    """As `timeout`, a closed terminal and `kill -- -PID` send it."""
    harness.case("victim", "FAKE_FAULT=slow_stop")
    running = harness.start("--cases", "victim", "--no-profile")
    running.until_log("victim", "FAKE stopping")
    os.killpg(running.process.pid, sent)
    done = running.end()
    assert done.status == 130 and harness.left_over() == []
    assert not [line for line in done.lines if line in ("Terminated", "Hangup")], done.lines


def test_a_run_that_cannot_hear_ctrl_c_says_how_to_end_it(harness: Harness):
    command = f"trap '' INT; exec bash {harness.root}/run_repro.sh --cpu --cases none"
    done = ran(["bash", "-c", command], env=harness.env)
    assert done.returncode == 2
    assert re.search(r"^SIGINT is ignored here, .*: kill \d+ ends this run$", done.stderr, re.M)
    assert "SIGINT" not in harness.start_bare("--cpu", "--cases", "none").end().err


def test_a_second_ctrl_c_during_the_clean_up_leaves_nothing_either(harness: Harness):
    harness.case("victim", "FAKE_FAULT=stubborn", "FAKE_ITL_MS=600000")
    running = harness.start("--cases", "victim", "--no-profile")
    running.until_log("victim", "Decode batch")
    os.killpg(running.process.pid, signal.SIGINT)  # as a terminal does: the foreground group
    running.until_log("victim", "FAKE stopping")
    os.killpg(running.process.pid, signal.SIGINT)
    assert running.end().status == 130
    assert harness.left_over() == []
    assert harness.statuses() == {"victim": "interrupted"}


def test_an_interrupt_after_the_last_launch_still_gives_the_summary(harness: Harness):
    harness.case("good")
    reached = harness.root / "reached"
    (harness.root / "collect_env.sh").write_text(
        f'if [[ -e "{harness.logs}/good_client.json" ]]; then\n'
        f'  touch "{reached}"\n  exec sleep 600\nfi\n'
    )
    running = harness.start("--cases", "good", "--no-profile")
    wait_until(reached.exists)
    running.process.send_signal(signal.SIGINT)
    assert running.end().status == 130
    assert harness.left_over() == []
    assert harness.statuses() == {"good": "ok"}


PLANNING = "    found = seen.gpus\n"


@pytest.fixture
def planning(harness: Harness) -> Path:
    """A plan that goes on until it is ended; the file that it makes as it begins."""
    reached = harness.root / "planning"
    line = f"    import pathlib, time; pathlib.Path({str(reached)!r}).touch(); time.sleep(600)\n"
    harness.replace("run/plan_step.py", PLANNING, line)
    return reached


def test_a_terminals_ctrl_c_while_planning_exits_130_in_silence(harness: Harness, planning: Path):
    running = harness.start("--cases", "graphs_on")
    wait_until(planning.exists)
    os.killpg(running.process.pid, signal.SIGINT)  # to the whole foreground group
    done = running.end()
    assert done.status == 130
    assert harness.left_over() == []
    assert "Traceback" not in done.err
    assert not harness.out.exists(), "the lock, or its folder, is left"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_the_harness_alone_ends_the_planning_at_once(
    harness: Harness, planning: Path, sent: signal.Signals
):
    running = harness.start("--cases", "graphs_on")
    wait_until(planning.exists)
    running.process.send_signal(sent)  # the plan itself would go on for 600 s
    assert running.end().status == 130
    assert harness.left_over() == []
    assert list((harness.root / ".state" / "groups").iterdir()) == []


def killed_in(harness: Harness, step: str, *options: str) -> Running:
    """A run whose harness alone was killed in a step, which goes on."""
    reached = harness.root / f"reached_{step}"
    wait = f"    import pathlib, time; pathlib.Path({str(reached)!r}).touch(); time.sleep(600)\n"
    parsed = "    options = parser.parse_args(argv)\n"
    name, old, new = {
        "plan": ("repro_pp_graphs/run/plan_step.py", PLANNING, PLANNING + wait),
        "explain": ("repro_pp_graphs/run/explain_step.py", parsed, parsed + wait),
        "collect_env.sh": ("collect_env.sh", "", f"touch '{reached}'; sleep 600\n"),
    }[step]
    path = harness.root / name
    kept = path.read_text()
    rewrite(path, kept.replace(old, new, 1))
    running = harness.start("--cases", "one", *options)
    wait_until(reached.exists)
    rewrite(path, kept)
    kill_alone(running)
    return running


COLLECT, SERVER = "collect_env.sh", "victim_server.log"


def kill_alone(running: Running) -> None:
    running.process.kill()
    running.process.wait()
    assert running.harness.left_over(), "what it began should have survived its harness"


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Running]]:
    """Runs one after another in a folder, by what each left going on when its harness alone was
    killed; the last, "", ended by itself."""
    with Harness(tmp_path_factory.mktemp("killed") / "r") as harness:
        harness.own()
        harness.case("one")
        harness.case("victim", "FAKE_ITL_MS=600000")
        runs = {step: killed_in(harness, step, "--no-profile") for step in ("plan", COLLECT)}
        runs["explain"] = killed_in(harness, "explain")
        runs[SERVER] = harness.start("--cases", "victim", "--no-profile")
        runs[SERVER].until_log("victim", "Decode batch")
        kill_alone(runs[SERVER])
        assert [line for line in harness.left_over() if "launch" in line], "its server has ended"
        runs[""] = harness.start("--cases", "one", "--no-profile")
        runs[""].end()
        yield runs


@pytest.mark.parametrize("left", ["plan", COLLECT, "explain", SERVER])
def test_the_next_run_ends_what_a_killed_harness_left(killed: dict[str, Running], left: str):
    following = dict(itertools.pairwise(killed))
    said = killed[following[left]].printed
    (told,) = [line for line in said.splitlines() if "was killed" in line]
    assert f"(pid {killed[left].process.pid}) was killed and left {left}" in told


def test_after_killed_harnesses_a_run_is_measured_and_nothing_is_left(killed: dict[str, Running]):
    done, harness = killed[""].end(), killed[""].harness
    assert done.status == 0, done.lines
    assert harness.left_over() == [], "a killed run's server, step or client goes on"
    assert harness.statuses() == {"one": "ok"}
    assert list((harness.root / ".state" / "groups").iterdir()) == []


def test_what_the_clocks_of_a_killed_harness_wrote_is_kept_in_little_room(
    killed: dict[str, Running],
):
    (folder,) = {path.parent for path in killed[""].harness.out.glob(f"previous/*/logs/{CLOCKS}")}
    assert row_numbers(folder) == RANKS


WRITTEN = "            os.fsync(file.fileno())\n        draft.replace"


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("one_server_command.sh", signal.SIGKILL),
        ("tokenizer.json", signal.SIGTERM),
        *([("one_server_command.sh", signal.SIGTERM)] if THOROUGH else []),
        *([("tokenizer.json", signal.SIGKILL)] if THOROUGH else []),
    ],
)
def test_a_file_that_was_being_written_is_no_hindrance_to_the_next_run(
    harness: Harness, name: str, sent: signal.Signals
):
    harness.case("one")
    given = ("--cases", "one", "--no-profile")
    assert harness.run(*given).status == 0
    reached = harness.root / "reached"
    wait = f"open({str(reached)!r}, 'w').close(), __import__('time').sleep(600)"
    slow = f"            {wait} if path.name == {name!r} else None\n"
    harness.replace("files.py", WRITTEN, slow + WRITTEN)
    running = harness.start(*given, *["--resume"] * (name == "tokenizer.json"))
    wait_until(reached.exists)
    running.process.send_signal(sent)
    assert running.end().status == (130 if sent == signal.SIGTERM else -signal.SIGKILL)
    harness.replace("files.py", slow + WRITTEN, WRITTEN)
    if sent == signal.SIGTERM:
        assert list(harness.out.rglob("*.part")) == []
    done = harness.run(*given, "--resume")
    assert done.status == 0, done.lines
    assert harness.statuses() == {"one": "ok"}
    assert list(harness.out.rglob("*.part")) == []


def test_a_group_of_zombies_counts_as_ended():
    script = f'state=/nowhere; source "{CHECKOUT}/repro_pp_graphs/sh/group.sh"; group_lives "$1"'
    with subprocess.Popen(["true"], start_new_session=True) as zombie:
        # not waited for yet: ended, and still in the table of processes
        wait_until(lambda: ") Z " in Path(f"/proc/{zombie.pid}/stat").read_text())
        done = subprocess.run(["bash", "-c", script, "bash", str(zombie.pid)], check=False)
        assert done.returncode == 1


def test_what_another_living_harness_runs_is_left_alone(harness: Harness):
    harness.case("busy", "FAKE_ITL_MS=600000")
    running = harness.start("--cases", "busy", "--no-profile")
    running.until_log("busy", "Decode batch")
    assert harness.start("--cases", "nosuch").end().status == 2
    assert running.process.poll() is None
    assert [line for line in harness.left_over() if "launch" in line]


@pytest.mark.parametrize("known", ["recycled", "other_boot"])
def test_a_strangers_process_on_a_stale_record_is_not_killed(known: str, harness: Harness):
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    boot = boot if known == "recycled" else "00000000-0000-0000-0000-000000000000"
    gone = subprocess.Popen(["true"])
    gone.wait()
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            groups = harness.root / ".state" / "groups"
            groups.mkdir(parents=True)
            record = f"{boot} {gone.pid} 1 {stranger.pid} 1 {harness.logs}/x_server.log\n"
            (groups / str(stranger.pid)).write_text(record)
            done = harness.run("--cases", "nosuch")
            assert done.status == 2
            assert stranger.poll() is None
            assert "was killed" not in done.out
            assert list(groups.iterdir()) == []
        finally:
            stranger.kill()


BEGIN = """\
set -euo pipefail
state=$1 server_pid="" step_pid=""
source repro_pp_graphs/sh/step.sh
source repro_pp_graphs/sh/group.sh
undo() {
  local status=$?
  trap - EXIT
  trap '' INT TERM HUP
  [[ -z $server_pid ]] || end_group "$server_pid" 1
  exit "$status"
}
interrupt() {
  interrupted=1
  ((beginning)) || exit 130
}
trap undo EXIT
trap interrupt INT TERM HUP
: >"$state/started"
begin_group server_pid "$state/log" sleep 3600
while :; do nap 0.1; done
"""


@pytest.mark.parametrize("delay_ms", range(0, 30, 2))
def test_ctrl_c_at_any_moment_of_a_beginning_leaves_no_process(delay_ms: int, tmp_path: Path):
    mark = f"BEGIN_TEST={tmp_path}"
    running = subprocess.Popen(
        ["env", mark, "bash", "-c", BEGIN, "begin", str(tmp_path)],
        cwd=CHECKOUT,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while not (tmp_path / "started").exists() and running.poll() is None:
        time.sleep(0.0005)  # the beginning takes but a few milliseconds
    time.sleep(delay_ms / 1e3)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, told = running.communicate(timeout=LIMIT_S)
    assert (running.returncode, told) == (130, b"")

    def left() -> bool:
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark.encode() in path.read_bytes().split(b"\0"):
                    return True
        return False

    wait_until(lambda: not left())


def test_the_exit_status_of_a_group_is_noted(tmp_path: Path):
    script = (
        "set -euo pipefail; state=$1; source repro_pp_graphs/sh/step.sh; "
        "source repro_pp_graphs/sh/group.sh; begin_group pid /dev/null bash -c 'kill -SEGV $$'; "
        'while leader_lives "$pid" || [[ ! -s $(exit_file "$pid") ]]; do sleep 0.05; done; '
        'cat "$(exit_file "$pid")"; end_group "$pid" 1; [[ ! -e $(exit_file "$pid") ]]'
    )
    done = ran(
        ["bash", "-c", script, "begin", str(tmp_path)], cwd=CHECKOUT, timeout=LIMIT_S, check=True
    )
    assert (done.stdout, done.stderr) == ("139\n", "")
