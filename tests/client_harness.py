"""The load client in this process, what it changes of the process put back; answers to feed it."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from repro_pp_graphs.client import command
from repro_pp_graphs.client.clock import KernelClock
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.stream import Stream, parse_stream

CLIENT = Path(__file__).resolve().parents[1] / "client_benchmark.py"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="SO_TIMESTAMPING is Linux's")
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
TEN_TOKENS = ("--warmup", "0", "--max-new-tokens", "10")


def main(argv: Sequence[str]) -> int:
    """The client's exit status, in this process."""
    return command.main(argv, CLIENT.parent)


@contextmanager
def client_runs(
    folder: Path, capsys: Any, *common: str
) -> Iterator[Callable[..., tuple[int, dict[str, Any], str]]]:
    """run(url, *options) -> (exit status, --output document, stdout)."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    interval = sys.getswitchinterval()

    def run(url: str, *argv: str) -> tuple[int, dict[str, Any], str]:
        output = folder / "out.json"
        status = main(["--base-url", url, "--output", str(output), *common, *argv])
        return status, json.loads(output.read_text(encoding="utf-8")), capsys.readouterr().out

    yield run
    sys.setswitchinterval(interval)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def native(tokens, reason=None, index=None, text="词"):
    meta = {"completion_tokens": tokens, "prompt_tokens": 4, "cached_tokens": 1}
    event = {"text": text, "meta_info": meta | {"finish_reason": reason}}
    return json.dumps(event | ({} if index is None else {"index": index}), ensure_ascii=False)


def openai(tokens, reason=None, text="w", **more):
    """One event of /v1/completions as a dict; tokens None: without a count."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    usage = tokens and {"prompt_tokens": 4, "completion_tokens": tokens, "total_tokens": tokens + 4}
    return {"object": "text_completion", "model": "m", "choices": [choice], "usage": usage} | more


def chunked(*pieces, content_type="text/event-stream"):
    """A whole answer with status 200, each piece an HTTP chunk."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n".encode()
    chunks = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(chunks)


def response(*payloads, chunk_bytes=None):
    body = "".join(f"data: {payload}\n\n" for payload in payloads).encode()
    size = chunk_bytes or len(body)
    pieces = (body[at : at + size] for at in range(0, len(body), size))
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def stream(raw, read_bytes=None, prompts=1):
    size = read_bytes or len(raw)
    reads = [(at // size, raw[at : at + size]) for at in range(0, len(raw), size)]
    return stream_of(reads, prompts)


def stream_of(reads, prompts=1):
    """A stream whose reads are (arrival_ns, bytes)."""
    reads = deque((at, data, 0, len(data), None) for at, data in reads)
    return Stream(body=b"", prompts=prompts, start_ns=-10, sent_ns=-10, reads=reads)


def generated(server, path="/generate"):
    """The bodies that a stand-in server got."""
    return [payload for to, payload in server.received if to == path]


def parse(the_stream, *argv):
    return parse_stream(the_stream, parse_options(argv), KernelClock())


def serve(*answers):
    """A server on 127.0.0.1 that takes one connection an answer, [bytes | None, …]; None: hangs.

    Returns (port, the requests' first lines); a connection stays open until the client ends it.
    """
    listener = socket.create_server(("127.0.0.1", 0), backlog=16)
    seen = []

    def answer(connection, pieces):
        with connection:
            request = b""
            while not request.rstrip().endswith(b"}"):
                request += connection.recv(65536)
            seen.append(request.split(b"\r\n")[0].decode())
            for piece in pieces:
                connection.sendall(piece)
            connection.recv(1)

    def accept():
        with listener:
            for pieces in answers:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection, pieces), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener.getsockname()[1], seen
