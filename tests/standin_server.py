"""A stand-in for an sglang server: what a client and a harness use of its HTTP, faults on order.

    with StandIn(Behaviour(itl_s=0.005)) as server:
        requests.post(server.url + "/generate", json=…, stream=True)
        server.received            # [(path, payload), …], in order of arrival

or `python tests/standin_server.py --port 30000 --itl-ms 5` for a process of its own. It answers
/health, /model_info, /server_info, /v1/models, /start_profile, /stop_profile, and streams
/generate and /v1/completions as sglang does: HTTP chunked, one SSE event a prompt and step, `index`
in batches, cumulative text and counts. Other paths are 404. Listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "stand-in/tiny"
Received = list[tuple[str, dict[str, Any]]]  # (path, payload) of each POST
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


FAULTS = (
    *("http", "reset", "close", "stall", "malformed"),
    *("error", "abort", "short", "silent_prompt"),
)


@dataclass(frozen=True)
class Behaviour:
    """How the server streams, and what goes wrong. A fault strikes after `fault_after` tokens.

    fault: http (answers `http_status`), reset (RST), close (FIN in mid-stream), stall (silence),
    malformed (an event that is no JSON), error (an error event), abort (finish_reason abort),
    short (finish_reason stop), or silent_prompt (the last prompt of a batch gets nothing).
    """

    ttft_s: float = 0.0
    itl_s: float = 0.0
    tokens_a_chunk: int = 1
    incremental: bool = False  # as with --incremental-streaming-output
    continuous_usage: bool = True  # False: OpenAI usage only at the end, as sglang before 0.5.6
    late_head: bool = False  # the response head leaves together with the first event
    write_bytes: int | None = None  # cut every write into pieces of this size
    events_a_write: int = 1
    ignore_close: bool = False  # keeps the connection open although asked to close it
    fault: str | None = None
    fault_after: int = 0
    fault_from: int = 0  # the requests before this one do not fail, counted from 0
    fault_requests: int | None = None  # only the first so many requests fail
    http_status: int = 503
    message: str = "stand-in fault"
    # given the requests so far: streams get nothing after their first token while it is true
    hold: Callable[[Received], bool] | None = None
    micro_batch_name: str = "pp_max_micro_batch_size"  # that /set_internal_state takes
    most_in_micro_batch: int = 64  # --max-running-requests / PP ranks
    admits_refusals: bool = True  # False: /set_internal_state answers [true], as up to 0.5.14


class Stop(Exception):
    """Ends a response early, as the fault asked."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server
    _late_head = b""

    def log_message(self, format: str, *args: object) -> None:
        """Silent: tests read `received` instead."""

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/health": "",
            "/health_generate": "",
            "/model_info": {"model_path": MODEL, "is_generation": True},
            "/get_model_info": {"model_path": MODEL, "is_generation": True},
            "/server_info": {"model_path": MODEL, "version": "stand-in", **self._states()},
            "/get_server_info": {"model_path": MODEL, "version": "stand-in", **self._states()},
            "/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
        }
        if self.path in answers:
            self._whole(200, answers[self.path])
        else:
            self._whole(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        payload = json.loads(body) if body else {}
        number = self.server.receive(self.path, payload)
        if self.path in ("/start_profile", "/stop_profile", "/flush_cache"):
            self._whole(200, "ok\n")
        elif self.path == "/set_internal_state":
            self._set(payload["server_args"])
        elif self.path in ("/generate", "/v1/completions"):
            self._stream(payload, number)
        else:
            self._whole(404, {"detail": "Not Found"})

    def _states(self) -> dict[str, Any]:
        """The schedulers' own state, of which there is one."""
        return {"internal_states": [dict(self.server.state)]}

    def _set(self, asked: dict[str, int]) -> None:
        how = self.server.behaviour
        own = asked.keys() <= {how.micro_batch_name}
        taken = own and all(1 <= size <= how.most_in_micro_batch for size in asked.values())
        if taken:
            self.server.state.update(asked)
        self._whole(200, [taken or not how.admits_refusals])

    def _whole(self, status: int, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        body = text.encode()
        self.send_response(status)
        kind = "text/plain" if isinstance(content, str) else "application/json"
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, payload: dict[str, Any], number: int) -> None:
        how = self.server.behaviour
        limited = how.fault_requests is not None and number >= how.fault_requests
        fault = None if limited or number < how.fault_from else how.fault
        if fault == "http":
            self._whole(how.http_status, {"error": {"message": how.message}})
            return
        try:
            if how.late_head:
                self._late_head = STREAM_HEAD
            else:
                self._write(STREAM_HEAD)
            pending: list[bytes] = []
            for event in self._events(payload, fault):
                pending.append(b"data: " + event + b"\n\n")
                if len(pending) == how.events_a_write:
                    self._chunk(b"".join(pending))
                    pending.clear()
            self._chunk(b"".join([*pending, b"data: [DONE]\n\n"]))
            self._write(b"0\r\n\r\n")
            if how.ignore_close:
                self.close_connection = False
        except (Stop, ConnectionError):
            self.close_connection = True

    def _events(self, payload: dict[str, Any], fault: str | None) -> Iterator[bytes]:
        how = self.server.behaviour
        native = self.path == "/generate"
        prompt = payload["text"] if native else payload["prompt"]
        prompts = prompt if isinstance(prompt, list) else [prompt]
        asked = payload["sampling_params"]["max_new_tokens"] if native else payload["max_tokens"]
        total = how.fault_after if fault in ("short", "abort") else int(asked)
        time.sleep(how.ttft_s)
        done = 0
        while done < total:
            before, done = done, min(done + how.tokens_a_chunk, total)
            if fault is not None and done > how.fault_after:
                yield from self._strike(fault)
            reason = None
            if done == total:
                kind = {"short": "stop", "abort": "abort"}.get(fault or "", "length")
                reason = {"type": kind, "message": how.message}
            for index, text in enumerate(prompts):
                if fault == "silent_prompt" and index == len(prompts) - 1:
                    continue
                shown = range(before if how.incremental or not native else 0, done)
                words = "".join(f" 词{i}" for i in shown)
                if native:
                    event = _native(words, str(text), done, reason)
                    event |= {"index": index} if len(prompts) > 1 else {}
                else:
                    event = _openai(words, str(text), done, reason, how.continuous_usage)
                    event["choices"][0]["index"] = index
                yield json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
            if done < total:
                self._hold()
                time.sleep(how.itl_s * (done - before))
        if not native:
            usage = {"prompt_tokens": 1, "completion_tokens": total * len(prompts)}
            yield json.dumps({"choices": [], "model": MODEL, "usage": usage}).encode()

    def _hold(self) -> None:
        server, hold = self.server, self.server.behaviour.hold
        while hold and hold(server.received) and not server.closing.is_set():
            time.sleep(0.005)

    def _strike(self, fault: str) -> Iterator[bytes]:
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            raise Stop
        if fault == "close":
            self.connection.shutdown(socket.SHUT_RDWR)
            raise Stop
        if fault == "stall":
            self.server.stalled.set()
            self.server.closing.wait()
            raise Stop
        if fault == "malformed":
            yield b'{"text": "cut sho'
        if fault == "error":
            yield json.dumps({"error": {"message": self.server.behaviour.message}}).encode()
            self._chunk(b"data: [DONE]\n\n")
            self._write(b"0\r\n\r\n")
            raise Stop

    def _chunk(self, data: bytes) -> None:
        head, self._late_head = self._late_head, b""
        self._write(head + f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _write(self, data: bytes) -> None:
        size = self.server.behaviour.write_bytes or len(data)
        for at in range(0, len(data), size):
            self.wfile.write(data[at : at + size])


def _native(text: str, prompt: str, tokens: int, reason: dict[str, str] | None) -> dict[str, Any]:
    meta = {
        "id": "stand-in",
        "finish_reason": reason,
        "prompt_tokens": len(prompt.split()),
        "completion_tokens": tokens,
        "cached_tokens": 0,
    }
    return {"text": text, "output_ids": list(range(tokens)), "meta_info": meta}


def _openai(
    text: str, prompt: str, tokens: int, reason: dict[str, str] | None, usage: bool
) -> dict[str, Any]:
    choice = {"index": 0, "text": text, "finish_reason": reason["type"] if reason else None}
    counted = {"prompt_tokens": len(prompt.split()), "completion_tokens": tokens}
    return {"choices": [choice], "model": MODEL, "usage": counted if usage else None}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, behaviour: Behaviour, port: int) -> None:
        self.behaviour = behaviour
        self.received: Received = []
        self.state = {behaviour.micro_batch_name: behaviour.most_in_micro_batch}
        self.closing = threading.Event()
        self.stalled = threading.Event()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def receive(self, path: str, payload: dict[str, Any]) -> int:
        """Note a POST; how many of its path came before it."""
        with self._lock:
            number = sum(known == path for known, _ in self.received)
            self.received.append((path, payload))
        return number

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class StandIn:
    """The server in a thread of this process; a context manager."""

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self._server = _Server(behaviour or Behaviour(), port)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def received(self) -> Received:
        """Every POST so far: (path, payload)."""
        return self._server.received

    @property
    def stalled(self) -> threading.Event:
        """Set once a stream has fallen silent, as fault "stall" asks."""
        return self._server.stalled

    def __enter__(self) -> StandIn:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description="A stand-in sglang server on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=30000)
    parser.add_argument("--ttft-ms", type=float, default=20.0)
    parser.add_argument("--itl-ms", type=float, default=5.0)
    parser.add_argument("--fault", choices=FAULTS, help="goes wrong on purpose")
    parser.add_argument("--fault-after", type=int, default=0, metavar="TOKENS")
    args = parser.parse_args()
    behaviour = Behaviour(
        ttft_s=args.ttft_ms / 1e3,
        itl_s=args.itl_ms / 1e3,
        fault=args.fault,
        fault_after=args.fault_after,
    )
    with StandIn(behaviour, args.port) as server:
        print(f"listening on {server.url}", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
