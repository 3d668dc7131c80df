"""The load client's sockets: who sends, who reads, whose time stamps, and what if that fails."""

import json
import shutil
import socket
import ssl
import subprocess

import pytest
import urllib3
from client_harness import LINUX, TEN_TOKENS, client_runs, serve
from standin_server import Behaviour, StandIn

from repro_pp_graphs.client.clock import ANCILLARY_BYTES, ask_for_stamps
from repro_pp_graphs.client.epoll import READ_BYTES, EpollReader
from repro_pp_graphs.client.handover import _Pool


@pytest.fixture
def run_client(tmp_path, capsys):
    """Runs the client in this process, 10 tokens a prompt: (exit status, document)."""
    with client_runs(tmp_path, capsys, *TEN_TOKENS) as run:
        yield lambda *argv: run(*argv)[:2]


def counted(document):
    return [request["tokens"] for request in document["requests"]]


def events(count):
    reasons = [None] * (count - 1) + [{"type": "length"}]
    metas = ({"completion_tokens": n + 1, "finish_reason": why} for n, why in enumerate(reasons))
    lines = [b"data: " + json.dumps({"text": "x", "meta_info": m}).encode() for m in metas]
    return b"\n\n".join([*lines, b"data: [DONE]", b""])


@pytest.fixture
def stamping():
    """The kernel stamps: it begins some time after the first socket has asked for it."""
    with socket.socket(type=socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        ask_for_stamps(own)
        ancillary = []
        while not ancillary:
            own.sendto(b"x", own.getsockname())
            _, ancillary, _, _ = own.recvmsg(1, ANCILLARY_BYTES)
        yield


@LINUX
@pytest.mark.usefixtures("stamping")
def test_plain_tcp_is_stamped_by_the_kernel_and_the_result_says_so(run_client):
    with StandIn(Behaviour(itl_s=0.002)) as server:
        _, document = run_client(server.url, "--concurrency", "3")
    summary = document["summary"]
    assert (summary["timestamps"], summary["kernel_timestamp_share"]) == ("kernel", 1)
    assert summary["self_check"]["max_reader_lag_ms"] > 0


@pytest.mark.parametrize("how", ["threads", "refused"])
def test_without_the_kernels_stamps_arrivals_are_stamped_on_return(run_client, monkeypatch, how):
    monkeypatch.setattr("repro_pp_graphs.client.handover.ask_for_stamps", lambda _: None)
    with StandIn() as server:
        reader = "threads" if how == "threads" else "auto"
        _, document = run_client(server.url, "--concurrency", "2", "--reader", reader)
    summary = document["summary"]
    assert (summary["timestamps"], summary["kernel_timestamp_share"]) == ("user", 0)
    assert (summary["self_check"]["max_reader_lag_ms"] is None) == (how == "threads")
    assert counted(document) == [10, 10]


def test_a_urllib3_that_hands_no_socket_over_is_read_through_requests(run_client, monkeypatch):
    monkeypatch.setattr(_Pool, "ConnectionCls", urllib3.connection.HTTPConnection)
    with StandIn(Behaviour(itl_s=0.002)) as server:
        status, document = run_client(server.url, "--concurrency", "3", "--reader", "epoll")
    assert (status, counted(document)) == (0, [10, 10, 10])
    assert document["summary"]["timestamps"] == "user"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) for 127.0.0.1, made here and trusted by nobody else."""
    if not shutil.which("openssl"):
        pytest.skip("needs the openssl command")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    argv += ["-out", str(pem), "-keyout", str(key)]
    subprocess.run(argv, check=True, capture_output=True)
    return pem, key


@pytest.mark.parametrize("reader", ["epoll", "threads"])
def test_https_is_verified_and_read_like_http(run_client, certificate, monkeypatch, reader):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = StandIn(Behaviour(itl_s=0.001))
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    with server:
        url = server.url.replace("http:", "https:")
        status, document = run_client(url, "--concurrency", "3", "--reader", reader)
        assert status == 1
        assert all("CERTIFICATE_VERIFY_FAILED" in r["error"] for r in document["requests"])
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
        status, document = run_client(url, "--concurrency", "3", "--reader", reader)
    assert (status, counted(document)) == (0, [10, 10, 10])
    summary = document["summary"]
    assert (summary["timestamps"], summary["reader"]) == ("user", reader)


def test_a_proxy_gets_the_whole_address(run_client, monkeypatch):
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    port, seen = serve([head + events(10)])
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    monkeypatch.delenv("no_proxy", raising=False)
    url = "http://203.0.113.9:30000"
    status, document = run_client(url, "--batch", "1", "--model", "m")
    assert seen == [f"POST {url}/generate HTTP/1.1"]
    assert (status, counted(document)) == (0, [10])


FRAMINGS = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(events(10)), events(10)),
    "until DONE": b"\r\n" + events(10),
    "chunk end cut": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n"
    % (len(events(10)), events(10)),
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stream_ends_though_the_server_keeps_the_connection(run_client, framing):
    pieces = [b"HTTP/1.1 200 OK\r\n" + FRAMINGS[framing]]
    port, _ = serve([*pieces, b"\r\n"] if framing == "chunk end cut" else pieces)
    url = f"http://127.0.0.1:{port}"
    status, document = run_client(url, "--batch", "1", "--model", "m", "--stall-timeout", "30")
    assert (status, counted(document)) == (0, [10])


def test_an_http_error_on_a_kept_connection_does_not_stall(run_client):
    body = b'{"error":{"message":"busy"}}'
    port, _ = serve([b"HTTP/1.1 503 Busy\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)])
    url = f"http://127.0.0.1:{port}"
    _, document = run_client(url, "--batch", "1", "--model", "m", "--stall-timeout", "30")
    assert document["requests"][0]["error"] == "http 503: busy"


def test_a_long_run_parses_early_and_finds_the_same(run_client, monkeypatch):
    monkeypatch.setattr("repro_pp_graphs.client.epoll.RAW_BYTES_KEPT", 0)
    monkeypatch.setattr("repro_pp_graphs.client.epoll.SLAB_BYTES", READ_BYTES + 2000)
    parsed = []
    backlog = EpollReader._parse_backlog
    monkeypatch.setattr(
        EpollReader, "_parse_backlog", lambda self: parsed.append(1) or backlog(self)
    )
    monkeypatch.setattr("repro_pp_graphs.client.driver.TICK_S", 0.02)
    with StandIn(Behaviour(itl_s=0.02)) as server:
        status, document = run_client(server.url, "--concurrency", "4")
    assert parsed
    assert (status, counted(document)) == (0, [10] * 4)
    for request in document["requests"]:
        assert [tokens for _, tokens in request["events"]] == list(range(1, 11))
