"""Ready is what answers /health, whatever the log says."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import made_up_run
import pytest
import requests
import server_logs
from fake_sglang.harness import Harness, free_port
from standin_server import MODEL, StandIn

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.run import wait_ready_step
from repro_pp_graphs.server import http
from repro_pp_graphs.server.machine import listener

QUIET = f"{server_logs.START}\n[2026-11-20 09:00:40] Attention backend not set. Use fa3 backend.\n"


def logs_folder(tmp_path: Path, port: int, log: str) -> Path:
    """What run_repro.sh leaves before it waits for a server at `port`."""
    plan = made_up_run.plan(made_up_run.launch(case="quiet", python="python3", port=port))
    logs = tmp_path / "logs"
    logs.mkdir()
    run_record.save(logs, plan)
    (logs / "A_server.log").write_text(log)
    return logs


def wait(logs: Path, timeout_s: str = "1") -> int:
    return wait_ready_step.main([str(logs.parent), "A", str(os.getpid()), "--timeout-s", timeout_s])


@pytest.mark.parametrize("log", ["", QUIET, server_logs.whole("@captured\n")])
def test_a_server_that_answers_is_ready_though_its_log_does_not_say_so(
    log: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with StandIn() as server:
        port = int(server.url.rpartition(":")[2])
        assert wait(logs_folder(tmp_path, port, log), "600") == 0
    assert f"ready: {MODEL}" in capsys.readouterr().out
    assert launch_record.load(tmp_path / "logs", "A").server_info["model_path"] == MODEL


def test_another_server_that_began_to_listen_just_before_it_answered_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    owners = [listener.Owner(False, "")]  # when first looked up, nobody listens yet

    def owner(*_: object) -> listener.Owner:
        return owners.pop() if owners else listener.Owner(False, "pid 4242 (python3)")

    monkeypatch.setattr(listener, "owner", owner)
    with StandIn() as server:
        port = int(server.url.rpartition(":")[2])
        assert wait(logs_folder(tmp_path, port, QUIET), "600") == 1
    assert f"port {port} is answered by pid 4242 (python3)" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/health", "/model_info"])
def test_a_server_that_refuses_is_not_ready(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(
        http.Server, {"/health": "healthy", "/model_info": "model"}[path], lambda _: ""
    )
    with StandIn() as server:
        port = int(server.url.rpartition(":")[2])
        assert wait(logs_folder(tmp_path, port, QUIET)) == 1
    assert "slow, or hung" in capsys.readouterr().out


def test_a_port_that_accepts_and_says_nothing_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    healthy = http.Server.healthy
    monkeypatch.setattr(http.Server, "healthy", lambda self: healthy(self, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert wait(logs_folder(tmp_path, silent.getsockname()[1], QUIET)) == 1


@pytest.mark.launches
def test_a_server_whose_log_says_nothing_is_measured_and_profiled(tmp_path: Path):
    with Harness(tmp_path / "r") as harness:
        harness.replace("run/profile_step.py", "SILENT_LOAD_S = 5.0", "SILENT_LOAD_S = 0.5")
        harness.case("quiet", "FAKE_QUIET=1")
        done = harness.run("--cases", "quiet")
        assert done.status == 0, done.lines
        (launch,) = harness.summary()["launches"]
        assert launch["status"] == "ok" and launch["metrics"]["completed"] == 2
        assert len(launch["trace_bytes"]) == 2
        assert "the log names no decode steps" in done.out


def test_nothing_that_listens_is_not_ready(tmp_path: Path):
    assert wait(logs_folder(tmp_path, free_port(), QUIET)) == 1


@pytest.mark.parametrize(
    "body", [b"[1]", b"5", b"<html>", b"[" * 100_000, b'{"a":' * 980 + b"1" + b"}" * 980, b""]
)
def test_what_is_no_account_of_a_server_is_taken_for_none(body: bytes):
    answer = requests.Response()
    answer._content = body
    assert http.object_in(answer) is None


def test_an_account_of_a_server_may_nest():
    answer = requests.Response()
    answer._content = b'{"a": {"b": [{"c": 1}]}}'
    assert http.object_in(answer) == {"a": {"b": [{"c": 1}]}}
