# ruff: noqa: PLC0415  each peer is imported only where it runs
"""One run of one streaming client, for bench_client.py.

USAGE       python benchmarks/bench_client_peer.py CLIENT URL N OUT
SENDS       N prompts "#k# word word ...", k = 0..N-1, to URL/generate, each a stream of its own
WRITES      JSON: {"read_cpu_s", "parse_cpu_s", "sent_ns": [...], "events": [[[ns, tokens], ...]]}
CPU         of the process: from before the first connection to the last byte, and of parsing
"""

from __future__ import annotations

import asyncio
import importlib.machinery
import importlib.util
import json
import select
import socket
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

Events = list[list[list[int]]]
Reads = list[list[tuple[int, bytes]]]
Finish = Callable[[], tuple[list[int], Events]]
clock_ns = time.monotonic_ns
WORDS = " word" * 62


def payload(number: int) -> dict[str, object]:
    sampling = {"temperature": 0, "max_new_tokens": 128, "ignore_eos": True}
    return {"text": f"#{number}#{WORDS}", "sampling_params": sampling, "stream": True}


def tokens_in(line: bytes) -> int | None:
    """The cumulative tokens of an SSE line, with the json module; None if it is no event."""
    if not line.startswith(b"data: {"):
        return None
    return int(json.loads(line[6:])["meta_info"]["completion_tokens"])


def parse_reads(reads: Iterable[list[tuple[int, bytes]]]) -> Events:
    """Events of raw or framed reads; a line arrived with the read that ended it."""
    found: Events = []
    for stream in reads:
        events, partial = [], b""
        for arrival_ns, data in stream:
            *lines, partial = (partial + data).split(b"\n")
            events += [[arrival_ns, n] for n in map(tokens_in, lines) if n is not None]
        found.append(events)
    return found


def ours(url: str, count: int) -> Finish:
    from repro_pp_graphs.client.command import raise_open_file_limit
    from repro_pp_graphs.client.driver import Driver
    from repro_pp_graphs.client.load import streams_to_send
    from repro_pp_graphs.client.options import parse_options
    from repro_pp_graphs.client.prompts import Prompts
    from repro_pp_graphs.client.server import Server
    from repro_pp_graphs.client.stream import parse_stream

    prompts = Path(sys.argv[4]).with_suffix(".txt")
    prompts.write_text("".join(f"#{k}#{WORDS}\n" for k in range(count)))
    argv = ["--base-url", url, "--concurrency", str(count), "--prompts", str(prompts)]
    argv += ["--no-ignore-eos"]  # the server decides how many tokens come
    options = parse_options(argv)
    sys.setswitchinterval(1e-4)
    raise_open_file_limit()
    server, texts = Server(options), Prompts(options)
    ahead = streams_to_send(options, "", texts, 0, count)
    run = Driver(ahead, server, options, "").run()

    def finish() -> tuple[list[int], Events]:
        records = [parse_stream(stream, options, run.clock)[0] for stream in run.streams]
        assert all(record.error is None for record in records), records[0].error
        return [record.sent_ns for record in records], [record.events for record in records]

    return finish


def floor(url: str, count: int) -> Finish:
    """Raw sockets, one epoll, recv and a time stamp; json afterwards."""
    parts = urlsplit(url)
    streams: dict[int, tuple[socket.socket, list[tuple[int, bytes]]]] = {}
    poller, reads, sent, opened = select.epoll(), [], [], []
    for _ in range(count):
        sock = socket.create_connection((parts.hostname, parts.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        poller.register(sock, select.EPOLLIN)
        reads.append([])
        streams[sock.fileno()] = sock, reads[-1]
        opened.append(sock)
    for number, sock in enumerate(opened):
        body = json.dumps(payload(number)).encode()
        head = f"POST /generate HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n"
        sent.append(clock_ns())
        sock.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
    while streams:
        for fd, _ in poller.poll():
            sock, kept = streams[fd]
            data = sock.recv(65536)
            kept.append((clock_ns(), data))
            if not data:
                poller.unregister(fd)
                sock.close()
                del streams[fd]
    return lambda: (sent, parse_reads(reads))


def naive(url: str, count: int) -> Finish:
    """requests, a thread a stream, iter_lines and json as lines come."""
    import requests

    sent, events = [0] * count, [[] for _ in range(count)]

    def stream(number: int) -> None:
        sent[number] = clock_ns()
        with requests.post(f"{url}/generate", json=payload(number), stream=True) as reply:
            for line in reply.iter_lines():
                tokens = tokens_in(line)
                if tokens is not None:
                    events[number].append([clock_ns(), tokens])

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return lambda: (sent, events)


def aiohttp_uvloop(url: str, count: int) -> Finish:
    """aiohttp on uvloop, chunks stamped as they come; json afterwards."""
    import aiohttp
    import uvloop

    sent, reads = [0] * count, [[] for _ in range(count)]

    async def stream(session: aiohttp.ClientSession, number: int) -> None:
        sent[number] = clock_ns()
        async with session.post(f"{url}/generate", json=payload(number)) as reply:
            async for data in reply.content.iter_any():
                reads[number].append((clock_ns(), data))

    async def every() -> None:
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(stream(session, number) for number in range(count)))

    uvloop.run(every())
    return lambda: (sent, parse_reads(reads))


def bench_serving(url: str, count: int) -> Finish:
    """sglang's own request function; it parses as lines come and keeps gaps."""
    from sglang.benchmark import serving

    words = {"temperature": 0, "top_p": 1.0, "disable_ignore_eos": False, "disable_stream": False}
    words |= {"return_logprob": False, "return_routed_experts": False, "logprob_start_len": -1}
    words |= {"top_logprobs_num": 0, "token_ids_logprob": None, "header": None}
    serving.args = Namespace(**words)

    async def every() -> list[serving.RequestFuncOutput]:
        inputs = [
            serving.RequestFuncInput(
                prompt=str(payload(number)["text"]),
                api_url=f"{url}/generate",
                prompt_len=64,
                output_len=128,
                model="",
                lora_name="",
                image_data=None,
                extra_request_body={},
            )
            for number in range(count)
        ]
        calls = map(serving.async_request_sglang_generate, inputs)
        return await asyncio.gather(*calls)

    outputs = asyncio.run(every())

    def finish() -> tuple[list[int], Events]:
        events = []
        for output in outputs:
            at_s, arrivals = output.start_time + output.ttft, []
            for gap_s in [0.0, *output.itl]:
                at_s += gap_s
                arrivals.append([round(at_s * 1e9), len(arrivals) + 1])
            events.append(arrivals)
        return [round(output.start_time * 1e9) for output in outputs], events

    return finish


CLIENTS = {"ours": ours, "floor": floor, "naive": naive}
CLIENTS |= {"aiohttp": aiohttp_uvloop, "bench_serving": bench_serving}


def imports(name: str) -> None:
    """What a client imports is no part of its speed."""
    wanted = {"ours": "repro_pp_graphs.client.measure", "naive": "requests", "aiohttp": "aiohttp"}
    __import__(wanted.get(name, "json"))
    if name == "bench_serving":
        from repro_pp_graphs.server.shims import cpu

        cpu.install()
        if importlib.util.find_spec("datasets") is None:  # only its data sets need it
            stand_in = ModuleType("datasets")
            stand_in.__spec__ = importlib.machinery.ModuleSpec("datasets", None)
            stand_in.__dict__["load_dataset"] = None
            sys.modules["datasets"] = stand_in
        __import__("sglang.benchmark.serving")


def main() -> None:
    name, url, count, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    imports(name)
    start_s = time.process_time()
    finish = CLIENTS[name](url, count)
    read_s = time.process_time()
    sent_ns, events = finish()
    parsed_s = time.process_time()
    result = {"sent_ns": sent_ns, "events": events}
    result |= {"read_cpu_s": read_s - start_s, "parse_cpu_s": parsed_s - read_s}
    out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
