"""What is put into the checkout, or behind its port, before a fault's command runs there."""

from __future__ import annotations

import contextlib
import os
import socketserver
import threading

from fake_sglang.harness import CHECKOUT, Harness
from fault_commands import RUN, Prepare


def case(*lines: str) -> Prepare:
    """A case called x with these lines."""

    def prepare(harness: Harness) -> None:
        text = "\n".join([*lines, ""])
        (harness.root / "server_args_x.txt").write_bytes(text.encode("utf-8", "surrogateescape"))

    return prepare


def content(name: str, data: bytes, mode: int = 0o644) -> Prepare:
    """A file with this content."""

    def prepare(harness: Harness) -> None:
        path = harness.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)

    return prepare


def folder(name: str, mode: int = 0o755, owner: int = 0) -> Prepare:
    """A folder of somebody's."""

    def prepare(harness: Harness) -> None:
        (harness.root / name).mkdir(parents=True)
        (harness.root / name).chmod(mode)
        if os.geteuid() == 0:
            os.chown(harness.root / name, owner, owner)

    return prepare


def checkout_in(name: str) -> Prepare:
    """Another checkout, in a folder of that name."""

    def prepare(harness: Harness) -> None:
        (harness.root / name).mkdir()
        for part in (RUN[1], "repro_pp_graphs"):
            (harness.root / name / part).symlink_to(CHECKOUT / part)

    return prepare


def answering(data: bytes, hold: bool = False) -> Prepare:
    """A server at the harness's port that answers each POST with these bytes, and with `hold` does
    not end the connection."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            first = self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(OSError):
                if not first.startswith(b"POST"):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                    return
                self.wfile.write(data)
                if hold:
                    self.rfile.read()

    def prepare(harness: Harness) -> None:
        socketserver.ThreadingTCPServer.allow_reuse_address = True
        server = socketserver.ThreadingTCPServer(("127.0.0.1", harness.port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        harness.servers.append(server)

    return prepare


def together(*steps: Prepare) -> Prepare:
    """One after the other."""

    def prepare(harness: Harness) -> None:
        for step in steps:
            step(harness)

    return prepare
