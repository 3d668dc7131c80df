"""run_repro.sh --attach: a server that somebody else started is measured, and left as it was."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
from pathlib import Path
from typing import Any

import made_up_run
import pytest
from fake_sglang.harness import CHECKOUT, PYTHON, Done, Harness, free_port, wait_until
from programs import ran
from standin_server import Behaviour, StandIn, _Handler

from repro_pp_graphs.files import read_object
from repro_pp_graphs.run.launch import attached_profile
from repro_pp_graphs.run.plan import attached
from repro_pp_graphs.run.plan import options as run_options
from repro_pp_graphs.run.plan.refusal import PlanError
from repro_pp_graphs.run_record import Attached
from repro_pp_graphs.server import running

pytestmark = pytest.mark.launches
KEY = "sk-attach-0123456789abcdef"
INFO = {"model_path": "stand-in/tiny", "version": "0.5.21", "device": "cuda"}
INFO |= {"pp_size": 2, "tp_size": 1, "nnodes": 1}
SHORT = (
    ("LOAD_S = 2.0", "LOAD_S = 0.2"),
    ("LEAST_STEPS_S, MOST_STEPS_S = 30.0", "LEAST_STEPS_S, MOST_STEPS_S = 1.0"),
    ("UNSEEN_S = 15.0", "UNSEEN_S = 1.0"),
)


def attach(harness: Harness, url: str, *options: str) -> Done:
    given = ["--attach", url, "--out", str(harness.out), "--python", PYTHON]
    given += ["--batch", "2", "--max-new-tokens", "4", "--profile-steps", "2"]
    return harness.start_bare(*given, *options).end()


@pytest.fixture
def hurried(harness: Harness) -> Harness:
    """With shorter limits of a profile."""
    for old, new in SHORT:
        harness.replace("run/launch/attached_profile.py", old, new)
    return harness


class Server:
    """The stand-in sglang as somebody else would start it: its own session, folder and output."""

    def __init__(self, harness: Harness, traces: Path, *words: str, **env: str) -> None:
        self.port, self.traces = free_port(), traces
        self.url = f"http://127.0.0.1:{self.port}"
        traces.mkdir()
        command = [PYTHON, "-m", "sglang.launch_server", "--model-path", "stand-in/tiny"]
        command += ["--port", str(self.port), *words]
        self.log = traces.with_suffix(".log")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env={**harness.env, "SGLANG_TORCH_PROFILER_DIR": str(traces), **env},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(lambda: "fired up" in self.log.read_text() or self.process.poll() is not None)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def lives(self) -> bool:
        return self.process.poll() is None and "stopping" not in self.log.read_text()


def stand_in(
    info: object = INFO,
    key: str = "",
    healthy: bool = True,
    profile: tuple[int, str] = (200, "Start profiling."),
    **how: Any,
) -> StandIn:
    """A server that says `info` of itself (None: 404), wants a key, and takes a profile so."""
    made = StandIn(Behaviour(**how))

    class Handler(_Handler):
        def _may(self) -> bool:
            given = self.headers.get("Authorization")
            if not key or given == f"Bearer {key}":
                return True
            self._whole(401, {"error": f"Unauthorized: {given}"})
            return False

        def do_GET(self) -> None:
            if self.path == "/health":
                self._whole(200 if healthy else 503, "")
            elif not self._may():
                return
            elif self.path in ("/server_info", "/get_server_info"):
                self._whole(404 if info is None else 200, info)
            else:
                super().do_GET()

        def do_POST(self) -> None:
            if not self._may():
                return
            if self.path == "/start_profile":
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.server.receive(self.path, {})
                self._whole(*profile)
            else:
                super().do_POST()

    made._server.RequestHandlerClass = Handler
    return made


def asked(server: StandIn) -> list[str]:
    return [path for path, _ in server.received]


def said_by(done: Done) -> str:
    """All that a run printed, on one line."""
    return " ".join(" ".join(done.lines).split())


def text_of(out: Path) -> str:
    """All that a run left, as text."""
    return "\n".join(p.read_text(errors="replace") for p in out.rglob("*") if p.is_file())


def test_a_running_server_is_measured_and_profiled_and_left_as_it_was(harness, tmp_path):
    with Server(harness, tmp_path / "own", "--pp-size", "2") as server:
        done = attach(harness, server.url, "--yes")
        assert done.status == 0, done.lines
        assert server.lives()
    assert harness.statuses() == {"attached": "ok"}
    assert f"pid {server.process.pid}" in said_by(done)
    kept, copied = (
        sorted(path.name for path in folder.iterdir())
        for folder in (server.traces, harness.out / "trace" / "attached")
    )
    assert len(kept) == 2 and kept == copied
    assert f"there: {', '.join(kept)}" in said_by(done)
    assert "attached_analysis.json" in {path.name for path in harness.logs.iterdir()}
    assert not (harness.logs / "attached_server_command.sh").exists()
    report = (harness.logs / "report.md").read_text()
    assert "already running" in report
    said = " ".join(read_object(harness.logs / "attached_launch.json")["warnings"])
    assert "CUDA graphs" in said and "how long the turns of its ranks took" in said


def test_two_attached_runs_are_compared(harness, tmp_path):
    with Server(harness, tmp_path / "own") as server:
        for name in ("one", "two"):
            given = ["--attach", server.url, "--yes", "--no-profile", "--python", PYTHON]
            given += ["--batch", "2", "--max-new-tokens", "4", "--out", str(tmp_path / name)]
            assert harness.start_bare(*given).end().status == 0
    done = ran(
        [PYTHON, "-m", "repro_pp_graphs", "compare", tmp_path / "one", tmp_path / "two"],
        cwd=harness.root,
    )
    assert done.returncode == 0, done.stderr
    assert "TPOT" in done.stdout


REFUSALS = {
    "not sglang": ({"info": None, "healthy": False}, "no sglang server: check the port"),
    "no info": ({"info": None}, "but has neither /server_info nor /get_server_info"),
    "a router": ({"info": {"version": "1"}}, "not what an sglang server says"),
    "no object": ({"info": [1]}, "not what an sglang server says"),
    "not ready": ({"healthy": False}, "does not answer /health: wait until"),
    "strange": ({"info": {**INFO, "pp_size": 0}}, "pp_size 0, which cannot be"),
    "no key": ({"key": KEY}, "wants its API key, export SGLANG_API_KEY"),
}


@pytest.mark.parametrize("how, words", REFUSALS.values(), ids=REFUSALS)
def test_a_server_that_cannot_be_measured_is_sent_no_load(harness, how, words):
    with stand_in(**how) as server:
        done = attach(harness, server.url, "--yes")
    assert done.status == 2
    (error,) = done.own_errors
    assert words in error and done.out == ""
    assert asked(server) == [] and not harness.out.exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (["--pp-size", "2"], "--pp-size has no effect"),
        (["--resume"], "--resume has no effect"),
        (["--profile-steps", "4000"], "may die of it: 200 at most"),
        (["--trace-dir", "/nowhere"], "no such folder here: make it"),
    ],
)
def test_what_a_running_server_does_not_take(harness, words, said):
    with stand_in() as server:
        done = attach(harness, server.url, "--yes", *words)
    assert done.status == 2 and said in done.own_errors[0]
    assert asked(server) == []


@pytest.mark.parametrize(
    "url", ["localhost:30000", "http://me:secret@localhost:1", "http://h/?a=b"]
)
def test_an_address_that_is_none(harness, url):
    done = attach(harness, url, "--yes")
    assert done.status == 2 and "name the server as http://HOST:PORT" in done.own_errors[0]
    assert "secret" not in done.err


def test_nobody_there(harness):
    done = attach(harness, f"http://127.0.0.1:{free_port()}", "--yes")
    assert done.status == 2 and "nothing listens there" in done.own_errors[0]


def test_a_wrong_key_is_refused_and_the_right_one_is_stored_nowhere(harness):
    harness.env["SGLANG_API_KEY"] = "wrong"
    with stand_in(key=KEY, info={**INFO, "api_key": KEY}) as server:
        done = attach(harness, server.url, "--yes")
        assert done.status == 2 and "the key in SGLANG_API_KEY" in done.own_errors[0]
        harness.env["SGLANG_API_KEY"] = KEY
        assert attach(harness, server.url, "--yes", "--no-profile").status == 0
        del harness.env["SGLANG_API_KEY"]
        harness.env["OPENAI_API_KEY"] = KEY
        done = attach(harness, server.url, "--yes", "--no-profile")
    assert done.status == 0 and KEY not in text_of(harness.out) + "".join(done.lines)


def test_a_key_that_the_server_repeats_is_masked(harness):
    harness.env["SGLANG_API_KEY"] = KEY
    with stand_in(key=KEY, fault="http", message=f"no more for {KEY}") as server:
        done = attach(harness, server.url, "--yes")
    left = text_of(harness.out)
    assert done.status == 1 and "no more for <masked>" in left
    assert KEY not in left + "".join(done.lines)


def test_without_a_terminal_nothing_is_sent_unasked(harness):
    with stand_in() as server:
        done = attach(harness, server.url)
        assert done.status == 2
        (error,) = done.own_errors
        assert "--yes sends it without asking" in error
        shown = attach(harness, server.url, "--dry-run")
    assert shown.status == 0 and "/start_profile" in shown.out
    assert asked(server) == []


@pytest.mark.parametrize("answer, sent", [("n", False), ("", False), ("y", True)])
def test_on_a_terminal_it_asks(harness, answer, sent):
    """The question comes after all that will be sent, and before any of it is."""
    with stand_in() as server:
        words = ["bash", str(harness.root / "run_repro.sh"), "--attach", server.url]
        words += ["--no-profile", "--out", str(harness.out), "--python", PYTHON]
        words += ["--batch", "2", "--max-new-tokens", "4"]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execvpe("bash", words, harness.env)
        shown = b""
        while b"[y/N]" not in shown:
            shown += os.read(terminal, 4096)
        assert b"2 prompts at once" in shown and asked(server) == []
        os.write(terminal, answer.encode() + b"\n")
        with contextlib.suppress(OSError):  # its end
            while more := os.read(terminal, 4096):
                shown += more
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == (0 if sent else 2), shown
    assert bool(asked(server)) == sent


PROFILES = {
    "no profiler": ((404, "Not Found"), "no profiler"),
    "admin key": ((401, "Unauthorized"), "export SGLANG_ADMIN_API_KEY"),
    "already": ((500, "Profiling is already in progress."), "may be running already"),
}


@pytest.mark.parametrize("profile, words", PROFILES.values(), ids=PROFILES)
def test_why_a_profile_is_refused_is_said_with_what_to_do(tmp_path, profile, words):
    with stand_in(profile=profile) as server:
        place = Attached(server.url, "", local=True)
        launch = made_up_run.launch("attached", attached=place)
        with pytest.raises(attached_profile.NotProfiledError, match=words):
            attached_profile.AttachedProfile(launch, place, tmp_path).start(2, False)


def test_a_profile_that_is_refused_costs_no_measurement(hurried):
    profile, words = PROFILES["admin key"]
    with stand_in(profile=profile) as server:
        done = attach(hurried, server.url, "--yes", "--trace-dir", str(hurried.root))
    assert done.status == 1 and hurried.statuses() == {"attached": "ok"}
    assert words in said_by(done)
    assert "/stop_profile" not in asked(server)  # it may be somebody else's


def test_traces_that_do_not_come_are_to_be_copied(hurried, tmp_path):
    """As many as the server's own ranks are waited for."""
    traces = tmp_path / "shared"
    traces.mkdir()
    info = {**INFO, "tp_size": 4, "dp_size": 2, "enable_dp_attention": True, "ep_size": 4}
    with stand_in(info=info) as server:
        done = attach(hurried, server.url, "--yes", "--trace-dir", str(traces))
    said = said_by(done)
    assert done.status == 1 and hurried.statuses() == {"attached": "ok"}
    assert f"no trace came into {traces}" in said
    assert f"python -m repro_pp_graphs report {hurried.out}" in said
    assert "/stop_profile" in asked(server)
    assert "0 of 8 ranks written" in done.out
    plan = json.loads((hurried.logs / "run.json").read_text())
    assert plan["launches"][0]["attached"]["url"] == server.url


def test_copied_traces_are_reported(hurried, tmp_path):
    """What the line of a run without traces says, done."""
    with Server(hurried, tmp_path / "own", "--pp-size", "2") as server:
        elsewhere = tmp_path / "elsewhere"
        hurried.replace("server/running.py", '"" if pid is None else _folder_of(pid)', '""')
        done = attach(hurried, server.url, "--yes")
        assert done.status == 1 and server.lives(), (done.lines, elsewhere)
        assert "the server's own folder" in said_by(done)
        wait_until(lambda: server.log.read_text().count("Profiling done") == 2)
    folder = hurried.out / "trace" / "attached"
    folder.mkdir()
    for path in server.traces.iterdir():
        path.rename(folder / path.name)
    command = [PYTHON, "-m", "repro_pp_graphs", "report", str(hurried.out)]
    assert subprocess.run(command, cwd=hurried.root, check=False).returncode == 0
    assert (hurried.logs / "attached_analysis.json").exists()


def test_a_server_that_dies_under_load(harness, tmp_path):
    with Server(harness, tmp_path / "own", FAKE_FAULT="die_measure") as server:
        done = attach(harness, server.url, "--yes")
    said = said_by(done)
    assert done.status == 1 and harness.statuses() == {"attached": "failed"}
    assert "no longer listens: it has ended" in said and "run the same command" in said
    assert "--resume" not in said and "To run what is not finished" in said


def test_a_server_that_dies_while_it_is_profiled(hurried, tmp_path):
    with Server(hurried, tmp_path / "own", "--pp-size", "2", FAKE_FAULT="die_profile") as server:
        done = attach(hurried, server.url, "--yes")
    assert done.status == 1 and hurried.statuses() == {"attached": "failed"}
    assert "see the server's log" in said_by(done)


def test_ctrl_c_ends_the_load_and_the_profile_that_it_began(hurried, tmp_path):
    hurried.replace(
        "run/launch/attached_profile.py", "MOST_STEPS_S = 1.0, 180.0", "MOST_STEPS_S = 90.0, 180.0"
    )
    with stand_in() as server:
        given = ["--attach", server.url, "--yes", "--out", str(hurried.out), "--python", PYTHON]
        given += ["--batch", "2", "--max-new-tokens", "4", "--trace-dir", str(tmp_path)]
        run = hurried.start_bare(*given)
        wait_until(lambda: "/start_profile" in asked(server))
        os.kill(run.process.pid, signal.SIGINT)
        done = run.end()
        sent = len(server.received)
        assert done.status == 130 and "/stop_profile" in asked(server)
        assert hurried.left_over() == []
        assert len(server.received) == sent  # no load is left


@pytest.mark.parametrize(
    "info, reason",
    [
        ({"version": "0.5.2"}, "overwrite one another"),
        ({"version": "0.5.3"}, "overwrite one another"),
        ({"version": "0.5.3.post2"}, ""),
        ({"version": "0.5.3.post10"}, ""),
        ({"version": "0.5.2", "pp_size": 1}, ""),
        ({"dp_size": 2}, "replicas"),
        ({"dp_size": 2, "tp_size": 2, "enable_dp_attention": True}, ""),
    ],
)
def test_what_would_leave_no_traces_is_not_profiled(info, reason):
    info = {**INFO, **info}
    found = attached.why_not_profiled(info, info["version"])
    assert reason in found if reason else found == ""


LONG = "9" * 5000


@pytest.mark.parametrize(
    "name", ["pp_size", "tp_size", "nnodes", "version", "model_path", "dp_size"]
)
@pytest.mark.parametrize(
    "value", [None, -1, 10**30, 1e300, "x", LONG, f"0.5.{LONG}", f"0.5.3.post{LONG}", [], {"a": 1}]
)
def test_whatever_a_server_says_of_itself_it_is_planned_or_refused_in_a_line(
    name, value, tmp_path, monkeypatch
):
    given = ["--root", str(CHECKOUT), "--out", str(tmp_path), "--python", "/usr/bin/python3"]
    options = run_options.parse([*given, "--attach", "http://127.0.0.1:1", "--yes"])
    monkeypatch.setattr(running, "place_of", lambda host, port: running.Place(local=False))
    monkeypatch.setattr(running, "info_of", lambda url, local: INFO | {name: value})
    try:
        plan = attached.plan(options)
    except PlanError as refused:
        assert name in str(refused) and len(str(refused)) < 200
    else:
        assert len(plan.launches) == 1
