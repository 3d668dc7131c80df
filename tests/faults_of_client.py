"""Faults of the client: its options, and what a server answers that is none."""

from __future__ import annotations

from collections.abc import Iterator

from fault_commands import Fault, client
from fault_preparations import answering, content


def _clients() -> Iterator[Fault]:
    for url in ("http://127.0.0.1:99999", "http://h:0", "http://h:\u00b2", "http://[::1", "h:80",
                "http://h\x1b[1m", "http://u:p@h", ""):  # fmt: skip
        yield client(f"client: --base-url {url[:24]}", "--base-url", url, says="--base-url: give")
    for name, value in (
        ("--batch", "0"), ("--batch", "-1"), ("--concurrency", "\u00b2"), ("--num-prompts", "1e9"),
        ("--request-rate", "nan"), ("--request-rate", "-1"), ("--duration", "inf"),
        ("--max-new-tokens", ""), ("--input-len", "9" * 30), ("--stall-timeout", "0"),
        ("--max-error-rate", "2"), ("--warmup", "-1"), ("--seed", "x"), ("--reader", "x"),
        ("--backend", "vllm"),
    ):  # fmt: skip
        yield client(f"client: {name} {value}", name, value, says=f"{name}")
    yield client("client: no such option", "--nope\x1b[1m", says="--nope")
    yield client("client: no such prompts", "--prompts", "/no\x1b[1m", says="/no")
    yield client("client: prompts that are a folder", "--prompts", "/tmp", says="/tmp")
    yield client("client: prompts that are empty", "--prompts", "/dev/null", says="/dev/null")
    yield client("client: prompts that are no text", "--prompts", "p", says="p",
                  prepare=content("p", bytes(range(256)) * 99))  # fmt: skip
    yield client("client: nobody listens", "--base-url", "http://127.0.0.1:9", says="127.0.0.1:9",
                  status=1)  # fmt: skip
    yield client("client: --output in no folder", "--output", "/no/where/x.json", says="/no/where")
    yield client("client: --output that is a folder", "--output", "/tmp", says="/tmp")


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HOSTILE = {  # what a server answers: the bytes, and what the client says
    "a negative chunk size": (CHUNKED + b"-5\r\n" + b"x" * 99, "chunk size"),
    "a chunk size of 5000 digits": (CHUNKED + b"9" * 5000 + b"\r\n", "chunk size"),
    "a chunk size that is superscript": (CHUNKED + b"\xb2\r\n", "chunk size"),
    "a size line without an end": (CHUNKED + b"1" * (1 << 22), "chunk size"),
    "a head without an end": (OK + b"X: " + b"y" * (1 << 22), ""),
    "what is no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n\x1b[2J" + b"\0" * 999, ""),
    "a status of 5000 digits": (b"HTTP/1.1 " + b"2" * 5000 + b" OK\r\n\r\n", ""),
    "nothing": (b"", ""),
    "an event nested 100 000 deep": (OK + b"\r\ndata: " + b"[" * 100_000 + b"\n\n", ""),
    "an error with ESC and bidi": (
        b'HTTP/1.1 500 No\r\n\r\n{"message": "\x1b[2J \\u001b]0;x\\u0007 \\u202e"}', "500"),
    "a redirect to itself": (b"HTTP/1.1 302 F\r\nLocation: /generate\r\n\r\n", "302"),
    "a length of 5000 digits": (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", ""),
    "compressed data that is none": (OK + b"Content-Encoding: gzip\r\n\r\n\x1f\x8bno", ""),
    "a token count beyond int64": (
        OK + b'\r\ndata: {"text": "x", "meta_info": {"completion_tokens": 1e300}}\n\n', ""),
    "an event of 32 MB": (OK + b"\r\ndata: " + b"x" * (32 << 20) + b"\n\n", ""),
}  # fmt: skip


def _hostile_servers() -> Iterator[Fault]:
    words = ("--base-url", "http://127.0.0.1:PORT", "--batch", "1")
    for what, (data, says) in HOSTILE.items():
        for hold in (False, True):
            # the end of what is held is waited for, where the client does not see a fault before
            limit = ("--stall-timeout", "5" if hold and says != "chunk size" else "600")
            name = f"client: the server answers {what}" + ", and holds on" * hold
            yield client(name, *words, *limit, "--max-new-tokens", "2", says=says, status=1,
                          prepare=answering(data, hold))  # fmt: skip


CLIENT_FAULTS = [*_clients(), *_hostile_servers()]
