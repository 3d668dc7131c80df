#!/usr/bin/env python3
"""Streaming load client for sglang and OpenAI-compatible servers, in one file.

Purpose   Send prompts, stamp every byte that comes back, and derive TTFT, ITL, TPOT, E2E and
          throughput from the raw (arrival, cumulative tokens) pairs; --output saves those.
Usage     python client_benchmark.py --base-url http://127.0.0.1:30000 --output run.json
Overhead  While streams run, one thread reads sockets and stamps what it read; nothing is parsed
          until the last stream has ended. The raw bytes stay in memory until then.

Needs     Python 3.10 and requests; works when copied alone to another machine.

Token counts are the server's own (`meta_info.completion_tokens`; `usage` of OpenAI servers),
never a count of chunks. All times are this machine's CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import gc
import http.client
import itertools
import json
import math
import os
import queue
import random
import re
import selectors
import signal
import socket
import statistics
import sys
import textwrap
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

READ_BYTES = 1 << 18
CONNECT_TIMEOUT_S = 10.0
TICK_S = 0.25
RETRY_S = 0.25  # under --duration: a dead server must not be asked thousands of times a second
LAST_HTTP_CHUNK = (b"0\r\n\r\n", b"\r\n0\r\n\r\n")  # alone in a read, or behind data
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
STATISTICS = ("mean", "median", "p90", "p95", "p99", "max", "std")
# Short words that are one token each in the usual BPE vocabularies, so words come close to tokens.
SYNTHETIC_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"),
    *("school", "state", "family", "group", "country", "problem", "hand", "part", "place", "case"),
    *("week", "company", "system", "program", "question", "work", "number", "night", "point"),
)
HERE = Path(__file__).resolve().parent
clock_ns = time.monotonic_ns


class UsageError(Exception):
    """Something the user has to change; printed as one line, exit status 2."""


# ---------------------------------------------------------------------------------------------
# Options


class Options(argparse.Namespace):
    """The command line, parsed and completed."""

    base_url: str
    backend: str
    model: str | None
    prompts: Path
    input_len: int | None
    batch: int
    concurrency: int | None  # None: no limit, at a request rate
    num_prompts: int | None
    request_rate: float | None
    duration_s: float | None
    max_new_tokens: int
    ignore_eos: bool
    seed: int
    warmup: int
    stall_timeout_s: float
    max_error_rate: float
    reader: str
    output: Path | None


EXAMPLES = """examples:
  one request of 16 prompts, 128 tokens each, raw arrivals saved
    python client_benchmark.py --batch 16 --max-new-tokens 128 --output run.json
  64 separate streams
    python client_benchmark.py --concurrency 64
  Poisson arrivals, 4 requests a second, 200 requests
    python client_benchmark.py --request-rate 4 --num-prompts 200
  keep 8 streams busy for a minute (a load to profile under)
    python client_benchmark.py --concurrency 8 --duration 60
  an OpenAI-compatible server; its key is taken from OPENAI_API_KEY
    python client_benchmark.py --backend openai --base-url http://127.0.0.1:8000

exit status: 0 measured; 1 more failures than --max-error-rate; 2 usage; 130 interrupted
(what had arrived is still reported and written)."""


def _number(
    kind: type[int] | type[float], low: float, above: bool = False
) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `low`, or `above` it."""

    def parse(text: str) -> float:
        value = kind(text)
        if not low <= value < math.inf or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text}: must be {'>' if above else '>='} {low:g}")
        return value

    return parse


def parse_options(argv: Sequence[str]) -> Options:
    """Options from the command line; `--max_new_tokens` and `--max-new-tokens` are the same."""
    parser = argparse.ArgumentParser(
        description="Measure streaming latency and throughput of an inference server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    count, above_zero = _number(int, 1), _number(float, 0, above=True)
    # fmt: off
    add = parser.add_argument_group("server").add_argument
    add("--base-url", default="http://127.0.0.1:30000", metavar="URL")
    add("--backend", choices=("sglang", "openai"), default="sglang",
        help="sglang: /generate (default); openai: /v1/completions")
    add("--model", help="model name for openai (default: the first of /v1/models)")
    add = parser.add_argument_group("load").add_argument
    add("--prompts", type=Path, metavar="FILE", default=HERE / "prompts.txt",
        help="one prompt a line (default: prompts.txt beside this file)")
    add("--input-len", type=count, metavar="N", help="synthetic prompts of about N tokens")
    add("--batch", type=count, metavar="N",
        help="prompts in one request (default 16; 1 with --concurrency or --request-rate)")
    add("--concurrency", type=count, metavar="N",
        help="separate streams kept in flight (with --request-rate: the most in flight)")
    add("--num-prompts", type=count, metavar="N",
        help="prompts in all (default: batch x concurrency; every prompt of the file at a rate)")
    add("--request-rate", type=above_zero, metavar="R",
        help="requests a second, Poisson, open loop")
    add("--duration", dest="duration_s", type=above_zero, metavar="S",
        help="start new streams until S seconds passed")
    add("--max-new-tokens", type=count, default=128, metavar="N", help="tokens a prompt (128)")
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True,
        help="generate exactly --max-new-tokens (default)")
    add("--seed", type=int, default=0, help="for arrivals, synthetic prompts and OpenAI's seed (0)")
    add("--warmup", type=_number(int, 0), default=1, metavar="N",
        help="requests sent and awaited before measuring (1)")
    add = parser.add_argument_group("result").add_argument
    add("--output", type=Path, metavar="FILE.json", help="summary and every raw arrival")
    add("--max-error-rate", type=_number(float, 0), default=0.0, metavar="F",
        help="share of prompts that may fail before the exit status is 1 (0)")
    add("--stall-timeout", dest="stall_timeout_s", type=above_zero, default=300, metavar="S",
        help="give a stream up after S seconds without a byte (300)")
    add("--reader", choices=("auto", "epoll", "threads"), default="auto",
        help="epoll: one thread, plain http; threads: one a stream, https and proxies too")
    # fmt: on
    words = [
        name.replace("_", "-") + equals + value if word.startswith("--") else word
        for word in argv
        for name, equals, value in [word.partition("=")]
    ]
    options = parser.parse_args(words, namespace=Options())
    parts = urlsplit(options.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        parser.error("--base-url: give it as http://HOST:PORT (and a key in OPENAI_API_KEY)")
    options.base_url = options.base_url.rstrip("/")
    separate = options.concurrency is not None or options.request_rate is not None
    options.batch = options.batch or (1 if separate else 16)
    if options.request_rate is None:
        options.concurrency = options.concurrency or 1
    return options


# ---------------------------------------------------------------------------------------------
# What is sent


@dataclass(eq=False)
class Stream:
    """One HTTP request and the raw bytes of its response."""

    body: bytes
    prompts: int
    due_offset_ns: int | None = None
    lane: int = 0
    intended_ns: int = 0
    start_ns: int = 0
    sent_ns: int = 0
    end_ns: int = 0
    chunks: list[tuple[int, bytes]] = field(default_factory=list)
    status: int | None = None  # set where the chunks are the decoded body, without HTTP framing
    error: str | None = None
    connection: http.client.HTTPConnection | None = None

    def failed_early(self) -> bool:
        """Whether it is plain without parsing that no tokens came: no connection, or no 200."""
        head = self.chunks[0][1][:16] if self.chunks else b""
        return self.status != 200 if self.status is not None else b" 200 " not in head


class Prompts:
    """An endless, reproducible supply of prompts; negative numbers are for the warm-up."""

    def __init__(self, options: Options) -> None:
        self._input_len, self._seed = options.input_len, options.seed
        self._lines: list[str] = []
        if options.input_len is None:
            try:
                text = options.prompts.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise UsageError(
                    f"--prompts {options.prompts}: {exc}; give a UTF-8 file of one prompt a line, "
                    "or --input-len N"
                ) from exc
            self._lines = [line for line in map(str.strip, text.splitlines()) if line]
            if not self._lines:
                raise UsageError(f"--prompts {options.prompts}: the file holds no prompt")

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        if self._input_len is None:
            return self._lines[number % len(self._lines)]
        rng = random.Random(f"{self._seed} {number}")
        return " ".join(rng.choices(SYNTHETIC_WORDS, k=self._input_len))


def request_body(options: Options, model: str, texts: list[str]) -> bytes:
    """The JSON of one request; several texts make one batched request."""
    prompt = texts if len(texts) > 1 else texts[0]
    if options.backend == "sglang":
        # No sampling_seed: early releases refuse the name, and temperature 0 does not sample.
        payload: dict[str, Any] = {
            "text": prompt,
            "sampling_params": {
                "temperature": 0,
                "max_new_tokens": options.max_new_tokens,
                "ignore_eos": options.ignore_eos,
            },
            "stream": True,
        }
    else:
        payload = {
            "model": model,
            "prompt": prompt,
            "max_tokens": options.max_new_tokens,
            "temperature": 0,
            "seed": options.seed,
            "ignore_eos": options.ignore_eos,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
    return json.dumps(payload, ensure_ascii=False).encode()


def plan(
    options: Options, model: str, prompts: Prompts, first: int, total: int | None
) -> Iterator[Stream]:
    """The requests in order, `total` prompts in all (None: without end), numbered from `first`."""
    rng = random.Random(options.seed)
    due_s = 0.0
    for done in itertools.count(0, options.batch):
        size = options.batch if total is None else min(options.batch, total - done)
        if size <= 0:
            return
        texts = [prompts[first + done + i] for i in range(size)]
        stream = Stream(body=request_body(options, model, texts), prompts=size)
        if options.request_rate is not None:
            stream.due_offset_ns = round(due_s * 1e9)
            due_s += rng.expovariate(options.request_rate)
        yield stream


def prompts_in_all(options: Options, prompts: Prompts) -> int | None:
    """How many prompts a run sends; None when only --duration ends it."""
    if options.num_prompts is not None or options.duration_s is not None:
        return options.num_prompts
    if options.request_rate is not None:
        return len(prompts) or 32
    return options.batch * (options.concurrency or 1)


# ---------------------------------------------------------------------------------------------
# Sending and reading: the hot path only reads bytes and stamps them


class Server:
    """Where requests go, and how: headers, proxies and certificates as `requests` sees them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        path = "/generate" if options.backend == "sglang" else "/v1/completions"
        self.url = options.base_url + path
        self.parts = urlsplit(self.url)
        self.session = requests.Session()
        loopback = self.parts.hostname in ("localhost", "127.0.0.1", "::1")
        if loopback and self.parts.scheme == "http":
            self.session.trust_env = False  # a proxy from the environment cannot reach it
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
        }
        if os.environ.get("OPENAI_API_KEY"):
            self.headers["Authorization"] = f"Bearer {os.environ['OPENAI_API_KEY']}"

    def plain(self) -> bool:
        """Whether a bare socket reaches the server: http, and no proxy in between."""
        settings = self.session.merge_environment_settings(self.url, {}, None, None, None)
        proxy = requests.utils.select_proxy(self.url, dict(settings["proxies"]))
        return self.parts.scheme == "http" and proxy is None

    def model(self) -> str:
        """The served model's name, or "default" where the server does not say."""
        if self.options.model:
            return self.options.model
        try:
            reply = self.session.get(
                f"{self.options.base_url}/v1/models", headers=self.headers, timeout=5
            )
            return str(reply.json()["data"][0]["id"])
        except (requests.RequestException, ValueError, LookupError, TypeError):
            return "default"


def describe_io_error(exc: OSError, what: str, url: str) -> str:
    """`kind: detail` for a connection that failed while `what`; `requests` hides causes in text."""
    text = str(exc)
    if "Connection refused" in text:
        return f"refused: nothing listens at {url}; is the server up?"
    if isinstance(exc, TimeoutError) or "timed out" in text:
        return f"stalled: timed out while {what}"
    if isinstance(exc, ConnectionError) or "reset by peer" in text:
        return f"reset: while {what}: {text}"
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return "truncated: the connection closed in the middle of the response"
    return f"connection: while {what}: {text}"


class Transport:
    """Sends streams and puts each on `finished` when its response has ended, well or not."""

    name = ""

    def __init__(self, server: Server) -> None:
        self.finished: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.reader_lags_ns: list[int] = []  # first wake-up to last stamp, a round of reading
        self._server = server

    def connect(self, stream: Stream) -> None:
        """Do ahead of sending what can be done ahead."""

    def send(self, stream: Stream) -> None:
        """Send the request and return; sets `sent_ns`."""
        raise NotImplementedError

    def give_up_stalled(self, active: Iterable[Stream], now_ns: int) -> None:
        """End streams that have been silent for longer than --stall-timeout."""

    def close(self) -> None:
        """Stop reading and drop what is still open."""

    def _end(self, stream: Stream, error: str | None) -> None:
        stream.error = stream.error or error
        stream.end_ns = clock_ns()
        self.finished.put(stream)


class SocketTransport(Transport):
    """One thread reads every socket, response heads included, so that a first token that comes in
    the same packet as the head is stamped like any other. http.client sends: a `requests` call
    would return only after it had read, and buffered past, the head."""

    name = "epoll"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._selector = selectors.DefaultSelector()
        self._new: deque[tuple[Stream, socket.socket]] = deque()
        self._wake_reader, self._wake = socket.socketpair()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._stopping = False
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def connect(self, stream: Stream) -> None:
        parts = self._server.parts
        host = parts.hostname or ""
        connection = http.client.HTTPConnection(host, parts.port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except OSError as exc:
            self._end(stream, describe_io_error(exc, "connecting", self._server.url))
            return
        connection.sock.settimeout(self._server.options.stall_timeout_s)
        stream.connection = connection

    def send(self, stream: Stream) -> None:
        if stream.connection is None and stream.error is None:
            self.connect(stream)
        stream.sent_ns = clock_ns()
        if stream.connection is None:
            return
        path, headers = self._server.parts.path, self._server.headers | {"Connection": "close"}
        try:
            stream.connection.request("POST", path, stream.body, headers)
        except OSError as exc:
            stream.connection.close()
            self._end(stream, describe_io_error(exc, "sending", self._server.url))
            return
        stream.connection.sock.setblocking(False)
        self._new.append((stream, stream.connection.sock))
        self._wake.send(b"n")

    def give_up_stalled(self, active: Iterable[Stream], now_ns: int) -> None:
        limit_s = self._server.options.stall_timeout_s
        for stream in active:
            last_ns = stream.chunks[-1][0] if stream.chunks else stream.sent_ns
            if stream.connection is not None and now_ns - last_ns > limit_s * 1e9:
                stream.error = f"stalled: no byte for {limit_s:g} s (--stall-timeout)"
                with contextlib.suppress(OSError):  # the reader may have closed it just now
                    stream.connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stopping = True
        self._wake.send(b"s")
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                key.data[1].close()
        self._selector.close()
        self._wake.close()
        self._wake_reader.close()

    def _read(self) -> None:
        select, unregister = self._selector.select, self._selector.unregister
        while not self._stopping:
            ready = select()
            woken_ns = now_ns = clock_ns()
            for key, _ in ready:
                if key.data is None:
                    self._wake_reader.recv(READ_BYTES)
                    while self._new:
                        stream, sock = self._new.popleft()
                        self._selector.register(sock, selectors.EVENT_READ, (stream, sock))
                    continue
                stream, sock = key.data
                error = None
                try:
                    data = sock.recv(READ_BYTES)
                except BlockingIOError:
                    continue
                except OSError as exc:
                    data, error = b"", describe_io_error(exc, "reading", self._server.url)
                now_ns = clock_ns()
                if data:
                    stream.chunks.append((now_ns, data))
                if not data or data[-7:] in LAST_HTTP_CHUNK:
                    unregister(sock)
                    sock.close()
                    self._end(stream, error)
            self.reader_lags_ns.append(now_ns - woken_ns)


class ThreadTransport(Transport):
    """A thread a stream, over `requests` alone: TLS, proxies and compressed bodies. Dearer."""

    name = "threads"

    def send(self, stream: Stream) -> None:
        stream.sent_ns = clock_ns()
        threading.Thread(target=self._exchange, args=(stream,), daemon=True).start()

    def _exchange(self, stream: Stream) -> None:
        server, error, what = self._server, None, "connecting"
        try:
            with server.session.post(
                server.url,
                data=stream.body,
                headers=server.headers,
                stream=True,
                timeout=(CONNECT_TIMEOUT_S, server.options.stall_timeout_s),
            ) as reply:
                stream.status, what = reply.status_code, "reading"
                # Only a chunked body is handed over as it comes; any other is read to its end.
                framed = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
                for data in reply.iter_content(None if framed else 1):
                    stream.chunks.append((clock_ns(), data))
        except OSError as exc:  # requests.RequestException is one
            error = describe_io_error(exc, what, server.url)
        self._end(stream, error)


@dataclass
class Run:
    """What one run left, unparsed."""

    streams: list[Stream] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0
    cpu_s: float = 0.0
    interrupted: bool = False
    reader: str = ""
    reader_lags_ns: list[int] = field(default_factory=list)


class Driver:
    """Sends what is `ahead`, at most --concurrency streams at a time, until all have ended."""

    def __init__(
        self, ahead: Iterator[Stream], server: Server, options: Options, label: str
    ) -> None:
        self._ahead = ahead
        self._duration_s = options.duration_s
        self._open_loop = options.request_rate is not None
        self._limit = options.concurrency
        self._free: deque[tuple[int, int]] = deque()  # (lane, free since)
        self._active: set[Stream] = set()
        threaded = options.reader == "threads" or (options.reader == "auto" and not server.plain())
        self._transport = ThreadTransport(server) if threaded else SocketTransport(server)
        self._progress = Progress(label)
        self._run = Run(reader=self._transport.name)

    def run(self) -> Run:
        """Returns when all is done, or at once on Ctrl-C or SIGTERM: then `interrupted`."""
        run = self._run
        run.begin_ns = next_tick_ns = clock_ns()
        gc.disable()
        try:
            upcoming = self._begin()
            while upcoming is not None or self._active:
                upcoming = self._send_due(upcoming)
                now_ns = clock_ns()
                if now_ns >= next_tick_ns:
                    self._transport.give_up_stalled(self._active, now_ns)
                    self._progress.show(run, self._active, now_ns)
                    next_tick_ns = now_ns + round(TICK_S * 1e9)
                wake_ns = next_tick_ns
                if upcoming is not None and self._free:
                    wake_ns = min(wake_ns, self._due_ns(upcoming))
                self._collect(max(0, wake_ns - now_ns) / 1e9)
        except KeyboardInterrupt:
            run.interrupted = True
            for stream in self._active:
                stream.error = stream.error or "interrupted: stopped by a signal"
        finally:
            run.end_ns = clock_ns()
            run.cpu_s += time.process_time()
            self._transport.close()
            gc.enable()
            self._progress.clear()
        run.reader_lags_ns = self._transport.reader_lags_ns
        return run

    def _begin(self) -> Stream | None:
        """Connect the first wave of a closed loop, so that it leaves together; start the clock."""
        wave = [] if self._open_loop else list(itertools.islice(self._ahead, self._limit))
        for stream in wave:
            self._transport.connect(stream)
        self._ahead = itertools.chain(wave, self._ahead)
        self._run.begin_ns, self._run.cpu_s = clock_ns(), -time.process_time()
        self._free.extend((lane, self._run.begin_ns) for lane in range(self._limit or 1))
        return next(self._ahead, None)

    def _due_ns(self, stream: Stream) -> int:
        if stream.due_offset_ns is not None:
            return self._run.begin_ns + stream.due_offset_ns
        return self._free[0][1]

    def _send_due(self, upcoming: Stream | None) -> Stream | None:
        """Send all that is due and has a free lane; the first that is not, or None at the end."""
        begin_ns = self._run.begin_ns
        end_ns = begin_ns + self._duration_s * 1e9 if self._duration_s else math.inf
        while upcoming is not None and self._free:
            due_ns = self._due_ns(upcoming)
            if max(due_ns, clock_ns()) >= end_ns:
                return None
            if due_ns > clock_ns():
                break
            upcoming.intended_ns = upcoming.start_ns = due_ns
            if self._limit is not None:
                upcoming.lane, _ = self._free.popleft()
            if self._open_loop:
                upcoming.lane = len(self._run.streams)
            self._run.streams.append(upcoming)
            self._active.add(upcoming)
            self._transport.send(upcoming)
            if not self._open_loop:
                upcoming.start_ns = upcoming.sent_ns
            upcoming = next(self._ahead, None)
        return upcoming

    def _collect(self, timeout_s: float) -> None:
        """Take in the streams that have ended, waiting for the first up to `timeout_s`."""
        with contextlib.suppress(queue.Empty):
            stream = self._transport.finished.get(timeout=timeout_s)
            while True:
                self._active.discard(stream)
                if self._limit is not None:
                    pause_ns = round(RETRY_S * 1e9) if stream.failed_early() else 0
                    self._free.append((stream.lane, stream.end_ns + pause_ns))
                stream = self._transport.finished.get_nowait()


class Progress:
    """A line rewritten in place, on a terminal only, from the newest bytes of each stream."""

    def __init__(self, label: str) -> None:
        self._label, self._on = label, sys.stdout.isatty()
        self._tokens: dict[Stream, int] = {}

    def show(self, run: Run, active: Iterable[Stream], now_ns: int) -> None:
        if not self._on:
            return
        busy = list(active)
        for stream in busy:
            found = COMPLETION_TOKENS.findall(stream.chunks[-1][1]) if stream.chunks else []
            if found:
                self._tokens[stream] = int(found[-1]) * stream.prompts
        tokens = sum(self._tokens.values())
        gaps_ms = [
            (stream.chunks[-1][0] - stream.chunks[0][0]) / 1e6 / (each - 1)
            for stream in busy
            if (each := self._tokens.get(stream, 0) // stream.prompts) > 1
        ]
        itl = f"  ITL ~{statistics.fmean(gaps_ms):.1f} ms" if gaps_ms else ""
        rate = tokens / max(1e-9, (now_ns - run.begin_ns) / 1e9)
        done = len(run.streams) - len(busy)
        line = f"{self._label}: {done}/{len(run.streams)} streams  ~{rate:.0f} tok/s{itl}"
        sys.stdout.write(f"\r\x1b[K{line[:79]}")
        sys.stdout.flush()

    def clear(self) -> None:
        if self._on:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()


# ---------------------------------------------------------------------------------------------
# Parsing, after the run


@dataclass
class Record:
    """One prompt; `events` are [arrival_ns, cumulative tokens], each with a new token or more."""

    start_ns: int
    sent_ns: int
    intended_ns: int
    lane: int
    events: list[list[int]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    uncounted_ns: list[int] = field(default_factory=list)  # arrivals that came without a count

    def add(self, arrival_ns: int, cumulative_tokens: int | None) -> None:
        if cumulative_tokens is None:
            self.uncounted_ns.append(arrival_ns)
        elif cumulative_tokens > self.tokens:
            self.tokens = cumulative_tokens
            self.events.append([arrival_ns, cumulative_tokens])


class HttpResponse:
    """A raw HTTP/1.1 response: status, headers and where in `raw` the body's pieces lie."""

    def __init__(self, raw: bytes) -> None:
        at = 0
        while True:
            head_end = raw.find(b"\r\n\r\n", at)
            if head_end < 0:
                raise ValueError("the connection closed before a whole response head")
            lines = raw[at:head_end].decode("latin-1").split("\r\n")
            at = head_end + 4
            fields = lines[0].split(None, 2)
            if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdigit():
                raise ValueError(f"not an HTTP response: {lines[0][:60]!r}")
            self.status = int(fields[1])
            if self.status >= 200:
                break
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        self.spans = list(_chunk_spans(raw, at)) if chunked else [(at, len(raw))]


def _chunk_spans(raw: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each HTTP chunk's data; the last may be cut short by a lost connection."""
    while (line_end := raw.find(b"\r\n", at)) >= 0:
        try:
            size = int(raw[at:line_end].split(b";")[0], 16)
        except ValueError:
            raise ValueError(f"bad HTTP chunk size {raw[at:line_end][:20]!r}") from None
        start = line_end + 2
        if size == 0 or start >= len(raw):
            return
        yield start, min(start + size, len(raw))
        at = start + size + 2


def data_lines(
    chunks: Sequence[tuple[int, bytes]], raw: bytes, spans: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    """(arrival_ns, payload) of every `data:` line; it arrived with the read that ended its line."""
    chunk, chunk_end = 0, len(chunks[0][1]) if chunks else 0
    partial = b""
    for start, end in spans:
        at = start
        while (newline := raw.find(b"\n", at, end)) >= 0:
            line, partial = partial + raw[at:newline], b""
            while newline >= chunk_end:
                chunk += 1
                chunk_end += len(chunks[chunk][1])
            if line.startswith(b"data:"):
                yield chunks[chunk][0], line[5:].strip()
            at = newline + 1
        partial += raw[at:end]


def server_message(payload: object) -> str:
    """The human part of an error body: {"error": {"message": …}}, {"message": …}, {"detail": …}."""
    while isinstance(payload, dict):
        for key in ("error", "message", "detail"):
            if payload.get(key):
                payload = payload[key]
                break
        else:
            break
    return " ".join(str(payload).split())[:300]


def parse_stream(stream: Stream, options: Options) -> list[Record]:
    """One record a prompt. An error is set on the prompts it concerns; what arrived is kept."""
    records = [
        Record(stream.start_ns, stream.sent_ns, stream.intended_ns, stream.lane)
        for _ in range(stream.prompts)
    ]
    error = _fill(records, stream) if stream.chunks or stream.status is not None else None
    for record in records:
        _spread_uncounted(record)
        if record.error is not None:
            continue
        if error is not None:
            record.error = error
        elif record.finish_reason is None:
            record.error = stream.error or "truncated: the stream ended without a finish reason"
        elif not record.events or (options.ignore_eos and record.tokens < options.max_new_tokens):
            record.error = (
                f"short: {record.tokens} of {options.max_new_tokens} tokens "
                f"(finish reason {record.finish_reason})"
            )
    return records


def _fill(records: list[Record], stream: Stream) -> str | None:
    """Put the stream's tokens into `records`; an error that concerns them all, or None."""
    raw = b"".join(data for _, data in stream.chunks)
    status, spans = stream.status, [(0, len(raw))]
    if status is None:
        try:
            response = HttpResponse(raw)
        except ValueError as exc:
            return stream.error or f"malformed: {exc}"
        status, spans = response.status, response.spans
        if response.headers.get("content-encoding", "identity") != "identity":
            return "malformed: the server compresses its answer; use --reader threads"
    if status != 200:
        body = b"".join(raw[start:end] for start, end in spans).decode("utf-8", "replace")
        with contextlib.suppress(ValueError):
            body = json.loads(body)
        return f"http {status}: {server_message(body)}"
    error = None
    for arrival_ns, payload in data_lines(stream.chunks, raw, spans):
        if payload == b"[DONE]":
            break
        try:
            _take_event(records, arrival_ns, json.loads(payload))
        except (ValueError, LookupError, TypeError, AttributeError):
            excerpt = payload[:60].decode("utf-8", "replace")
            error = error or f"malformed: event not understood: {excerpt}"
    return error


def _take_event(records: list[Record], arrival_ns: int, event: dict[str, Any]) -> None:
    if "error" in event:
        for record in records:
            if record.finish_reason is None:
                record.error = f"server: {server_message(event)}"
    elif "meta_info" in event:
        _take_native(records, arrival_ns, event)
    elif event["choices"]:
        _take_openai(records, arrival_ns, event)
    elif event.get("usage") and any(record.uncounted_ns for record in records):
        _take_final_usage(records, int(event["usage"]["completion_tokens"]))


def _take_native(records: list[Record], arrival_ns: int, event: dict[str, Any]) -> None:
    meta = event["meta_info"]
    record = records[event.get("index", 0)]
    record.add(arrival_ns, int(meta["completion_tokens"]))
    record.prompt_tokens = int(meta.get("prompt_tokens") or 0)
    record.cached_tokens = int(meta.get("cached_tokens") or 0)
    reason = meta.get("finish_reason")
    if reason is not None:
        kind = str(reason["type"] if isinstance(reason, dict) else reason)
        _finish(record, kind, reason.get("message") if isinstance(reason, dict) else None)


def _take_openai(records: list[Record], arrival_ns: int, event: dict[str, Any]) -> None:
    choice = event["choices"][0]
    record = records[choice.get("index", 0)]
    usage = event.get("usage")
    record.add(arrival_ns, int(usage["completion_tokens"]) if usage else None)
    if usage:
        record.prompt_tokens = int(usage.get("prompt_tokens") or 0)
    if choice.get("finish_reason") is not None:
        _finish(record, str(choice["finish_reason"]), None)


def _finish(record: Record, reason: str, message: object) -> None:
    record.finish_reason = reason
    if reason == "abort":
        record.error = f"aborted: {server_message(message or 'by the server')}"


def _take_final_usage(records: list[Record], total: int) -> None:
    """The total of a server that counts only at the end; a batch's cannot be told apart."""
    records[0].tokens = total
    for record in records if len(records) > 1 else ():
        record.tokens = 0
        record.error = (
            "uncounted: the server counts a batch as one; use --batch 1 "
            "(or an sglang with continuous_usage_stats: 0.5.6 or later)"
        )


def _spread_uncounted(record: Record) -> None:
    """Events of a record whose total alone is known.

    As many arrivals as tokens are one token each. Otherwise only the first and the last arrival are
    kept: TTFT, TPOT and E2E hold, single gaps are unknown.
    """
    arrivals, total = record.uncounted_ns, record.tokens
    if record.events or not arrivals or not total:
        return
    if len(arrivals) == total:
        record.events = [[arrival_ns, i] for i, arrival_ns in enumerate(arrivals, 1)]
    elif len(arrivals) == 1 or total == 1:
        record.events = [[arrivals[0], total]]
    else:
        record.events = [[arrivals[0], 1], [arrivals[-1], total]]


# ---------------------------------------------------------------------------------------------
# Metrics


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Linear interpolation between ranks, numpy's default."""
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def distribution(name: str, values: Iterable[float]) -> dict[str, float | None]:
    """{"mean_<name>": …} for each of STATISTICS (std: of the population); None without a value."""
    ordered = sorted(values)
    if not ordered:
        return {f"{key}_{name}": None for key in STATISTICS}
    mean = statistics.fmean(ordered)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    figures = (mean, *(percentile(ordered, p) for p in (50, 90, 95, 99, 100)), std)
    return {f"{key}_{name}": value for key, value in zip(STATISTICS, figures, strict=True)}


def itl_ms(record: Record) -> list[float]:
    """Gap between two arrivals divided by the new tokens of the later one, once a token; ms."""
    gaps: list[float] = []
    for (before_ns, before), (after_ns, after) in itertools.pairwise(record.events):
        new = after - before
        gaps += [(after_ns - before_ns) / 1e6 / new] * new
    return gaps


def tokens_at(record: Record, time_ns: int) -> float:
    """Cumulative tokens at `time_ns`; between two arrivals in proportion, before the first 0."""
    after = bisect.bisect_right(record.events, time_ns, key=lambda event: event[0])
    if after == 0 or after == len(record.events):
        return float(record.events[after - 1][1]) if after else 0.0
    (before_ns, tokens), (after_ns, more) = record.events[after - 1 : after + 1]
    return tokens + (more - tokens) * (time_ns - before_ns) / (after_ns - before_ns)


def steady_state(records: Sequence[Record]) -> dict[str, float] | None:
    """From the last lane's first token to the first lane's last: every lane streams. None if never.

    A lane is one place in the concurrency, whose prompts follow one another; so without --duration
    or a larger --num-prompts every prompt is a lane of its own.
    """
    lanes: dict[tuple[int, int], list[list[int]]] = {}
    position: Counter[tuple[int, int]] = Counter()
    for record in records:
        request = (record.lane, record.sent_ns)
        lanes.setdefault((record.lane, position[request]), []).extend(record.events)
        position[request] += 1
    if not lanes or not all(lanes.values()):
        return None
    start_ns = max(events[0][0] for events in lanes.values())
    end_ns = min(events[-1][0] for events in lanes.values())
    if end_ns <= start_ns:
        return None
    tokens = sum(tokens_at(r, end_ns) - tokens_at(r, start_ns) for r in records)
    duration_s = (end_ns - start_ns) / 1e9
    return {
        "start_ns": start_ns,
        "end_ns": end_ns,
        "duration_s": duration_s,
        "output_tokens": tokens,
        "output_throughput": tokens / duration_s,
    }


def itl_over_time(records: Iterable[Record], begin_ns: int, end_ns: int) -> list[dict[str, float]]:
    """Mean ITL in twenty equal parts of the run: [{"t_s", "mean_itl_ms", "tokens"}]."""
    width_ns = max(1, (end_ns - begin_ns) // 20 + 1)
    sums: dict[int, list[float]] = {}
    for record in records:
        for (before_ns, before), (after_ns, after) in itertools.pairwise(record.events):
            part = sums.setdefault((after_ns - begin_ns) // width_ns, [0.0, 0.0])
            part[0] += (after_ns - before_ns) / 1e6
            part[1] += after - before
    return [
        {"t_s": part * width_ns / 1e9, "mean_itl_ms": gaps / tokens, "tokens": tokens}
        for part, (gaps, tokens) in sorted(sums.items())
    ]


def self_check(records: Sequence[Record], run: Run, total_tokens: int) -> dict[str, Any]:
    """How far the client itself can have moved the numbers."""
    arrivals = sum(len(record.events) for record in records)
    together = sum(
        before[0] == after[0] for r in records for before, after in itertools.pairwise(r.events)
    )
    wall_s = max(1e-9, (run.end_ns - run.begin_ns) / 1e9)
    lags_ms = [(record.sent_ns - record.intended_ns) / 1e6 for record in records if record.sent_ns]
    return {
        **distribution("send_lag_ms", lags_ms),
        **distribution("reader_lag_ms", (lag_ns / 1e6 for lag_ns in run.reader_lags_ns)),
        "read_together_share": together / arrivals if arrivals else None,
        "client_cpu_share": run.cpu_s / wall_s,
        "client_cpu_ms_per_1k_tokens": run.cpu_s * 1e6 / total_tokens if total_tokens else None,
    }


def peak_in_flight(spans: Iterable[tuple[int, int]]) -> int:
    """The most requests open at once."""
    changes = sorted([(s, 1) for s, _ in spans] + [(e, -1) for _, e in spans])
    return max(itertools.accumulate(step for _, step in changes), default=0)


def summarize(
    records: Sequence[Record], run: Run, options: Options, model: str, prompts_in_file: int
) -> dict[str, Any]:
    """Every figure of the report: `_ms` in the name or seconds; throughput a second.

    TTFT and ITL also take interrupted prompts; TPOT and E2E only completed ones.
    """
    completed = [record for record in records if record.error is None]
    streaming = [
        r for r in records if r.events and (r.error is None or r.error.startswith("interrupted"))
    ]
    begin_ns = min((record.start_ns for record in records), default=run.begin_ns)
    end_ns = max((r.events[-1][0] for r in records if r.events), default=run.end_ns)
    duration_s = max(1e-9, (end_ns - begin_ns) / 1e9)
    e2e_ms = [(r.events[-1][0] - r.start_ns) / 1e6 for r in completed]
    output_tokens = sum(record.tokens for record in records)
    input_tokens = sum(record.prompt_tokens for record in records)
    check = self_check(records, run, output_tokens)
    uncounted = any(record.uncounted_ns for record in records)
    summary: dict[str, Any] = {
        "backend": options.backend,
        "base_url": options.base_url,
        "model": model,
        "batch": options.batch,
        "max_concurrency": options.concurrency,
        "request_rate": options.request_rate,
        "max_new_tokens": options.max_new_tokens,
        "ignore_eos": options.ignore_eos,
        "seed": options.seed,
        "warmup": options.warmup,
        "interrupted": run.interrupted,
        "completed": len(completed),
        "failed": len(records) - len(completed),
        "errors": Counter((r.error or "").split(":")[0] for r in records if r.error),
        "duration": duration_s,
        "total_input_tokens": input_tokens,
        "total_cached_tokens": sum(record.cached_tokens for record in records),
        "total_output_tokens": output_tokens,
        "request_throughput": len(completed) / duration_s,
        "input_throughput": input_tokens / duration_s,
        "output_throughput": output_tokens / duration_s,
        "total_throughput": (input_tokens + output_tokens) / duration_s,
        "concurrency": sum(e2e_ms) / 1e3 / duration_s,
        "max_concurrent_requests": peak_in_flight(
            [(r.start_ns, r.events[-1][0]) for r in records if r.events]
        ),
        **distribution("ttft_ms", ((r.events[0][0] - r.start_ns) / 1e6 for r in streaming)),
        **distribution(
            "tpot_ms",
            (
                (r.events[-1][0] - r.events[0][0]) / 1e6 / (r.tokens - 1)
                for r in completed
                if r.tokens > 1
            ),
        ),
        **distribution("itl_ms", itertools.chain.from_iterable(map(itl_ms, streaming))),
        **distribution("e2e_latency_ms", e2e_ms),
        **distribution("queue_ms", ((r.sent_ns - r.intended_ns) / 1e6 for r in completed)),
        "steady_state": steady_state(records),
        "itl_over_time": itl_over_time(records, begin_ns, end_ns),
        "timestamps": "user",
        "reader": run.reader,
        "token_counts": "final_usage" if uncounted else "per_event",
        "self_check": check,
    }
    sent = len(records) + options.warmup * options.batch
    summary["warnings"] = warnings_for(summary, sent, prompts_in_file)
    return summary


def warnings_for(summary: dict[str, Any], prompts: int, prompts_in_file: int) -> list[str]:
    """Sentences about anything that makes the figures mean less than they seem to."""
    check = summary["self_check"]
    found = []
    if summary["total_output_tokens"] and check["client_cpu_share"] > 0.8:
        found.append(
            f"the client used {check['client_cpu_share']:.0%} of a core: it, not the server, may "
            "limit the numbers; use fewer streams or another machine"
        )
    if (check["read_together_share"] or 0) > 0.05:
        found.append(
            f"{check['read_together_share']:.0%} of arrivals were read together with the same "
            "prompt's previous one: single gaps are unreliable, TPOT and throughput hold"
        )
    lag_ms = check["p99_send_lag_ms"] or 0
    if lag_ms > max(10, (summary["median_ttft_ms"] or 0) / 10):
        found.append(
            f"requests left up to {lag_ms:.1f} ms after they were due (p99 of send_lag_ms)"
        )
    if summary["token_counts"] == "final_usage":
        found.append(
            "the server counts tokens only at the end of a stream: ITL is exact only for streams "
            "with one token an event"
        )
    if 0 < prompts_in_file < prompts:
        found.append(
            f"{prompts_in_file} prompts in the file, {prompts} sent (warm-up included): a prefix "
            f"cache may serve the repeats ({summary['total_cached_tokens']} cached tokens reported)"
        )
    return found


# ---------------------------------------------------------------------------------------------
# Report


def report_lines(summary: dict[str, Any], records: Sequence[Record]) -> list[str]:
    """The table for people, at most 80 columns."""

    def number(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rate = f", {summary['request_rate']:g} requests/s" if summary["request_rate"] else ""
    limit = f", concurrency {summary['max_concurrency']}" if summary["max_concurrency"] else ""
    lines = [
        f"{summary['backend']} {summary['base_url']}  model {summary['model']}",
        f"batch {summary['batch']}{limit}{rate}, {summary['max_new_tokens']} new tokens a prompt, "
        f"{summary['warmup']} warm-up",
        "",
        f"{'':<10}" + "".join(f"{key:>10}" for key in STATISTICS),
    ]
    rows = {"TTFT ms": "ttft_ms", "ITL ms": "itl_ms", "TPOT ms": "tpot_ms"}
    rows["E2E ms"] = "e2e_latency_ms"
    if summary["request_rate"]:
        rows["queue ms"] = "queue_ms"
    for label, name in rows.items():
        cells = (number(summary[f"{key}_{name}"]) for key in STATISTICS)
        lines.append(f"{label:<10}" + "".join(f"{cell:>10}" for cell in cells))
    steady, check = summary["steady_state"], summary["self_check"]
    lines += [
        "",
        f"prompts        {summary['completed']} completed, {summary['failed']} failed",
        f"tokens         {summary['total_output_tokens']} out, {summary['total_input_tokens']} in "
        f"({summary['total_cached_tokens']} cached), {number(summary['duration'], 3)} s",
        f"throughput     {number(summary['output_throughput'])} output tokens/s, "
        f"{number(summary['request_throughput'])} prompts/s",
        "steady state   "
        + (
            f"{number(steady['output_throughput'])} output tokens/s over "
            f"{number(steady['duration_s'], 3)} s"
            if steady
            else "none (at no time did every stream run)"
        ),
        f"concurrency    {number(summary['concurrency'])} mean, "
        f"{summary['max_concurrent_requests']} peak",
        f"self-check     send lag p99 {number(check['p99_send_lag_ms'])} ms, reader lag p99 "
        f"{number(check['p99_reader_lag_ms'], 3)} ms,",
        f"               client CPU {check['client_cpu_share']:.1%}, read together "
        f"{(check['read_together_share'] or 0):.1%}, stamps: {summary['timestamps']}",
    ]
    notes = [f"warning: {text}" for text in summary["warnings"]]
    for error, count in Counter(r.error for r in records if r.error).most_common(10):
        notes.append(f"failed: {count} x {error}")
    lines += [line for note in notes for line in textwrap.wrap(note, 80, subsequent_indent="  ")]
    if summary["interrupted"]:
        lines.append("interrupted: the figures cover what had arrived")
    return lines


def result_document(summary: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The --output JSON, schema 1."""
    rows = [{k: v for k, v in vars(record).items() if k != "uncounted_ns"} for record in records]
    return {"schema": 1, "summary": summary, "requests": rows}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    part.replace(path)


# ---------------------------------------------------------------------------------------------


def raise_open_file_limit() -> None:
    """Every stream is a file descriptor, and the usual soft limit is 1024."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupt(*_: object) -> None:
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    """From now on what was measured is being written; a second Ctrl-C must not lose it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def measure(options: Options) -> int:
    """Warm up, run, parse, report; the exit status."""
    prompts = Prompts(options)
    if options.output is not None and not options.output.parent.is_dir():
        raise UsageError(f"--output {options.output}: no such folder; create it first")
    server = Server(options)
    if options.reader == "epoll" and not server.plain():
        raise UsageError(f"--reader epoll cannot reach {options.base_url}: https or a proxy")
    run = Run(begin_ns=clock_ns(), interrupted=True)
    model = options.model or "default"
    try:
        model = server.model()
        closed = {"request_rate": None, "duration_s": None, "concurrency": options.concurrency or 1}
        warm_options = Options(**(vars(options) | closed))
        prompts_before = options.warmup * options.batch
        ahead = plan(warm_options, model, prompts, -prompts_before, prompts_before)
        warm = Driver(ahead, server, warm_options, "warm-up").run()
        if not warm.interrupted:
            errors = {r.error for s in warm.streams for r in parse_stream(s, options) if r.error}
            for error in sorted(errors):
                print(f"warning: warm-up failed: {error}", file=sys.stderr)
            ahead = plan(options, model, prompts, 0, prompts_in_all(options, prompts))
            run = Driver(ahead, server, options, "measuring").run()
    except KeyboardInterrupt:
        run.end_ns = clock_ns()
    _ignore_signals()
    records: list[Record] = []
    for stream in run.streams:
        records += parse_stream(stream, options)
        stream.chunks.clear()
    summary = summarize(records, run, options, model, len(prompts))
    status = 1 if not records or summary["failed"] / len(records) > options.max_error_rate else 0
    if options.output is not None:
        try:
            write_json(options.output, result_document(summary, records))
        except OSError as exc:
            print(f"client_benchmark.py: --output {options.output}: {exc}", file=sys.stderr)
            status = 1
    print("\n".join(report_lines(summary, records)))
    return 130 if run.interrupted else status


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.setswitchinterval(1e-4)  # the reader must not wait 5 ms for the thread that sends
    raise_open_file_limit()
    try:
        return measure(options)
    except UsageError as exc:
        print(f"client_benchmark.py: {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
