"""The client's wire: an HTTP answer in any pieces, its events, the figures made of them."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

from fuzz.choices import Choices
from fuzz.oracle import LONGEST_SAID, check, plain, strict_json
from repro_pp_graphs.client.clock import KernelClock
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.report import report_lines
from repro_pp_graphs.client.result import result_document
from repro_pp_graphs.client.run import Run
from repro_pp_graphs.client.stream import Stream, parse_stream
from repro_pp_graphs.client.summary import summarize
from repro_pp_graphs.client.terminal import visible

EVENT = b'{"text": "x", "meta_info": {"completion_tokens": %d, "prompt_tokens": 3%s}}'
END = b', "finish_reason": {"type": "length", "length": 2}'
OPENAI = (
    b'{"index": 0, "choices": [{"index": %d, "text": "y", "finish_reason": %s}],'
    b' "usage": {"completion_tokens": %d, "prompt_tokens": 2}}'
)
PARTS = (  # in this order, which the kept inputs name
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 No\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 40\r\n", b"Content-Encoding: gzip\r\n"),
    *(b"Content-Type: text/event-stream\r\n", b"Location: http://u:p@h/?k\r\n", b"\r\n", b"\n\n"),
    *(
        b"data: ",
        b"data:",
        b"event: error\n",
        b"event: ping\n",
        b": c\n",
        b"id: 1\n",
        b"retry: 2\n",
    ),
    *(b"data: " + EVENT % (n, END if n > 1 else b"") + b"\n\n" for n in (0, 1, 2)),
    *(
        b'data: {"index": 1, ' + (EVENT % (n, b', "finish_reason": null'))[1:] + b"\n\n"
        for n in (1, 2)
    ),
    *(b"data: " + OPENAI % (i, b"null", n) + b"\n\n" for i in (0, 1, -1) for n in (0, 1, 10**19)),
    *(b"data: " + OPENAI % (0, b'"stop"', 2) + b"\n\n", b"data: [DONE]\n\n", b"[DONE]"),
    b'data: {"choices": [], "usage": {"completion_tokens": 7}}\n\n',
    b'data: {"choices": [{"delta": {"content": "z"}, "finish_reason": null}]}\n\n',
    *(b'{"error": {"message": "m"}}', b'{"error": ', b'{"object": "error", "message": 1}'),
    *(b"<html><script>x</script>", b"error: bad\n", b"\xef\xbb\xbf", b"\x1f\x8b", b"\x1b[31m"),
    *(b"[" * 60, b"{" * 3, b"}", b"1e999", b"NaN", b"-1", b"null", b"9" * 30, b"\r", b"\0"),
    *(b"5\r\n", b"fffffff\r\n", b"0\r\n\r\n", b"-5\r\n"),
)
WHOLE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def _wire(choices: Choices) -> tuple[bool, bytes]:
    """Whether it has a head and framing, and the bytes: parts, and bytes of the input's own."""
    form = choices.number(4)
    if form == 0:
        return True, choices.rest()
    pieces = [WHOLE] if form == 3 else []
    while choices.at < len(choices.data):
        part = choices.number(len(PARTS) + 2)
        piece = PARTS[part] if part < len(PARTS) else choices.some(40)
        if form == 3 and piece:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        pieces.append(piece)
    return form != 1, b"".join(pieces)


def _records(framed: bool, prompts: int, pieces: list[bytes], given: Any) -> list[Record]:
    stream = Stream(b"", prompts, start_ns=1000, sent_ns=1100)
    if not framed:
        stream.answer.expect_body(200, "text/event-stream")
    stream.reads.extend(
        (2000 + 10 * at, piece, 0, len(piece), []) for at, piece in enumerate(pieces)
    )
    stream.failed_early()
    return parse_stream(stream, given, KernelClock())


def _cut(data: bytes, choices: Choices) -> list[bytes]:
    step = choices.one_of((1, 2, 3, 7, 16, 61, 200, 1000))
    return [data[at : at + step] for at in range(0, len(data), step)]


@cache
def _options() -> Any:
    return parse_options(["--max-new-tokens", "2", "--warmup", "0"])


def _essence(record: Record) -> tuple[object, ...]:
    tokens = [tokens for _, tokens in record.events]
    return record.tokens, record.finish_reason, record.error, record.prompt_tokens, tokens[-1:]


def run(data: bytes) -> None:
    """Raises Fault, or whatever a reader lets out."""
    choices = Choices(data)
    prompts, cutting = 1 + choices.number(3), Choices(bytes([choices.number(256)]))
    framed, wire = _wire(choices)
    given = copy.copy(_options())
    given.batch = prompts
    records = _records(framed, prompts, [wire], given)
    for record in records:
        counts = [0, *(tokens for _, tokens in record.events)]
        check(counts == sorted(set(counts)), "an event without a new token")
        check(counts[-1] == record.tokens, "tokens that no event brought, or the reverse")
        check(record.error is not None or record.events, "neither an error nor a token")
        if record.error is not None:
            check(record.error.strip(), "an empty error")
            check(len(record.error) <= LONGEST_SAID, f"an error of {len(record.error)} characters")
    cut = _records(framed, prompts, _cut(wire, cutting), given)
    for whole, piecewise in zip(records, cut, strict=True):
        check(
            _essence(whole) == _essence(piecewise),
            "the cut into reads decides: "
            f"{ascii(_essence(whole))[:300]} whole, {ascii(_essence(piecewise))[:300]} cut",
        )
    stream = Stream(b"", prompts)
    summary = summarize(
        records, Run(streams=[stream], begin_ns=1000, end_ns=9000), given, "m", prompts
    )
    strict_json(json.dumps(result_document(summary, records)))
    for line in report_lines(summary, records):
        plain(visible(line).replace("\n", ""), "the report")


def seeds() -> list[bytes]:
    """Answers as servers send them."""
    number = {part: at for at, part in enumerate(PARTS)}

    def made(form: int, prompts: int, *parts: bytes) -> bytes:
        return bytes([prompts - 1, 3, form, *(number[part] for part in parts)])

    first, second, third = PARTS[17:20]
    done = b"data: [DONE]\n\n"
    return [
        made(1, 1, second, third, done),
        made(3, 1, first, second, third, done),
        made(3, 2, second, PARTS[20], third, PARTS[21], done),
        made(1, 1, *PARTS[22:25], PARTS[31], done),
        made(2, 1, PARTS[1], PARTS[6], PARTS[8], b'{"error": {"message": "m"}}'),
        bytes([0, 5, 0]) + b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata: {}\n",
    ]
