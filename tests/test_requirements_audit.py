"""requirements/audit.py: what osv.dev is asked, and what is said of its answer or without one."""

from __future__ import annotations

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "requirements"))

import audit  # noqa: E402


@contextmanager
def service(answer: bytes) -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A stand-in for osv.dev: its address, and what it was asked."""
    asked: list[dict[str, object]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def results(**advisories: list[str]) -> bytes:
    """An answer as osv.dev's, in the order of the packages."""
    found: list[dict[str, object]] = []
    for package in audit.locked(ROOT):
        ids = advisories.get(package.name, [])
        found.append({"vulns": [{"id": one, "modified": ""} for one in ids]} if ids else {})
    return json.dumps({"results": found}).encode()


def test_every_locked_version_is_asked_for_once() -> None:
    packages = audit.locked(ROOT)
    assert len(packages) == len(set(packages))
    pins = sum(
        line[:1].isalnum() and "==" in line
        for line in (ROOT / "requirements/test.txt").read_text().splitlines()
    )
    assert len(packages) > pins > 0
    names = {(one.ecosystem, one.name) for one in packages}
    assert {("PyPI", "torch"), ("PyPI", "pytest"), ("npm", "echarts")} <= names


def test_an_advisory_is_named_with_its_package(capsys: pytest.CaptureFixture[str]) -> None:
    with service(results(pytest=["PYSEC-1", "GHSA-x"])) as (address, asked):
        assert audit.main(address) == 1
    (version,) = (one.version for one in audit.locked(ROOT) if one.name == "pytest")
    head, line = capsys.readouterr().out.splitlines()
    assert "names 1 of" in head
    assert line == f"  pytest {version}: PYSEC-1, GHSA-x"
    query = {"package": {"ecosystem": "PyPI", "name": "pytest"}, "version": version}
    assert query in asked[0]["queries"]


def test_without_an_advisory_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with service(results()) as (address, _):
        assert audit.main(address) == 0
    assert "names 0 of" in capsys.readouterr().out


@pytest.mark.parametrize(
    "answer", [b"", b"<html>", b"{}", b"[]", b'{"results": [{}]}', b'{"results": [1]}']
)
def test_another_answer_is_no_audit(answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with service(answer) as (address, _):
        assert audit.main(address) == 0
    assert capsys.readouterr().out.startswith("audit of the locks: skipped, osv.dev: an answer")


def test_nobody_there_and_nobody_who_answers_are_no_audit(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert audit.main(address) == 0  # bound, not listening: refused
        listener.listen()
        assert audit.main(address, limit_s=0.2) == 0
    refused, silent = capsys.readouterr().out.splitlines()
    assert refused.startswith("audit of the locks: skipped, osv.dev: ")
    assert "Connection refused" in refused
    assert silent == "audit of the locks: skipped, osv.dev: no answer within 0.2 s"
