#!/usr/bin/env python3
"""Streaming load client for sglang and OpenAI-compatible servers, in one file.

Purpose   Send prompts, stamp every byte that comes back, and derive TTFT, ITL, TPOT, E2E and
          throughput from the raw (arrival, cumulative tokens) pairs; --output saves those.
Usage     python client_benchmark.py --base-url http://127.0.0.1:30000 --output run.json
Overhead  While streams run, one thread reads the sockets; on Linux the kernel has stamped what it
          reads. Parsing waits until the last stream has ended, or 64 MiB have come.

Needs     Python 3.10 and requests; works when copied alone to another machine.

Token counts are the server's own (`meta_info.completion_tokens`; `usage` of OpenAI servers),
never a count of chunks. All times are this machine's CLOCK_MONOTONIC in nanoseconds.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import functools
import gc
import itertools
import json
import math
import os
import queue
import random
import re
import select
import signal
import socket
import ssl
import statistics
import struct
import sys
import textwrap
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

READ_BYTES = 1 << 16
SLAB_BYTES = 1 << 22
RAW_BYTES_KEPT = 64 << 20
READS_A_STEP = 50
GATHER_NS = 1_000_000
CONNECT_TIMEOUT_S = 10.0
NO_SERVER = ("refused:", "connection:")  # kinds of errors, as describe_io_error has them
TICK_S = 0.25
RETRY_S = 0.25  # under --duration: a dead server must not be asked thousands of times a second
KEPT_BYTES = 1 << 16  # of an HTTP error, and of what stands where events should
LINE_FEED = ord("\n")
OUTPUT_SIGNS = (b'"choices"', b'"meta_info"')
NO_HTTP = re.compile(r"(?:BadStatusLine|InvalidChunkLength)\((?:got length )?b?'([^']+)'")
OWNER = re.compile(r"^(<[^>]*>|\w+\([^)]*\)): ")  # urllib3 begins with the connection it concerns
# asm-generic/socket.h and linux/net_tstamp.h; Python's socket module has no names for them.
SO_TIMESTAMPING = SCM_TIMESTAMPING = 37
SOF_TIMESTAMPING_RX_SOFTWARE, SOF_TIMESTAMPING_SOFTWARE = 1 << 3, 1 << 4
SCM_TIMESTAMPING_BYTES = 48  # three timespecs of 64 bits; the first is the software stamp
ANCILLARY_BYTES = socket.CMSG_SPACE(SCM_TIMESTAMPING_BYTES) if hasattr(socket, "CMSG_SPACE") else 0
TIMESPEC = struct.Struct("=qq")
STATISTICS = ("mean", "median", "p90", "p95", "p99", "max", "std")
# Short words that are one token each in the usual BPE vocabularies, so words come close to tokens.
SYNTHETIC_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world"),
    *("school", "state", "family", "group", "country", "problem", "hand", "part", "place", "case"),
    *("week", "company", "system", "program", "question", "work", "number", "night", "point"),
)
HERE = Path(__file__).resolve().parent
clock_ns = time.monotonic_ns
Ancillary = list[tuple[int, int, bytes]] | None  # what came with a read, as recvmsg_into has it
Slab = memoryview | bytes
Read = tuple[int, Slab, int, int, Ancillary]  # ns when it returned; bytes [from, to) of a slab


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
    bench_serving_json: Path | None


EXAMPLES = """examples:
  one request of 16 prompts, 128 tokens each, raw arrivals saved
    python client_benchmark.py --batch 16 --max-new-tokens 128 --output run.json
  64 separate streams
    python client_benchmark.py --concurrency 64
  Poisson arrivals, 4 requests a second, 200 requests
    python client_benchmark.py --request-rate 4 --num-prompts 200
  keep 8 streams busy for a minute (a load to profile under)
    python client_benchmark.py --concurrency 8 --duration 60
  one more line in the JSONL that a bench_serving dashboard reads
    python client_benchmark.py --concurrency 16 --bench-serving-json runs.jsonl
  an OpenAI-compatible server; its key is taken from OPENAI_API_KEY
    python client_benchmark.py --backend openai --base-url http://127.0.0.1:8000

exit status: 0 measured; 1 more failures than --max-error-rate, or no server;
2 usage; 130 interrupted (what had arrived is still reported and written)."""


def _number(
    kind: type[int] | type[float], low: float, above: bool = False, high: float = math.inf
) -> Callable[[str], float]:
    """An argparse type: a finite number of at least `low`, or `above` it, up to `high`."""

    def parse(text: str) -> float:
        value = kind(text)
        if value > high:
            raise argparse.ArgumentTypeError(f"{text}: must be <= {high:g}")
        if not low <= value < math.inf or (above and value == low):
            raise argparse.ArgumentTypeError(f"{text}: must be {'>' if above else '>='} {low:g}")
        return value

    return parse


def parse_options(argv: Sequence[str]) -> Options:
    """Options from the command line; `--max_new_tokens` and `--max-new-tokens` are the same."""
    parser = argparse.ArgumentParser(
        usage="python client_benchmark.py [options]   (--help lists them)",
        description="Measure streaming latency and throughput of an inference server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    count, above_zero = _number(int, 1), _number(float, 0, above=True)
    # fmt: off
    add = parser.add_argument_group("server").add_argument
    add("--base-url", default="http://127.0.0.1:30000", metavar="URL",
        help="default: http://127.0.0.1:30000; its key, if any, in OPENAI_API_KEY")
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
    add("--bench-serving-json", type=Path, metavar="FILE.jsonl",
        help="append the line that sglang's bench_serving --output-file writes; null: what this "
        "client cannot know (server_info, accept_length, retokenized counts)")
    add("--max-error-rate", type=_number(float, 0, high=1), default=0.0, metavar="F",
        help="share of prompts that may fail before the exit status is 1 (0)")
    add("--stall-timeout", dest="stall_timeout_s", type=above_zero, default=300, metavar="S",
        help="give a stream up after S seconds without a byte (300)")
    add("--reader", choices=("auto", "epoll", "threads"), default="auto",
        help="epoll: one thread reads all streams (default on Linux); threads: one a stream, "
        "dearer, and decodes compressed answers")
    # fmt: on
    words = [
        name.replace("_", "-") + equals + value if word.startswith("--") else word
        for word in argv
        for name, equals, value in [word.partition("=")]
    ]
    options = parser.parse_args(words, namespace=Options())
    parts = urlsplit(options.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        parser.error("--base-url: give http://HOST:PORT")
    options.base_url = options.base_url.rstrip("/")
    separate = options.concurrency is not None or options.request_rate is not None
    options.batch = options.batch or (1 if separate else 16)
    if options.request_rate is None:
        options.concurrency = options.concurrency or 1
    return options


try:
    import requests
    import urllib3
except ModuleNotFoundError as missing:
    if __name__ != "__main__":
        raise
    parse_options(sys.argv[1:])  # --help needs neither
    install = f"{sys.executable} -m pip install requests"
    print(f"client_benchmark.py: no module '{missing.name}': {install}", file=sys.stderr)
    sys.exit(2)

# ---------------------------------------------------------------------------------------------
# What is sent


@dataclass(eq=False)
class Stream:
    """One HTTP request and what came back."""

    body: bytes
    prompts: int
    due_offset_ns: int | None = None
    lane: int = 0
    intended_ns: int = 0
    start_ns: int = 0
    sent_ns: int = 0
    last_ns: int = 0  # the latest read
    end_ns: int = 0
    reads: deque[Read] = field(default_factory=deque)
    error: str | None = None
    prepared: requests.PreparedRequest | None = None
    sock: socket.socket | None = None
    receive: Callable[..., tuple[int, Ancillary, int, Any]] | None = None

    def __post_init__(self) -> None:
        self.answer = Answer(self.prompts)

    def failed_early(self) -> bool:
        """Whether it is plain without parsing that no tokens came: a short answer without output.

        Such are no connection, an HTTP error, and a web page or an error with status 200.
        """
        if self.answer.has_output():
            return False
        came, raw = 0, []
        for _, slab, start, end, _ in list(self.reads):
            came += end - start
            raw.append(bytes(slab[start:end]))
            if came > KEPT_BYTES or any(sign in raw[-1] for sign in OUTPUT_SIGNS):
                return False
        whole = b"".join(raw)  # a sign may lie across two reads
        return not any(sign in whole for sign in OUTPUT_SIGNS)

    def parse_reads(
        self, clock: KernelClock, until_ns: float = math.inf, most: int = sys.maxsize
    ) -> bool:
        """Parse and drop the reads that returned by `until_ns`; whether `most` left some."""
        reads, feed, arrival_ns = self.reads, self.answer.feed, clock.arrival_ns
        while reads and reads[0][0] <= until_ns:
            if most == 0:
                return True
            returned_ns, slab, start, end, ancillary = reads.popleft()
            feed(arrival_ns(returned_ns, ancillary), bytes(slab[start:end]))
            most -= 1
        return False


class Prompts:
    """An endless, reproducible supply of prompts; negative numbers are for the warm-up."""

    def __init__(self, options: Options) -> None:
        self._input_len, self._seed = options.input_len, options.seed
        self._lines: list[str] = []
        if options.input_len is None:
            try:
                text = options.prompts.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
                raise UsageError(f"--prompts {options.prompts}: {reason}") from exc
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
        self._prepared: requests.PreparedRequest | None = None
        self.adapter = HandOverAdapter()
        self._keeps_stamping = socket.socket(type=socket.SOCK_DGRAM)
        ask_for_stamps(self._keeps_stamping)  # the first socket that asks waits for its stamps
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
        self.settings: dict[str, Any] = {
            **self.session.merge_environment_settings(self.url, {}, True, None, None)
        }

    def plain(self) -> bool:
        """Whether a bare socket reaches the server: http, and no proxy in between."""
        proxy = requests.utils.select_proxy(self.url, self.settings["proxies"])
        return self.parts.scheme == "http" and proxy is None

    def prepare(self, body: bytes) -> requests.PreparedRequest:
        """The request as `requests` makes it; all but the body is made once."""
        if self._prepared is None:
            request = requests.Request("POST", self.url, headers=self.headers)
            self._prepared = self.session.prepare_request(request)
        prepared = self._prepared.copy()
        prepared.prepare_body(body, None)
        return prepared

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
    cause = getattr(exc.args[0] if exc.args else None, "reason", None) or exc
    text = OWNER.sub("", str(cause))
    if "Connection refused" in text:
        return f"refused: nothing listens at {url}; is the server up?"
    if isinstance(exc, TimeoutError) or "timed out" in text:
        return f"stalled: timed out while {what}"
    if isinstance(exc, ConnectionError) or "reset by peer" in text:
        return f"reset: while {what}: {text}"
    no_http = NO_HTTP.search(text)
    if no_http or isinstance(exc, requests.exceptions.ContentDecodingError):
        return f"malformed: {f'not HTTP: {no_http[1]}' if no_http else text}"
    if isinstance(exc, requests.exceptions.ChunkedEncodingError):
        return "truncated: the connection closed in the middle of the response"
    return f"connection: while {what}: {text}"


class KernelClock:
    """Turns the kernel's receive stamps, CLOCK_REALTIME, into CLOCK_MONOTONIC.

    NTP slews both clocks alike, so their difference only changes when somebody sets the time. It is
    sampled every tick; reads that came near such a step keep the time at which they returned.
    """

    def __init__(self) -> None:
        self.reads = 0
        self.lags_ns: list[int] = []  # of stamped reads: from the kernel's stamp to the return
        self.rounds_ns: list[int] = []  # from a wake-up to the return of its last read
        self.sampled_ns = 0
        self._offsets: list[tuple[int, int, int]] = []  # (valid from, real - monotonic, width) ns
        self._unsure: list[tuple[int, int]] = []

    def sample(self) -> None:
        """Measure the difference, each reading of one clock between two of the other."""
        readings = [(clock_ns(), time.time_ns(), clock_ns()) for _ in range(5)]
        width_ns, before_ns, real_ns = min((c - a, a, b) for a, b, c in readings)
        self.note(before_ns, real_ns - before_ns - width_ns // 2, width_ns)

    def note(self, now_ns: int, offset_ns: int, width_ns: int) -> None:
        """Take a sample in; one that differs by more than its width allows is a step."""
        if not self._offsets:
            self._offsets.append((0, offset_ns, width_ns))
        _, known_ns, known_width_ns = self._offsets[-1]
        if abs(offset_ns - known_ns) > width_ns + known_width_ns + 1_000:
            self._unsure.append((self.sampled_ns, now_ns + round(TICK_S * 1e9)))
            self._offsets.append((now_ns, offset_ns, width_ns))
        self.sampled_ns = now_ns

    def arrival_ns(self, returned_ns: int, ancillary: Ancillary) -> int:
        """When the last packet of a read reached the kernel; else when the read returned."""
        self.reads += 1
        if not ancillary or len(ancillary[0][2]) != SCM_TIMESTAMPING_BYTES:
            return returned_ns
        seconds, nanoseconds = TIMESPEC.unpack_from(ancillary[0][2])
        offset_ns = self._offsets[-1][1]
        if len(self._offsets) > 1:
            if any(begin <= returned_ns <= end for begin, end in self._unsure):
                return returned_ns
            offset_ns = max(known for known in self._offsets if known[0] <= returned_ns)[1]
        arrival_ns: int = seconds * 1_000_000_000 + nanoseconds - offset_ns
        if not -100_000 < returned_ns - arrival_ns < 60_000_000_000:
            return returned_ns
        self.lags_ns.append(returned_ns - arrival_ns)
        return arrival_ns


def ask_for_stamps(sock: socket.socket) -> None:
    """Have the kernel stamp what this socket receives, where it can."""
    if sys.platform == "linux":
        flags = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, flags)


class HandOver(Exception):
    """Takes a socket out of `requests`: the request is written, no byte of the answer read."""

    def __init__(self, sock: socket.socket, sent_ns: int) -> None:
        self.sock, self.sent_ns = sock, sent_ns


class _HandsOver(urllib3.connection.HTTPConnection):
    """A connection that gives its socket away where it would wait for the answer's head.

    `requests` would return only with the head and with what else had come, buffered and unstamped.
    """

    opened: ClassVar[deque[socket.socket]] = deque()

    def connect(self) -> None:
        if self.opened:
            self.sock = self.opened.popleft()
        else:
            super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if self.sock is None:
            self.connect()
        if isinstance(self.sock, socket.socket):
            ask_for_stamps(self.sock)
        self._sent_ns = clock_ns()
        super().request(*args, **kwargs)

    def getresponse(self) -> Any:  # noqa: ANN401
        if not isinstance(self.sock, socket.socket):
            return super().getresponse()  # TLS inside TLS is no socket that can be waited for
        sock, self.sock = self.sock, None
        raise HandOver(sock, self._sent_ns)


class _HandsOverTls(_HandsOver, urllib3.connection.HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HandsOver


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HandsOverTls


class HandOverAdapter(requests.adapters.HTTPAdapter):
    """Sends like `requests`, through proxies and TLS too, and raises HandOver once it has sent."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> urllib3.ProxyManager:  # noqa: ANN401
        manager: urllib3.ProxyManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


def receive_tls(
    sock: ssl.SSLSocket, buffers: Sequence[memoryview], _: int
) -> tuple[int, None, int, None]:
    """recvmsg_into for TLS: all that is decrypted. No stamp: which packet's would it be?"""
    size = sock.recv_into(buffers[0])
    while sock.pending():
        size += sock.recv_into(buffers[0][size:])
    return size, None, 0, None


class Transport:
    """Sends streams and puts each on `finished` when its response has ended, well or not."""

    name = ""

    def __init__(self, server: Server) -> None:
        self.finished: queue.SimpleQueue[Stream] = queue.SimpleQueue()
        self.clock = KernelClock()
        self.clock.sample()
        self._server = server

    def connect(self, stream: Stream) -> None:
        """Do ahead of sending what can be done ahead."""

    def send(self, stream: Stream) -> None:
        """Send the request and return; sets `sent_ns`."""
        raise NotImplementedError

    def look_after(self, active: Iterable[Stream], now_ns: int) -> None:
        """End streams that have been silent for longer than --stall-timeout; bound the memory."""

    def close(self) -> None:
        """Stop reading and drop what is still open."""

    def _read_reply(self, stream: Stream, reply: requests.Response) -> None:
        """Read a response that `requests` holds, to its end."""
        error = None
        content_type = reply.headers.get("Content-Type", "")
        stream.answer.expect_body(reply.status_code, content_type)
        # Only a chunked body is handed over as it comes; any other is read to its end.
        framed = "chunked" in reply.headers.get("Transfer-Encoding", "").lower()
        try:
            with reply:
                for data in reply.iter_content(None if framed else 1):
                    stream.last_ns = clock_ns()
                    stream.reads.append((stream.last_ns, data, 0, len(data), None))
        except OSError as exc:  # requests.RequestException is one
            error = describe_io_error(exc, "reading", self._server.url)
        self._end(stream, error)

    def _end(self, stream: Stream, error: str | None) -> None:
        stream.error = stream.error or error
        stream.end_ns = clock_ns()
        self.finished.put(stream)


class SocketTransport(Transport):
    """One thread reads every socket, response heads included, so that a first token that comes in
    the same packet as the head is stamped like any other. `requests` sends."""

    name = "epoll"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self._poller = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._stop_reader, self._stop = socket.socketpair()
        self._poller.register(self._stop_reader, select.EPOLLIN)
        self._unparsed: list[Stream] = []
        self._parsing = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def connect(self, stream: Stream) -> None:
        stream.prepared = self._server.prepare(stream.body)
        if self._server.plain():
            parts = self._server.parts
            connection = urllib3.connection.HTTPConnection(
                parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S
            )
            with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):  # send() will tell
                connection.connect()
                _HandsOver.opened.append(connection.sock)

    def send(self, stream: Stream) -> None:
        server = self._server
        prepared = stream.prepared or server.prepare(stream.body)
        prepared.headers["Connection"] = "close"  # not of what requests pools: it would race
        stream.prepared, stream.sent_ns = None, clock_ns()
        try:
            reply = server.adapter.send(
                prepared,
                timeout=(CONNECT_TIMEOUT_S, server.options.stall_timeout_s),
                **server.settings,
            )
        except HandOver as given:
            stream.sock, stream.sent_ns = given.sock, given.sent_ns
            stream.sock.setblocking(False)
            if isinstance(stream.sock, ssl.SSLSocket):
                stream.receive = functools.partial(receive_tls, stream.sock)
            else:
                stream.receive = stream.sock.recvmsg_into
            self._unparsed.append(stream)
            self._streams[stream.sock.fileno()] = stream
            self._poller.register(stream.sock, select.EPOLLIN)
        except OSError as exc:  # requests.RequestException is one
            self._end(stream, describe_io_error(exc, "connecting or sending", server.url))
        else:
            threading.Thread(target=self._read_reply, args=(stream, reply), daemon=True).start()

    def look_after(self, active: Iterable[Stream], now_ns: int) -> None:
        limit_s = self._server.options.stall_timeout_s
        self.clock.sample()
        for stream in active:
            silent_s = (now_ns - max(stream.last_ns, stream.sent_ns)) / 1e9
            if stream.sock is None or silent_s < 2 * TICK_S:
                continue
            with self._parsing:
                stream.parse_reads(self.clock, self.clock.sampled_ns)
            if silent_s > limit_s:
                stream.error = f"stalled: no byte for {limit_s:g} s (--stall-timeout)"
            if silent_s > limit_s or stream.answer.complete():
                with contextlib.suppress(OSError):  # the reader may have closed it just now
                    stream.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._stop.send(b"s")
        self._thread.join()
        left = [stream.sock for stream in self._streams.values() if stream.sock]
        for sock in [*left, *_HandsOver.opened, self._stop, self._stop_reader]:
            sock.close()
        _HandsOver.opened.clear()
        self._poller.close()

    def _read(self) -> None:
        """Reads until told to stop.

        Waking up costs several times what a read costs. With the kernel's stamps nothing is lost by
        gathering, so busy rounds start GATHER_NS apart, or a quarter of the shortest time between
        two reads of one stream: what comes to a stream in between would bear one stamp.
        """
        poll, streams = self._poller.poll, self._streams
        rounds_ns = self.clock.rounds_ns
        slab, at, held = bytearray(SLAB_BYTES), 0, 0
        room = memoryview(slab)
        parsing: Iterator[None] | None = None
        woken_ns = renew_ns = 0
        shortest_ns = last_shortest_ns = 4 * GATHER_NS
        stamped: Ancillary = None
        while True:
            ready = poll()
            before_ns, woken_ns = woken_ns, clock_ns()
            now_ns = woken_ns
            for fd, _ in ready:
                stream = streams.get(fd)
                if stream is None or stream.receive is None:
                    return
                error = None
                try:
                    size, ancillary, _, _ = stream.receive((room[at:],), ANCILLARY_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                except OSError as exc:
                    size, ancillary = 0, None
                    error = describe_io_error(exc, "reading", self._server.url)
                now_ns = clock_ns()
                end = at + size
                if size:
                    stream.reads.append((now_ns, room, at, end, ancillary))
                    shortest_ns = min(shortest_ns, now_ns - stream.last_ns)
                    stream.last_ns, stamped = now_ns, ancillary
                if not size or slab.endswith(b"\r\n0\r\n\r\n", at, end):
                    self._drop(fd, stream)
                    self._end(stream, error)
                at = end
                if SLAB_BYTES - at < READ_BYTES:
                    held += at
                    slab, at = bytearray(SLAB_BYTES), 0
                    room = memoryview(slab)
            rounds_ns.append(now_ns - woken_ns)
            if held > RAW_BYTES_KEPT:
                parsing, held = parsing or self._parse_backlog(), 0
            if parsing is not None and next(parsing, parsing) is parsing:
                parsing = None
            gather_ns = min(shortest_ns, last_shortest_ns) // 4
            if stamped and woken_ns - before_ns < 2 * gather_ns and gather_ns > GATHER_NS // 10:
                time.sleep(max(0, woken_ns + gather_ns - clock_ns()) / 1e9)
            if woken_ns > renew_ns:
                renew_ns = woken_ns + 100 * GATHER_NS
                shortest_ns, last_shortest_ns = 4 * GATHER_NS, shortest_ns

    def _parse_backlog(self) -> Iterator[None]:
        """Parse what has come, a little at a step; another thread would fight for the GIL."""
        streams, self._unparsed = self._unparsed, []
        for stream in streams:
            more = True
            while more:
                with self._parsing:
                    more = stream.parse_reads(self.clock, self.clock.sampled_ns, READS_A_STEP)
                yield
            if stream.reads or stream.end_ns == 0:
                self._unparsed.append(stream)

    def _drop(self, fd: int, stream: Stream) -> None:
        self._poller.unregister(fd)
        del self._streams[fd]
        if stream.sock is not None:
            stream.sock.close()


class ThreadTransport(Transport):
    """A thread a stream, over `requests` alone, for compressed bodies and odd systems. Dearer."""

    name = "threads"

    def send(self, stream: Stream) -> None:
        stream.sent_ns = clock_ns()
        threading.Thread(target=self._exchange, args=(stream,), daemon=True).start()

    def _exchange(self, stream: Stream) -> None:
        server = self._server
        try:
            reply = server.session.send(
                server.prepare(stream.body),
                timeout=(CONNECT_TIMEOUT_S, server.options.stall_timeout_s),
                **server.settings,
            )
        except OSError as exc:  # requests.RequestException is one
            self._end(stream, describe_io_error(exc, "connecting or sending", server.url))
        else:
            self._read_reply(stream, reply)


@dataclass
class Run:
    """What one run left, unparsed."""

    streams: list[Stream] = field(default_factory=list)
    begin_ns: int = 0
    end_ns: int = 0
    cpu_s: float = 0.0
    interrupted: bool = False
    reader: str = ""
    clock: KernelClock = field(default_factory=KernelClock)


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
        threaded = options.reader == "threads" or not hasattr(select, "epoll")
        self._transport = ThreadTransport(server) if threaded else SocketTransport(server)
        self._progress = Progress(label)
        self._run = Run(reader=self._transport.name, clock=self._transport.clock)

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
                    self._transport.look_after(self._active, now_ns)
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
            run.clock.sample()
            gc.enable()
            self._progress.clear()
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
        self._first: dict[Stream, tuple[int, int]] = {}

    def show(self, run: Run, active: Iterable[Stream], now_ns: int) -> None:
        if not self._on:
            return
        busy = list(active)
        gaps_ms = []
        for stream in busy:
            with contextlib.suppress(IndexError):  # nothing has come, or it has been parsed
                newest_ns, slab, start, end, _ = stream.reads[-1]
                found = quick_count(bytes(slab[start:end]), 1)
                if found is not None:
                    self._tokens[stream] = found[1] * stream.prompts
                    first_ns, first = self._first.setdefault(stream, (newest_ns, found[1]))
                    if found[1] > first:
                        gaps_ms.append((newest_ns - first_ns) / 1e6 / (found[1] - first))
        tokens = sum(self._tokens.values())
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

    start_ns: int = 0
    sent_ns: int = 0
    intended_ns: int = 0
    lane: int = 0
    events: list[list[int]] = field(default_factory=list)
    tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str | None = None
    error: str | None = None
    uncounted_ns: list[int] = field(default_factory=list)  # text came, its count not yet
    counted_late: bool = False  # some counts came after the text they count
    went_on: bool = False  # after its finish reason: then that does not tell the end

    def add(self, arrival_ns: int, cumulative_tokens: int | None, text: bool = True) -> None:
        """An event: the tokens so far, None where it does not say; `text`: it brought some."""
        if cumulative_tokens is None or self.uncounted_ns:
            if text:
                self.went_on = self.went_on or self.finish_reason is not None
                self.uncounted_ns.append(arrival_ns)
            if cumulative_tokens is not None:
                self.count_late(cumulative_tokens)
        elif cumulative_tokens > self.tokens:
            if self.finish_reason is not None:
                self.went_on = True
            self.tokens = cumulative_tokens
            self.events.append([arrival_ns, cumulative_tokens])

    def count_late(self, cumulative_tokens: int) -> None:
        """Give the text that came uncounted its tokens."""
        if cumulative_tokens > self.tokens:
            self.events += spread(self.uncounted_ns, self.tokens, cumulative_tokens)
            self.tokens = cumulative_tokens
        self.uncounted_ns, self.counted_late = [], True


def spread(arrivals_ns: Sequence[int], before: int, total: int) -> list[list[int]]:
    """[arrival_ns, cumulative tokens] of arrivals (one or more) that led from `before` to `total`.

    As many arrivals as tokens are one token each. Otherwise only the last arrival is kept, and the
    first of a stream: TTFT, TPOT and E2E hold, single gaps are unknown.
    """
    first, last = arrivals_ns[0], arrivals_ns[-1]
    if len(arrivals_ns) == total - before:
        return [[ns, tokens] for tokens, ns in enumerate(arrivals_ns, before + 1)]
    if before > 0 or first == last:
        return [[last, total]]
    return [[first, 1], [last, total]] if total > 1 else [[first, 1]]


class Body:
    """Takes the framing off an HTTP/1.1 response, however it is cut into reads."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.complete = False
        self.error: str | None = None  # why it is no HTTP; nothing is read after that
        self._chunked = False
        self._left: float = math.inf  # bytes to come, of the body or of a chunk and its line end
        self.pending = b""  # of the head or of a chunk's size line

    def expect(self, status: int, content_type: str) -> None:
        """What comes is a body without head, framing and compression."""
        self.status, self.headers = status, {"content-type": content_type}

    def compressed(self) -> bool:
        """Whether the body is coded in some way that is not undone here."""
        names = (self.headers.get(f"{what}-encoding", "") for what in ("content", "transfer"))
        codings = {coding.strip().lower() for name in names for coding in name.split(",")}
        return bool(codings - {"", "identity", "chunked"})

    def lone_event(self, data: bytes) -> bytes:
        """What follows `data:` where one event of one line, in a chunk or bare, is all of `data`.

        That is the usual. Empty for all else.
        """
        start, end = 0, len(data)
        if self._chunked:
            start, end = data.find(b"\n", 0, 10) + 1, end - 2
            try:
                if self._left != 0 or self.pending or int(data[:start], 16) != end - start:
                    return b""
            except ValueError:
                return b""
        elif self._left != math.inf:
            return b""
        if data.find(b"\n", start) != end - 2 or not data.startswith(b"data:", start):
            return b""
        payload = data[start + 5 : end]
        return payload if payload[-1] == LINE_FEED and payload.find(b"\r") < 0 else b""

    def feed(self, data: bytes) -> bytes:
        """The body's bytes in `data`; sets `error` where it is no HTTP."""
        if self.error is not None:
            return b""
        raw, self.pending = self.pending + data, b""
        while self.status is None:
            head, found, rest = raw.partition(b"\r\n\r\n")
            if not found:
                self.pending = raw
                return b""
            self._read_head(head.decode("latin-1").split("\r\n"))
            if self.error is not None:
                return b""
            raw = rest
        pieces, at = [], 0
        while at < len(raw) and not self.complete:
            if self._chunked and self._left == 0:
                line_end = raw.find(b"\r\n", at)
                if line_end < 0:
                    self.pending = raw[at:]
                    break
                try:
                    size = int(raw[at:line_end].split(b";")[0], 16)
                except ValueError:
                    self.error = f"malformed: bad HTTP chunk size {raw[at:line_end][:20]!r}"
                    self._left = math.nan  # no chunk begins any more
                    break
                at, self._left, self.complete = line_end + 2, size + 2, size == 0
                continue
            piece = raw[at : at + int(min(self._left, len(raw)))]
            at += len(piece)
            framing = 2 if self._chunked else 0
            pieces.append(piece[: int(max(0, min(len(piece), self._left - framing)))])
            self._left -= len(piece)
            self.complete = self._left == 0 and not self._chunked
        return b"".join(pieces)

    def _read_head(self, lines: list[str]) -> None:
        fields = lines[0].split(None, 2)
        if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdigit():
            self.error = f"malformed: not an HTTP response: {lines[0][:60]!r}"
            return
        if int(fields[1]) < 200:  # 100 Continue: the head proper follows
            return
        self.status = int(fields[1])
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        self._chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length", "")
        if self._chunked:
            self._left = 0
        elif length.isdigit():
            self._left, self.complete = int(length), int(length) == 0


# ---------------------------------------------------------------------------------------------
# Event streams, and what comes in their place

FIELDS = (b"data", b"event", b"id", b"retry")
BYTE_ORDER_MARK = "\ufeff".encode()
GZIP = b"\x1f\x8b"
ERROR_FIELD = re.compile(r"^error:(.+)", re.MULTILINE)  # llama.cpp once sent errors as such a field
TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
JSON = json.JSONDecoder(strict=False)  # control characters in a text are no reason to lose a token
SECRETS = re.compile(r"(?<=//)[^/]*@|[?#].*")  # in an address: a password, a token
NUMBER = re.compile(rb"\s*(\d{1,18})\b")
QUICK_KEYS = (b'"completion_tokens":', b'"finish_reason":')
NO_REASON = (b"null", b" null", b'""', b' ""')
OUTPUT_KEYS = {"choices", "meta_info", "usage"}
NOT_UNDERSTOOD = (
    *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError),
)
CHECK_PATH = "check --base-url, --backend and any proxy between"
COMPRESSED = "malformed: the server compresses its answer; use --reader threads"
UNCOUNTED = (
    "uncounted: the server sent text without token counts; "
    "it has to support stream_options.include_usage"
)


class EventStream:
    """Events of a text/event-stream body by WHATWG's rules, however it is cut into reads.

    https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
    The empty line after an event completes it; an event that the stream leaves without is dropped.
    `id` and `retry` are not used here. Lines that are no field are ignored by the rules; here up to
    64 KiB of them are kept, because a web page or an error in bare JSON is made of such lines.
    """

    def __init__(self) -> None:
        self.between = False  # at the end of an event: what comes next begins with a field
        self.fields = False  # whether a field has come; whoever takes lone events sets it too
        self._strange: list[bytes] = []
        self._strange_left = KEPT_BYTES
        self._unfinished = b""  # a line whose end has not come
        self._after_cr = False  # a line feed that comes next belongs to the line end before it
        self._at_start = True
        self._name = b""
        self._data: list[bytes] = []
        self._arrival_ns = 0

    def feed(self, arrival_ns: int, text: bytes) -> list[tuple[int, bytes, bytes]]:
        """(arrival_ns, name, data) of each event that `text` completes; most have no name.

        An event has arrived with the read that ended its last line of data.
        """
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix(b"\n")
        text = self._unfinished + text
        lines = text.splitlines()
        ended = text.endswith((b"\n", b"\r"))
        self._unfinished = lines.pop() if lines and not ended else b""
        self._after_cr = text.endswith(b"\r")
        if self._at_start and lines:
            lines[0], self._at_start = lines[0].removeprefix(BYTE_ORDER_MARK), False
        events, data = [], self._data
        for line in lines:
            if line.startswith(b"data: "):
                data.append(line[6:])
                self._arrival_ns = arrival_ns
            elif line:
                self._take_line(arrival_ns, line)
            else:
                if data:
                    events.append((self._arrival_ns, self._name, b"\n".join(data)))
                    data.clear()
                self._name = b""
        self.fields = self.fields or bool(events or data)
        self.between = ended and not (self._after_cr or self._name or data)
        return events

    def strange(self) -> bytes:
        """The lines that are no field, the unfinished last one too unless it may become one."""
        name, colon, _ = self._unfinished.removeprefix(BYTE_ORDER_MARK).partition(b":")
        cut = any(known.startswith(name) for known in FIELDS) if not colon else name in FIELDS
        last = [] if cut or not self._unfinished.strip() else [self._unfinished]
        return b"\n".join([*self._strange, *last])

    def unended(self) -> bytes:
        """The data of an event whose empty line has not come."""
        return b"\n".join(self._data)

    def _take_line(self, arrival_ns: int, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._arrival_ns = arrival_ns
        elif name == b"event":
            self._name = value.removeprefix(b" ")
        if name in FIELDS:
            self.fields = True
        elif name and self._strange_left > 0:
            self._strange.append(line[: self._strange_left])
            self._strange_left -= len(line)


def quick_count(payload: bytes, prompts: int) -> tuple[int, int] | None:
    """(index, completion tokens) of an event that ends no prompt; None: needs a JSON parser.

    A quote within a JSON string is escaped, so `"name":` in the bytes is a key and never text.
    """
    count = payload.rfind(b'"completion_tokens":')
    reason = payload.rfind(b'"finish_reason":')
    if count < 0 or reason < 0 or not payload.startswith(NO_REASON, reason + 16):
        return None
    if payload.rfind(b'"error"') >= 0:  # from the right: twice as fast
        return None
    tokens = NUMBER.match(payload, count + 20)
    if prompts == 1:
        return (0, int(tokens[1])) if tokens else None
    at = payload.rfind(b'"index":')
    index = NUMBER.match(payload, at + 8) if payload.find(b'"index":') == at >= 0 else None
    return (int(index[1]), int(tokens[1])) if tokens and index else None


def is_quick(payload: bytes, prompts: int, taken: tuple[int, int | None]) -> bool | None:
    """Whether quick_count finds in events of this kind what was `taken`; None: not to be seen."""
    quick = quick_count(payload, prompts)
    if quick is None or taken[1] is None:
        return None
    return quick == taken and all(payload.count(key) == 1 for key in QUICK_KEYS)


def says_something(value: object) -> bool:
    """Whether there is a value but null, 0 and "" in `value` or anywhere within."""
    if isinstance(value, dict):
        return any(map(says_something, value.values()))
    return any(map(says_something, value)) if isinstance(value, list) else bool(value)


def alone(payload: object) -> object:
    """What is in a list of one: some servers put their errors into one."""
    return payload[0] if isinstance(payload, list) and len(payload) == 1 else payload


def server_message(payload: object) -> str:
    """The human part of an error body: {"error": {"message": …}}, {"message": …}, {"detail": …}."""
    payload = alone(payload)
    while isinstance(payload, dict):
        for key in ("error", "message", "detail", "msg"):
            if isinstance(payload.get(key), str | dict | list) and says_something(payload[key]):
                payload = payload[key]
                break
        else:
            break
    return " ".join(str(payload).split())[:300]


def error_words(payload: object) -> str | None:
    """What an error object says; None where `payload` is none. `"error": null` is no error."""
    payload = alone(payload)
    if not isinstance(payload, dict):
        return None
    named = "error" in (payload.get("object"), payload.get("type"))
    if not named and not says_something(payload.get("error")):
        if not OUTPUT_KEYS.isdisjoint(payload):
            return None
        if not any(isinstance(payload.get(key), str) for key in ("message", "detail", "msg")):
            return None
    return server_message(payload)


def json_values(text: str) -> list[Any]:
    """The JSON document that `text` is, or those of its lines; empty where it is no JSON."""
    for parts in ([text], text.splitlines()):
        with contextlib.suppress(ValueError, RecursionError):
            return [JSON.decode(part.strip()) for part in parts if part.strip()]
    return []


def words_of(text: str) -> str:
    """The human part of an error that may be JSON."""
    values = json_values(text)
    return server_message(values[0] if len(values) == 1 else text)


def run_together(text: str) -> bool:
    """Whether an event's data is that of several events, without an empty line between them."""
    return len(json_values("\n".join(text.splitlines()[:2]))) > 1


def not_understood(text: str) -> str:
    """The error for an event's data that is no JSON, or JSON of no known shape."""
    if run_together(text):
        return f"malformed: no empty line between two events: {text[:60]!r}; {CHECK_PATH}"
    return f"malformed: event not understood: {text[:60]}"


def wrong_answer(text: bytes, content_type: str, begun: bool) -> str | None:
    """The error that `text` is, which stands where events should; `begun`: events came too.

    None where events came and `text` is only lines that the rules say to ignore.
    """
    if text.startswith(GZIP):
        return COMPRESSED
    words = text.decode("utf-8", "replace").removeprefix("\ufeff").strip()
    error = ERROR_FIELD.search(words)
    if error:
        return f"server: {words_of(error[1])}"
    values = json_values(words)
    said = next(filter(None, map(error_words, values)), None)
    if said is not None:
        return f"server: {said}"
    kind = "" if begun else content_type.partition(";")[0].strip() or "plain text"
    if words.startswith("<") or (not begun and "html" in content_type.lower()):
        kind, words = "HTML", TAG.sub(" ", words)
    elif words.startswith("{") or (values and words.startswith("[")):
        kind = "JSON lines" if len(values) > 1 else "JSON"
    if not kind:
        return None
    did = f"sent {kind} between events" if begun else f"answered {kind}, not an event stream"
    excerpt = " ".join(words.split())[:60]
    return f"malformed: the server {did}: {excerpt!r}; {CHECK_PATH}"


class Answer:
    """The response to one request: its reads go in, `records` get the tokens, one a prompt."""

    def __init__(self, prompts: int) -> None:
        self.records = [Record() for _ in range(prompts)]
        self._body = Body()
        self._stream = EventStream()
        self._error: str | None = None
        self._error_body = b""  # of an HTTP error
        self._done = False
        self._quick: bool | None = None  # whether quick_count and the JSON parser agreed here

    @property
    def status(self) -> int | None:
        return self._body.status

    def expect_body(self, status: int, content_type: str = "") -> None:
        """The reads are the decoded body: no HTTP framing."""
        self._body.expect(status, content_type)

    def complete(self) -> bool:
        """Whether nothing more can come, even on a connection that stays open."""
        return self._done or self._body.complete or (self._error or self._body.error) is not None

    def has_output(self) -> bool:
        """Whether an event with output has been parsed."""
        return any(record.events or record.uncounted_ns for record in self.records)

    def ignored_lines(self) -> list[bytes]:
        """What the rules for event streams say to ignore, of an answer that is otherwise well."""
        failed = any(record.error for record in self.records)
        return [] if failed else self._stream.strange().splitlines()

    def feed(self, arrival_ns: int, data: bytes) -> None:
        """Parse one read."""
        body = self._body
        if self._stream.between:
            payload = body.lone_event(data)
            if payload:
                self._take(arrival_ns, b"", payload)
                return
        text = body.feed(data)
        if body.status == 200:
            for event in self._stream.feed(arrival_ns, text):
                self._take(*event)
        elif len(self._error_body) < KEPT_BYTES:
            self._error_body += text

    def finish(self, stream: Stream, options: Options) -> list[Record]:
        """The records, each with its times and, where the prompt failed, its error."""
        error = self._whole_error(stream.error)
        for record in self.records:
            record.start_ns, record.sent_ns = stream.start_ns, stream.sent_ns
            record.intended_ns, record.lane = stream.intended_ns, stream.lane
            if record.error is not None:
                continue
            if error is not None:
                record.error = error
            elif record.finish_reason is None or (record.went_on and not self._done):
                record.error = self._cut_error(stream.error, record.went_on)
            elif record.uncounted_ns:
                record.error = UNCOUNTED
            elif not record.events or (
                options.ignore_eos and record.tokens < options.max_new_tokens
            ):
                record.error = (
                    f"short: {record.tokens} of {options.max_new_tokens} tokens "
                    f"(finish reason {record.finish_reason})"
                )
        return self.records

    def _whole_error(self, stream_error: str | None) -> str | None:
        """What went wrong with the response as a whole, if it is known from its bytes."""
        body = self._body
        if self.status is None:
            if not body.pending and body.error is None:
                return None
            cut = "malformed: the connection closed before a whole response head"
            return stream_error or body.error or cut
        if self.status != 200:
            return self._http_error()
        if body.compressed():
            return COMPRESSED
        return self._error or body.error

    def _http_error(self) -> str:
        body, location = self._error_body, self._body.headers.get("location")
        if location and 300 <= (self.status or 0) < 400:
            place = SECRETS.sub("", location)
            return f"http {self.status}: moved to {place}; {CHECK_PATH}"
        if self._body.compressed():
            with contextlib.suppress(zlib.error):
                body = zlib.decompressobj(wbits=47).decompress(body, KEPT_BYTES)
        return f"http {self.status}: {words_of(body.decode('utf-8', 'replace'))}"

    def _cut_error(self, stream_error: str | None, went_on: bool) -> str:
        """Why a prompt has no finish reason; with `went_on`, none after its last text."""
        strange, error = self._stream.strange(), None
        if strange:
            content_type = self._body.headers.get("content-type", "")
            error = wrong_answer(strange, content_type, self._stream.fields)
        if error or stream_error:
            return error or stream_error or ""
        left = self._stream.unended().decode("utf-8", "replace")
        if run_together(left):
            return not_understood(left)
        note = f" (it also holds lines that are no event: {strange[:60]!r})" if strange else ""
        if went_on:
            return f"truncated: text came after a finish reason, and no [DONE] at the end{note}"
        end = "[DONE] came" if self._done else "the stream ended"
        return f"truncated: {end} without a finish reason{note}"

    def _take(self, arrival_ns: int, name: bytes, data: bytes) -> None:
        """Take an event in."""
        records = self.records
        if self._quick and not name:
            quick = quick_count(data, len(records))
            if quick is not None and quick[0] < len(records):
                records[quick[0]].add(arrival_ns, quick[1])
                return
        self._stream.fields = True
        text = data.decode("utf-8", "replace").strip()
        self._done = self._done or text == "[DONE]"
        if self._done or not text or text.startswith(":"):  # a proxy wrapped a comment up as data
            return
        if name.lower() == b"error":
            fail(records, words_of(text))
            return
        try:
            taken = take_event(records, arrival_ns, JSON.decode(text))
        except NOT_UNDERSTOOD:
            if name in (b"", b"message"):  # events of another name, as pings, may be anything
                self._error = self._error or not_understood(text)
            return
        if self._quick is None and taken is not None and not name:
            self._quick = is_quick(data, len(records), taken)


def parse_stream(stream: Stream, options: Options, clock: KernelClock) -> list[Record]:
    """One record a prompt. An error is set on the prompts it concerns; what arrived is kept."""
    stream.parse_reads(clock)
    return stream.answer.finish(stream, options)


def take_event(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None] | None:
    """Returns (index, cumulative tokens) of an event with output of one prompt.

    Raises one of NOT_UNDERSTOOD where the event has none of the shapes that servers send.
    """
    words = error_words(event)
    if words is not None:
        fail(records, words)
    elif "meta_info" in event:
        return _take_native(records, arrival_ns, event)
    elif event.get("choices"):
        return _take_openai(records, arrival_ns, event)
    elif event.get("usage"):
        _take_usage(records, event["usage"])
    elif "choices" not in event and "usage" not in event:
        raise LookupError
    return None


def fail(records: Sequence[Record], words: str) -> None:
    """The server ends what is still running: of a batch, the prompts without a finish reason."""
    for record in records:
        if len(records) == 1 or record.finish_reason is None or record.went_on:
            record.error = record.error or f"server: {words}"


def _place(records: list[Record], event: dict[str, Any]) -> tuple[int, Record]:
    index = int(event.get("index") or 0)
    return index, records[index if index >= 0 else len(records)]


def _take_native(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None]:
    meta, (index, record) = event["meta_info"], _place(records, event)
    tokens = int(meta["completion_tokens"])
    record.add(arrival_ns, tokens)
    record.prompt_tokens = int(meta.get("prompt_tokens") or 0)
    record.cached_tokens = int(meta.get("cached_tokens") or 0)
    _finish(record, meta.get("finish_reason"))
    return index, tokens


def _take_openai(
    records: list[Record], arrival_ns: int, event: dict[str, Any]
) -> tuple[int, int | None] | None:
    choices, taken = event["choices"], None
    usage: dict[str, Any] = event.get("usage") or {}
    if len(choices) > 1:
        usage = {}  # of which of the prompts?
    for choice in choices:
        index, record = _place(records, choice)
        # 0, while text comes: the server fills it in at the end
        tokens = int(usage.get("completion_tokens") or 0) or None
        record.add(arrival_ns, tokens, has_text(choice))
        if usage:
            _take_prompt_usage(record, usage)
        words = error_words({"choices": None, "error": choice.get("error")})
        if words is not None:
            fail([record], words)
        _finish(record, choice.get("finish_reason"))
        taken = index, tokens
    return taken if len(choices) == 1 else None


def has_text(choice: dict[str, Any]) -> bool:
    """Whether a choice brought output: `text`, or a `delta` (chat) with content of any kind."""
    delta = choice.get("delta") or choice.get("message") or {}
    said = {key: delta[key] for key in delta if key not in ("role", "type")}
    return bool(choice.get("text")) or says_something(said)


def _finish(record: Record, reason: object) -> None:
    """Take a finish reason in; null and "" are none. Some servers send the word "null"."""
    message: object = None
    if isinstance(reason, dict):
        message, reason = reason.get("message"), reason.get("type")
    if not reason or str(reason).lower() in ("null", "none"):
        return
    record.finish_reason = str(reason)
    if record.finish_reason == "abort":
        record.error = record.error or f"aborted: {server_message(message or 'by the server')}"
    elif record.finish_reason == "error":
        record.error = record.error or f"server: {server_message(message or 'finish reason error')}"


def _take_prompt_usage(record: Record, usage: dict[str, Any]) -> None:
    record.prompt_tokens = int(usage.get("prompt_tokens") or 0)
    details = usage.get("prompt_tokens_details") or {}
    record.cached_tokens = int(details.get("cached_tokens") or 0)


def _take_usage(records: list[Record], usage: dict[str, Any]) -> None:
    """The total of a server that counts only at the end; a batch's cannot be told apart."""
    if not any(record.uncounted_ns for record in records):
        return
    if len(records) == 1:
        records[0].count_late(int(usage["completion_tokens"]))
        _take_prompt_usage(records[0], usage)
        return
    for record in records:
        record.tokens = 0
        record.error = (
            "uncounted: the server counts a batch as one; use --batch 1 "
            "(or an sglang with continuous_usage_stats: 0.5.6 or later)"
        )


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


def token_arrivals(record: Record) -> list[int]:
    """When each token arrived, ns; those of one event together."""
    counts = itertools.pairwise([0, *(tokens for _, tokens in record.events)])
    news = (after - before for before, after in counts)
    return [ns for (ns, _), new in zip(record.events, news, strict=True) for _ in range(new)]


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
    reader_lags_ns = run.clock.lags_ns or run.clock.rounds_ns
    return {
        **distribution("send_lag_ms", lags_ms),
        **distribution("reader_lag_ms", (lag_ns / 1e6 for lag_ns in reader_lags_ns)),
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
    uncounted = any(record.counted_late for record in records)
    ignored = [line for stream in run.streams for line in stream.answer.ignored_lines()]
    stamped_share = len(run.clock.lags_ns) / max(1, run.clock.reads)
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
        "timestamps": "kernel" if stamped_share > 0.5 else "user",
        "kernel_timestamp_share": stamped_share,
        "reader": run.reader,
        "token_counts": "final_usage" if uncounted else "per_event",
        "ignored_lines": len(ignored),
        "first_ignored_line": ignored[0][:60].decode("utf-8", "replace") if ignored else None,
        "self_check": check,
    }
    sent = len(records) + options.warmup * options.batch
    summary["warnings"] = warnings_for(summary, sent, prompts_in_file)
    return summary


def warnings_for(summary: dict[str, Any], prompts: int, prompts_in_file: int) -> list[str]:
    """Sentences about anything that makes the figures mean less than they seem to."""
    check = summary["self_check"]
    found = []
    if summary["ignored_lines"]:
        found.append(
            f"{summary['ignored_lines']} lines of the answers are no field of an event stream and "
            f"were ignored; the first: {summary['first_ignored_line']!r}"
        )
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
    if 0 < prompts_in_file < prompts and summary["total_output_tokens"]:
        found.append(
            f"{prompts_in_file} prompts in the file, {prompts} sent (warm-up included): a prefix "
            f"cache may serve the repeats ({summary['total_cached_tokens']} cached tokens reported)"
        )
    return found


# ---------------------------------------------------------------------------------------------
# Report


def wrapped(text: str) -> str:
    """At most 80 columns; what is copied from it, as addresses are, stays whole."""
    return textwrap.fill(
        text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


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
    outcome = f"prompts        {summary['completed']} completed, {summary['failed']} failed"
    lines += [
        "",
        outcome,
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
        f"{number(check['p99_reader_lag_ms'], 3)} ms, CPU {check['client_cpu_share']:.1%},",
        f"               {(check['read_together_share'] or 0):.1%} of arrivals read together, "
        f"{summary['kernel_timestamp_share']:.0%} kernel stamps",
    ]
    if not summary["total_output_tokens"]:
        lines = [*lines[:3], outcome]
    notes = [f"warning: {text}" for text in summary["warnings"]]
    for error, count in Counter(r.error for r in records if r.error).most_common(10):
        notes.append(f"failed: {count} x {error}")
    lines += map(wrapped, notes)
    if summary["interrupted"]:
        lines.append("interrupted: the figures cover what had arrived")
    return lines


def result_document(summary: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The --output JSON, schema 1."""
    internal = ("uncounted_ns", "counted_late", "went_on")
    rows = [{k: v for k, v in vars(record).items() if k not in internal} for record in records]
    return {"schema": 1, "summary": summary, "requests": rows}


BENCH_SERVING_SAME = (
    *("request_rate", "max_concurrency", "duration", "completed", "request_throughput"),
    *("concurrency", "max_concurrent_requests"),
)


def bench_serving_line(
    summary: dict[str, Any], records: Sequence[Record], options: Options
) -> dict[str, Any]:
    """What sglang 0.5.21's bench_serving appends to --output-file; its totals leave failures out.

    Source of the names: sglang/benchmark/serving.py, `result` in benchmark().
    """
    done = [record for record in records if record.error is None]
    tokens_in, tokens_out = (sum(r.prompt_tokens for r in done), sum(r.tokens for r in done))
    a_second = Counter(
        (arrival_ns - min(r.start_ns for r in done)) // 1_000_000_000
        for record in done
        for arrival_ns in token_arrivals(record)
    )
    rate = {"input": tokens_in, "output": tokens_out, "total": tokens_in + tokens_out}
    return {
        "tag": None,
        "backend": "sglang" if options.backend == "sglang" else "sglang-oai",
        "dataset_name": "custom" if options.input_len is None else "random",
        "sharegpt_output_len": None,
        "random_input_len": options.input_len,
        "random_output_len": options.max_new_tokens,
        "random_range_ratio": None,
        "server_info": None,
        **{name: summary[name] for name in BENCH_SERVING_SAME},
        "request_rate": summary["request_rate"] or math.inf,
        "total_input_tokens": tokens_in,
        "total_input_text_tokens": tokens_in,
        "total_input_vision_tokens": 0,
        "total_output_tokens": tokens_out,
        "total_output_tokens_retokenized": None,
        **{f"{name}_throughput": rate[name] / summary["duration"] for name in rate},
        **{
            f"{statistic}_{name}": summary[f"{statistic}_{name}"]
            for name in ("e2e_latency_ms", "ttft_ms", "tpot_ms", "itl_ms")
            for statistic in ("mean", "median", "std", "p90", "p95", "p99")
        },
        "accept_length": None,
        "max_output_tokens_per_s": max(a_second.values(), default=0),
    }


def part_of(path: Path) -> Path:
    """Where the file is written until it is whole; a device or a pipe is written as it comes."""
    path = path.resolve()
    return path.with_name(path.name + ".part") if path.is_file() or not path.exists() else path


def check_writable(name: str, path: Path, draft_of: Callable[[Path], Path]) -> None:
    """Try it before anything is sent. Raises UsageError where it cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        draft = draft_of(path)
        is_new = not draft.exists()
        with draft.open("ab"):
            pass
        if is_new:
            draft.unlink()
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        reason = "no such folder; create it first" if missing else exc.strerror
        raise UsageError(f"{name} {path}: {reason}") from exc


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = part_of(path)
    part.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")
    if part != path.resolve():
        part.replace(path.resolve())


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
    lines_file = options.bench_serving_json
    if options.output is not None:
        check_writable("--output", options.output, part_of)
    if lines_file is not None:
        check_writable("--bench-serving-json", lines_file, Path)
    server = Server(options)
    run = Run(begin_ns=clock_ns(), interrupted=True)
    model, no_server = options.model or "default", False
    try:
        model = server.model()
        closed = {"request_rate": None, "duration_s": None, "concurrency": options.concurrency or 1}
        warm_options = Options(**(vars(options) | closed))
        prompts_before = options.warmup * options.batch
        ahead = plan(warm_options, model, prompts, -prompts_before, prompts_before)
        warm = Driver(ahead, server, warm_options, "warm-up").run()
        if not warm.interrupted:
            parsed = (parse_stream(stream, options, warm.clock) for stream in warm.streams)
            errors = {record.error or "" for records in parsed for record in records}
            no_server = bool(errors) and all(error.startswith(NO_SERVER) for error in errors)
            if no_server:
                run = warm  # its failures are the report: nothing else would come of measuring
            else:
                for error in sorted(errors - {""}):
                    print(wrapped(f"warning: warm-up failed: {error}"), file=sys.stderr)
                ahead = plan(options, model, prompts, 0, prompts_in_all(options, prompts))
                run = Driver(ahead, server, options, "measuring").run()
    except KeyboardInterrupt:
        run.end_ns = clock_ns()
    _ignore_signals()
    records: list[Record] = []
    for stream in run.streams:
        records += parse_stream(stream, options, run.clock)
    summary = summarize(records, run, options, model, len(prompts))
    if no_server:
        summary["warnings"] = ["no server answered the warm-up: nothing was measured"]
    failures = summary["failed"] / max(1, len(records))
    status = int(not records or no_server or failures > options.max_error_rate)
    try:
        if options.output is not None:
            write_json(options.output, result_document(summary, records))
        if lines_file is not None:
            line = bench_serving_line(summary, records, options)
            with lines_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    except OSError as exc:
        print(f"client_benchmark.py: the result cannot be written: {exc}", file=sys.stderr)
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
