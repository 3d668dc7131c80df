"""Every way a server fails is recorded on the request it hit, and what arrived is kept."""

import socket

import pytest
from client_harness import TEN_TOKENS, client_runs, main
from standin_server import Behaviour, StandIn


@pytest.fixture
def run_client(tmp_path, capsys):
    """Runs the client in this process, 10 tokens a prompt: (exit status, document, stdout)."""
    with client_runs(tmp_path, capsys, *TEN_TOKENS) as run:
        yield run


CASES = [
    (Behaviour(fault="http", http_status=400, message="prompt too long"), 0,
     "http 400: prompt too long"),
    (Behaviour(fault="http", http_status=503), 0, "http 503: stand-in fault"),
    (Behaviour(fault="reset", fault_after=4, itl_s=0.02), 4, "reset: while reading"),
    (Behaviour(fault="close", fault_after=4), 4, "truncated: "),
    (Behaviour(fault="stall", fault_after=4), 4, "stalled: "),
    (Behaviour(fault="malformed", fault_after=4), 10, "malformed: event not understood"),
    (Behaviour(fault="error", fault_after=4), 4, "server: stand-in fault"),
    (Behaviour(fault="abort", fault_after=4), 4, "aborted: stand-in fault"),
    (Behaviour(fault="short", fault_after=4), 4, "short: 4 of 10 tokens (finish reason stop)"),
]  # fmt: skip


@pytest.mark.parametrize("reader", ["epoll", "threads"])
@pytest.mark.parametrize(
    ("behaviour", "tokens", "error"), CASES, ids=lambda v: getattr(v, "fault", None) or str(v)
)
def test_a_failure_is_recorded_and_what_arrived_is_kept(
    run_client, behaviour, tokens, error, reader
):
    with StandIn(behaviour) as server:
        limit = "2" if behaviour.fault == "stall" else "600"
        argv = ("--batch", "2", "--stall-timeout", limit, "--reader", reader)
        status, document, text = run_client(server.url, *argv)
    assert status == 1
    for request in document["requests"]:
        assert request["error"].startswith(error)
        assert request["tokens"] == tokens
        assert [count for _, count in request["events"]] == list(range(1, tokens + 1))
    summary = document["summary"]
    assert (summary["completed"], summary["failed"]) == (0, 2)
    assert summary["errors"] == {error.split(":")[0]: 2}
    assert f"failed: 2 x {error.split(':')[0]}" in text


@pytest.mark.parametrize("reader", ["epoll", "threads"])
def test_a_refused_connection_says_what_to_do(run_client, reader):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, document, _ = run_client(url, "--concurrency", "3", "--reader", reader)
    assert status == 1
    assert len(document["requests"]) == 3
    assert all("is the server up?" in request["error"] for request in document["requests"])
    assert document["summary"]["mean_ttft_ms"] is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "refused: nothing listens at http"),
        (socket.gaierror(-2, "Name or service not known"), "connection: while connecting or"),
    ],
)
def test_a_warm_up_without_a_server_is_the_whole_run_and_said_once(
    run_client, monkeypatch, error, said
):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    argv = ("--warmup", "1", "--batch", "2", "--duration", "60", "--max-error-rate", "1")
    status, document, text = run_client("http://no-such-host.invalid:30000", *argv)
    assert status == 1 and "nothing was measured" in text
    assert text.count("failed: 2 x") == 1 and "TTFT" not in text
    assert [request["error"].startswith(said) for request in document["requests"]] == [True] * 2
    assert "object at 0x" not in text and "Pool" not in text
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_a_prompt_without_a_token_fails_alone(run_client):
    with StandIn(Behaviour(fault="silent_prompt", fault_after=99)) as server:
        status, document, _ = run_client(server.url, "--batch", "3")
    assert status == 1
    assert [request["tokens"] for request in document["requests"]] == [10, 10, 0]
    assert [request["error"] is None for request in document["requests"]] == [True, True, False]


def test_only_failures_above_max_error_rate_change_the_exit_status(run_client):
    behaviour = Behaviour(fault="http", fault_requests=1)
    argv = ("--concurrency", "4", "--max-error-rate")
    with StandIn(behaviour) as server:
        status, document, _ = run_client(server.url, *argv, "0.25")
    assert (status, document["summary"]["failed"]) == (0, 1)
    with StandIn(behaviour) as server:
        status, _, _ = run_client(server.url, *argv, "0.2")
    assert status == 1


def test_a_stalled_stream_does_not_take_its_neighbours_along(run_client):
    with StandIn(Behaviour(fault="stall", fault_after=2, fault_requests=1)) as server:
        argv = ("--concurrency", "3", "--stall-timeout", "2")
        _, document, _ = run_client(server.url, *argv)
    assert sorted(request["tokens"] for request in document["requests"]) == [2, 10, 10]
    assert document["summary"]["errors"] == {"stalled": 1}


def test_a_failed_warm_up_is_reported_and_the_run_goes_on(run_client, capsys):
    with StandIn(Behaviour(fault="http", fault_requests=1, message="still loading")) as server:
        argv = ["--base-url", server.url, "--batch", "2", "--max-new-tokens", "3"]
        assert main([*argv, "--warmup", "1"]) == 0
    assert "warm-up failed: http 503: still loading" in capsys.readouterr().err


def test_a_server_that_goes_away_while_streaming_ends_the_run(run_client):
    with StandIn(Behaviour(fault="close", fault_after=3)) as server:
        argv = ("--concurrency", "2", "--duration", "0.2")
        status, document, _ = run_client(server.url, *argv)
    assert status == 1
    assert {request["tokens"] for request in document["requests"]} == {3}


@pytest.mark.parametrize("reader", ["epoll", "threads"])
def test_a_dead_server_is_not_hammered_for_a_duration(run_client, reader):
    with StandIn(Behaviour(fault="http")) as server:
        argv = ("--concurrency", "2", "--duration", "0.4", "--reader", reader)
        _, document, _ = run_client(server.url, *argv)
    assert 0 < len(document["requests"]) <= 4


def test_a_result_that_cannot_be_written_is_still_shown(capsys, run_client):
    with StandIn() as server:
        argv = ["--base-url", server.url, "--batch", "2", "--max-new-tokens", "3"]
        assert main([*argv, "--output", "/dev/full"]) == 1
    shown = capsys.readouterr()
    assert "the result cannot be written" in shown.err
    assert "2 completed" in shown.out
