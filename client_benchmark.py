#!/usr/bin/env python3
"""Streaming load client for sglang and OpenAI-compatible servers; one file, standard library + requests.

Purpose   Send prompts, stamp every byte that comes back, and derive TTFT, ITL, TPOT, E2E and
          throughput from the raw (arrival, cumulative tokens) pairs, which are saved with --output.
Usage     python client_benchmark.py --base-url http://127.0.0.1:30000 --batch 16 --output run.json
Overhead  While streams run, one thread reads sockets and stamps what it read; nothing is parsed
          until the last stream has ended. The raw bytes stay in memory until then.

Token counts are the server's own (`meta_info.completion_tokens`, or `usage` of OpenAI servers), never
a count of chunks. All times are CLOCK_MONOTONIC nanoseconds of this machine.
"""

from __future__ import annotations

import argparse
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
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests

SCHEMA = 1
READ_BYTES = 1 << 18
CONNECT_TIMEOUT_S = 10.0
TICK_S = 0.25
LAST_HTTP_CHUNK = b"\r\n0\r\n\r\n"
COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
# Common short words: one token each in the usual BPE vocabularies, so words are close to tokens.
SYNTHETIC_WORDS = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line"
).split()

clock_ns = time.monotonic_ns


class UsageError(Exception):
    """Something the user has to change; printed as one line, exit status 2."""


# ---------------------------------------------------------------------------------------------
# Options


@dataclass(frozen=True)
class Options:
    """The command line, parsed and completed."""

    base_url: str
    backend: str
    model: str | None
    prompts: Path
    input_len: int | None
    batch: int
    concurrency: int | None
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


def _at_least(low: float, kind: type[int] | type[float], strict: bool = False) -> Any:
    def parse(text: str) -> int | float:
        value = kind(text)
        if value < low or (strict and value == low) or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text}: must be {'>' if strict else '>='} {low:g}")
        return value

    parse.__name__ = kind.__name__
    return parse


def parse_options(argv: Sequence[str]) -> Options:
    """Options from the command line; `--max_new_tokens` and `--max-new-tokens` are the same."""
    parser = argparse.ArgumentParser(
        description="Measure streaming latency and throughput of an inference server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    positive, seconds = _at_least(1, int), _at_least(0, float, strict=True)
    add = parser.add_argument_group("server").add_argument
    add("--base-url", default="http://127.0.0.1:30000", metavar="URL")
    add("--backend", choices=("sglang", "openai"), default="sglang",
        help="sglang: /generate (default); openai: /v1/completions")
    add("--model", help="model name for openai (default: the first of /v1/models)")
    add = parser.add_argument_group("load").add_argument
    add("--prompts", type=Path, metavar="FILE",
        help="one prompt a line (default: prompts.txt beside this file)")
    add("--input-len", type=positive, metavar="N", help="synthetic prompts of about N tokens")
    add("--batch", type=positive, metavar="N",
        help="prompts in one request (default 16; 1 with --concurrency or --request-rate)")
    add("--concurrency", type=positive, metavar="N",
        help="separate streams kept in flight (with --request-rate: the most in flight)")
    add("--num-prompts", type=positive, metavar="N",
        help="prompts in all (default: batch x concurrency; every prompt of the file at a rate)")
    add("--request-rate", type=seconds, metavar="R", help="requests a second, Poisson, open loop")
    add("--duration", type=seconds, metavar="S", help="start new streams until S seconds passed")
    add("--max-new-tokens", type=positive, default=128, metavar="N", help="tokens a prompt (128)")
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True,
        help="generate exactly --max-new-tokens (default)")
    add("--seed", type=int, default=0, help="for arrivals, synthetic prompts and OpenAI's seed (0)")
    add("--warmup", type=_at_least(0, int), default=1, metavar="N",
        help="requests sent and awaited before measuring (1)")
    add = parser.add_argument_group("result").add_argument
    add("--output", type=Path, metavar="FILE.json", help="summary and every raw arrival")
    add("--max-error-rate", type=_at_least(0, float), default=0.0, metavar="F",
        help="share of prompts that may fail before the exit status is 1 (0)")
    add("--stall-timeout", type=seconds, default=300.0, metavar="S",
        help="give a stream up after S seconds without a byte (300)")
    add("--reader", choices=("auto", "epoll", "threads"), default="auto",
        help="epoll: one thread, plain http; threads: one a stream, https and proxies too")
    words = [
        name.replace("_", "-") + equals + value if word.startswith("--") else word
        for word in argv
        for name, equals, value in [word.partition("=")]
    ]
    args = parser.parse_args(words)
    if urlsplit(args.base_url).scheme not in ("http", "https") or not urlsplit(args.base_url).netloc:
        parser.error(f"--base-url {args.base_url}: give it as http://HOST:PORT")
    separate = args.concurrency is not None or args.request_rate is not None
    return Options(
        base_url=args.base_url.rstrip("/"),
        backend=args.backend,
        model=args.model,
        prompts=args.prompts or Path(__file__).resolve().with_name("prompts.txt"),
        input_len=args.input_len,
        batch=args.batch or (1 if separate else 16),
        concurrency=args.concurrency or (None if args.request_rate else 1),
        num_prompts=args.num_prompts,
        request_rate=args.request_rate,
        duration_s=args.duration,
        max_new_tokens=args.max_new_tokens,
        ignore_eos=args.ignore_eos,
        seed=args.seed,
        warmup=args.warmup,
        stall_timeout_s=args.stall_timeout,
        max_error_rate=args.max_error_rate,
        reader=args.reader,
        output=args.output,
    )


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
                    f"--prompts {options.prompts}: {exc} (give a UTF-8 file, one prompt a line)"
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
        if self.parts.hostname in ("localhost", "127.0.0.1", "::1"):
            self.session.trust_env = False  # a proxy from the environment cannot reach loopback
        self.headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Connection": "close",
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


def describe_io_error(exc: BaseException, what: str, url: str) -> str:
    """`kind: detail` for a connection that failed while doing `what`."""
    if isinstance(exc, ConnectionRefusedError) or "Connection refused" in str(exc):
        return f"refused: nothing listens at {url}; is the server up?"
    if isinstance(exc, (TimeoutError, requests.Timeout)):
        return f"stalled: timed out while {what}"
    if isinstance(exc, ConnectionError) or "reset by peer" in str(exc):
        return f"reset: {what}: {exc}"
    return f"connection: {what}: {exc}"


class Transport(Protocol):
    """Sends streams and reports each on `finished` when its response has ended."""

    name: str
    finished: queue.SimpleQueue[Stream]
    reader_lags_ns: list[int]

    def connect(self, stream: Stream) -> None: ...
    def send(self, stream: Stream) -> None: ...
    def give_up_stalled(self, active: Iterable[Stream], now_ns: int) -> None: ...
    def close(self) -> None: ...


class SocketTransport:
    """One thread reads every socket, including the response heads: a first token that comes in the
    same packet as the head is stamped like any other. http.client sends, because a `requests` call
    returns only after it has read (and buffered past) the head."""

    name = "epoll"

    def __init__(self, server: Server) -> None:
        self.finished: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.reader_lags_ns: list[int] = []
        self._server = server
        self._selector = selectors.DefaultSelector()
        self._new: deque[tuple[Stream, socket.socket]] = deque()
        self._wake_reader, self._wake = socket.socketpair()
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._stopping = False
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def connect(self, stream: Stream) -> None:
        parts = self._server.parts
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S
        )
        try:
            connection.connect()
            connection.sock.settimeout(self._server.options.stall_timeout_s)
            stream.connection = connection
        except OSError as exc:
            self._end(stream, describe_io_error(exc, "connecting", self._server.url))

    def send(self, stream: Stream) -> None:
        if stream.connection is None:
            self.connect(stream)
        stream.sent_ns = clock_ns()
        if stream.connection is None:
            return
        path = self._server.parts.path
        try:
            stream.connection.request("POST", path, stream.body, self._server.headers)
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
            if last_ns and now_ns - last_ns > limit_s * 1e9 and stream.connection is not None:
                stream.error = f"stalled: no byte for {limit_s:g} s (--stall-timeout)"
                try:
                    stream.connection.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the reader has just seen its end

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

    def _end(self, stream: Stream, error: str | None) -> None:
        stream.error = stream.error or error
        stream.end_ns = clock_ns()
        self.finished.put(stream)

    def _read(self) -> None:
        select, unregister = self._selector.select, self._selector.unregister
        while not self._stopping:
            ready = select()
            woken_ns = now_ns = clock_ns()
            for key, _ in ready:
                if key.data is None:
                    self._wake_reader.recv(4096)
                    while self._new:
                        pair = self._new.popleft()
                        self._selector.register(pair[1], selectors.EVENT_READ, pair)
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
                if not data or data.endswith(LAST_HTTP_CHUNK):
                    unregister(sock)
                    sock.close()
                    self._end(stream, error)
            self.reader_lags_ns.append(now_ns - woken_ns)


class ThreadTransport:
    """A thread a stream, over `requests` alone: TLS, proxies and compressed bodies. Dearer."""

    name = "threads"

    def __init__(self, server: Server) -> None:
        self.finished: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.reader_lags_ns: list[int] = []
        self._server = server

    def connect(self, stream: Stream) -> None:
        """Nothing to do ahead: `requests` connects when it sends."""

    def send(self, stream: Stream) -> None:
        stream.sent_ns = clock_ns()
        threading.Thread(target=self._exchange, args=(stream,), daemon=True).start()

    def give_up_stalled(self, active: Iterable[Stream], now_ns: int) -> None:
        """Nothing to do: each thread's read has the time limit."""

    def close(self) -> None:
        """Nothing to do: threads still reading end with the process."""

    def _exchange(self, stream: Stream) -> None:
        stall_s = self._server.options.stall_timeout_s
        what = "connecting"
        try:
            with self._server.session.post(
                self._server.url, data=stream.body, headers=self._server.headers, stream=True,
                timeout=(CONNECT_TIMEOUT_S, stall_s),
            ) as reply:
                what = "reading"
                # Only a chunked body is handed over as it comes; any other is read to its end.
                framed = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
                for data in reply.iter_content(None if framed else 1):
                    stream.chunks.append((clock_ns(), data))
                    stream.status = reply.status_code
                stream.status = reply.status_code
        except (requests.RequestException, OSError) as exc:
            stream.error = describe_io_error(exc, what, self._server.url)
        stream.end_ns = clock_ns()
        self.finished.put(stream)


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


def drive(
    ahead: Iterator[Stream],
    server: Server,
    lanes: int | None,
    duration_s: float | None,
    progress: Progress,
) -> Run:
    """Send what is `ahead`, at most `lanes` at a time (None: no limit), until all have ended.

    Ctrl-C (or SIGTERM) ends the run at once; streams still open are marked `interrupted`.
    """
    run = Run()
    threaded = server.options.reader == "threads" or (
        server.options.reader == "auto" and not server.plain()
    )
    transport: Transport = ThreadTransport(server) if threaded else SocketTransport(server)
    run.reader = transport.name
    active: set[Stream] = set()
    free = deque(range(lanes)) if lanes is not None else deque([0])
    gc.disable()
    try:
        wave = list(itertools.islice(ahead, lanes)) if server.options.request_rate is None else []
        for stream in wave:
            transport.connect(stream)
        waiting = itertools.chain(wave, ahead)
        cpu_s, run.begin_ns = time.process_time(), clock_ns()
        deadline_ns = run.begin_ns + round(duration_s * 1e9) if duration_s else None
        lane_free_ns = dict.fromkeys(free, run.begin_ns)
        next_tick_ns = run.begin_ns
        upcoming = next(waiting, None)
        while upcoming is not None or active:
            now_ns = clock_ns()
            while upcoming is not None and free:
                if upcoming.due_offset_ns is None:
                    due_ns = lane_free_ns[free[0]]
                else:
                    due_ns = run.begin_ns + upcoming.due_offset_ns
                if deadline_ns is not None and max(now_ns, due_ns) >= deadline_ns:
                    upcoming = None
                    break
                if due_ns > now_ns:
                    break
                upcoming.intended_ns = due_ns
                if lanes is not None:
                    upcoming.lane = free.popleft()
                run.streams.append(upcoming)
                active.add(upcoming)
                transport.send(upcoming)
                open_loop = upcoming.due_offset_ns is not None
                upcoming.start_ns = due_ns if open_loop else upcoming.sent_ns
                upcoming = next(waiting, None)
                now_ns = clock_ns()
            if now_ns >= next_tick_ns:
                transport.give_up_stalled(active, now_ns)
                progress.show(run, active, now_ns)
                next_tick_ns = now_ns + round(TICK_S * 1e9)
            pause_ns = next_tick_ns - now_ns
            if upcoming is not None and upcoming.due_offset_ns is not None and free:
                pause_ns = min(pause_ns, run.begin_ns + upcoming.due_offset_ns - now_ns)
            for stream in _finished(transport.finished, max(0, pause_ns) / 1e9):
                active.discard(stream)
                if lanes is not None:
                    free.append(stream.lane)
                    lane_free_ns[stream.lane] = stream.end_ns
    except KeyboardInterrupt:
        run.interrupted = True
        for stream in active:
            stream.error = stream.error or "interrupted: stopped by a signal"
    finally:
        run.end_ns = clock_ns()
        run.cpu_s = time.process_time() - cpu_s if run.begin_ns else 0.0
        transport.close()
        gc.enable()
        progress.clear()
    run.reader_lags_ns = transport.reader_lags_ns
    return run


def _finished(ended: queue.SimpleQueue[Stream], timeout_s: float) -> Iterator[Stream]:
    try:
        yield ended.get(timeout=timeout_s)
        while True:
            yield ended.get_nowait()
    except queue.Empty:
        return


class Progress:
    """A line rewritten in place on a terminal, from the newest bytes of each stream; else silent."""

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
    """One prompt: `events` are [arrival_ns, cumulative tokens], each with at least one new token."""

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
        while (newline := raw.find(b"\n", start, end)) >= 0:
            line, partial = partial + raw[start:newline], b""
            while newline >= chunk_end:
                chunk += 1
                chunk_end += len(chunks[chunk][1])
            if line.startswith(b"data:"):
                yield chunks[chunk][0], line[5:].strip()
            start = newline + 1
        partial += raw[start:end]


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
        finished = record.finish_reason is not None
        if record.error is None and error is not None:
            record.error = error
        elif record.error is None and not finished:
            record.error = stream.error or "truncated: the stream ended without a finish reason"
        elif record.error is None and options.ignore_eos and record.tokens < options.max_new_tokens:
            record.error = (
                f"short: {record.tokens} of {options.max_new_tokens} tokens "
                f"(finish reason {record.finish_reason})"
            )
    return records


def _fill(records: list[Record], stream: Stream) -> str | None:
    """Put the stream's tokens into `records`; an error that concerns the whole stream, or None."""
    raw = b"".join(data for _, data in stream.chunks)
    spans: Sequence[tuple[int, int]] = [(0, len(raw))]
    status = stream.status
    if status is None:
        try:
            response = HttpResponse(raw)
        except ValueError as exc:
            return stream.error or f"malformed: {exc}"
        status, spans = response.status, response.spans
        if response.headers.get("content-encoding", "identity") != "identity":
            return "malformed: the server compresses its answer; use --reader threads"
    if status != 200:
        body = b"".join(raw[start:end] for start, end in spans)
        try:
            return f"http {status}: {server_message(json.loads(body))}"
        except ValueError:
            return f"http {status}: {server_message(body.decode('utf-8', 'replace'))}"
    error = None
    usage_total = None
    for arrival_ns, payload in data_lines(stream.chunks, raw, spans):
        if payload == b"[DONE]":
            break
        try:
            event = json.loads(payload)
            if "error" in event:
                error = error or f"server: {server_message(event)}"
            elif "meta_info" in event:
                _take_native(records, arrival_ns, event)
            elif event["choices"]:
                _take_openai(records, arrival_ns, event)
            elif event.get("usage"):
                usage_total = int(event["usage"]["completion_tokens"])
        except (ValueError, LookupError, TypeError, AttributeError):
            excerpt = payload[:60].decode("utf-8", "replace")
            error = error or f"malformed: event not understood: {excerpt}"
    if usage_total is not None and any(record.uncounted_ns for record in records):
        error = _share_usage(records, usage_total) or error
    return error


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


def _share_usage(records: list[Record], total: int) -> str | None:
    """Totals for a server that counts only at the end; a batch's total cannot be split by prompt."""
    if len(records) > 1:
        return (
            "uncounted: the server counts a batch as one; use --batch 1 "
            "(or an sglang that has continuous_usage_stats, 0.5.6 or later)"
        )
    records[0].tokens = total
    return None


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
    """mean, median, p90, p95, p99, max and (population) std as `mean_<name>` …; None if no value."""
    ordered = sorted(values)
    keys = ("mean", "median", "p90", "p95", "p99", "max", "std")
    if not ordered:
        return {f"{key}_{name}": None for key in keys}
    figures = (
        statistics.fmean(ordered),
        *(percentile(ordered, p) for p in (50, 90, 95, 99, 100)),
        statistics.pstdev(ordered),
    )
    return {f"{key}_{name}": value for key, value in zip(keys, figures, strict=True)}


def itl_ms(record: Record) -> list[float]:
    """Gap between two arrivals divided by the new tokens of the later one, once a token; ms."""
    gaps: list[float] = []
    for (before_ns, before), (after_ns, after) in itertools.pairwise(record.events):
        new = after - before
        gaps += [(after_ns - before_ns) / 1e6 / new] * new
    return gaps


def tokens_at(record: Record, time_ns: int) -> float:
    """Cumulative tokens at `time_ns`, between two arrivals in proportion."""
    before_ns, before = record.start_ns, 0
    for after_ns, after in record.events:
        if after_ns >= time_ns:
            share = (time_ns - before_ns) / (after_ns - before_ns) if after_ns > before_ns else 1.0
            return before + (after - before) * max(0.0, share) if before else float(
                after if after_ns == time_ns else 0
            )
        before_ns, before = after_ns, after
    return float(before)


def steady_state(records: Sequence[Record]) -> dict[str, float] | None:
    """From the last lane's first token to the first lane's last: every lane streams. None if empty.

    A lane is one place in the concurrency: a stream of prompts sent one after another, so without
    --duration every prompt is a lane of its own.
    """
    first: dict[object, int] = {}
    last: dict[object, int] = {}
    streaming = [record for record in records if record.events]
    if len(streaming) < len(records) or not records:
        return None
    position: Counter[tuple[int, int]] = Counter()
    for record in streaming:
        request = (record.lane, record.sent_ns)
        lane = (record.lane, position[request])
        position[request] += 1
        first[lane] = min(first.get(lane, record.events[0][0]), record.events[0][0])
        last[lane] = max(last.get(lane, 0), record.events[-1][0])
    start_ns, end_ns = max(first.values()), min(last.values())
    if end_ns <= start_ns:
        return None
    tokens = sum(tokens_at(r, end_ns) - tokens_at(r, start_ns) for r in streaming)
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
    """Every figure of the report. Times in ms unless the name says otherwise; throughput per second.

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
    summary["warnings"] = warnings_for(summary, len(records), prompts_in_file)
    return summary


def warnings_for(summary: dict[str, Any], prompts: int, prompts_in_file: int) -> list[str]:
    """Sentences about anything that makes the figures mean less than they seem to."""
    check = summary["self_check"]
    found = []
    if check["client_cpu_share"] > 0.8:
        found.append(
            f"the client used {check['client_cpu_share']:.0%} of a core: it, not the server, may "
            "limit the numbers; use fewer streams or another machine"
        )
    if (check["read_together_share"] or 0) > 0.05:
        found.append(
            f"{check['read_together_share']:.0%} of arrivals were read together with the same "
            "prompt's previous one: single gaps are unreliable, TPOT and throughput hold"
        )
    ttft_ms, lag_ms = summary["median_ttft_ms"], check["p99_send_lag_ms"]
    if ttft_ms is not None and lag_ms > max(10.0, ttft_ms / 10):
        found.append(f"requests left up to {lag_ms:.1f} ms late (p99): see queue_ms")
    if summary["token_counts"] == "final_usage":
        found.append(
            "the server counts tokens only at the end of a stream: ITL is exact only for streams "
            "with one token an event"
        )
    if 0 < prompts_in_file < prompts:
        found.append(
            f"{prompts_in_file} prompts in the file, {prompts} sent: a prefix cache may serve the "
            f"repeats ({summary['total_cached_tokens']} cached tokens reported)"
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
        f"{'':<10}" + "".join(f"{c:>10}" for c in "mean median p90 p95 p99 max std".split()),
    ]
    rows = {"TTFT ms": "ttft_ms", "ITL ms": "itl_ms", "TPOT ms": "tpot_ms", "E2E ms": "e2e_latency_ms"}
    if summary["request_rate"]:
        rows["queue ms"] = "queue_ms"
    for label, name in rows.items():
        keys = ("mean", "median", "p90", "p95", "p99", "max", "std")
        lines.append(f"{label:<10}" + "".join(f"{number(summary[f'{k}_{name}']):>10}" for k in keys))
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
    lines += [f"warning: {text}" for text in summary["warnings"]]
    for error, count in Counter(r.error for r in records if r.error).most_common(10):
        lines.append(f"failed: {count} x {error}")
    if summary["interrupted"]:
        lines.append("interrupted: the figures cover what had arrived")
    return lines


def result_document(summary: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The --output JSON, schema 1."""
    fields = (
        "start_ns sent_ns intended_ns lane tokens prompt_tokens cached_tokens finish_reason error "
        "events"
    ).split()
    rows = [{name: getattr(record, name) for name in fields} for record in records]
    return {"schema": SCHEMA, "summary": summary, "requests": rows}


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    part.replace(path)


# ---------------------------------------------------------------------------------------------


def raise_open_file_limit() -> None:
    """Every stream is a file descriptor, and the usual soft limit is 1024."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _interrupt(signal_number: int, frame: object) -> None:
    raise KeyboardInterrupt


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
        warm_count = options.warmup * options.batch
        warm_plan = plan(options, model, prompts, -warm_count, warm_count)
        warm = drive(warm_plan, server, options.concurrency, None, Progress("warm-up"))
        if not warm.interrupted:
            errors = {r.error for s in warm.streams for r in parse_stream(s, options) if r.error}
            for error in sorted(errors):
                print(f"warning: warm-up failed: {error}", file=sys.stderr)
            total = prompts_in_all(options, prompts)
            ahead = plan(options, model, prompts, 0, total)
            run = drive(
                ahead, server, options.concurrency, options.duration_s, Progress("measuring")
            )
    except KeyboardInterrupt:
        run.end_ns = clock_ns()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was measured is now being written
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    records: list[Record] = []
    for stream in run.streams:
        records += parse_stream(stream, options)
        stream.chunks.clear()
    summary = summarize(records, run, options, model, len(prompts))
    if options.output is not None:
        write_json(options.output, result_document(summary, records))
    print("\n".join(report_lines(summary, records)))
    if run.interrupted:
        return 130
    return 1 if not records or summary["failed"] / len(records) > options.max_error_rate else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    sys.setswitchinterval(1e-4)  # the reader must not wait 5 ms for the thread that sends
    raise_open_file_limit()
    try:
        return measure(options)
    except (UsageError, OSError) as exc:
        print(f"client_benchmark.py: {exc}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
