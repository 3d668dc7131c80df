"""What servers and the proxies before them answer beside clean streams: the right word for each."""

import gzip
import itertools
import json
import zlib

import pytest
from client_harness import (
    TEN_TOKENS,
    chunked,
    client_runs,
    native,
    openai,
    parse,
    response,
    serve,
    stream,
    stream_of,
)
from standin_server import Behaviour, StandIn

from repro_pp_graphs.client.answer import UNCOUNTED
from repro_pp_graphs.client.driver import RETRY_S
from repro_pp_graphs.client.errors import COMPRESSED

BOM = b"\xef\xbb\xbf"


DONE = b"data: [DONE]\n\n"


HTML = b"<html><body>Please sign in</body></html>"


ERROR = {"object": "error", "message": "engine gone, ask again", "code": 500}


WORDS = "server: engine gone, ask again"


def data(event, separator="\n\n"):
    return f"data: {event if isinstance(event, str) else json.dumps(event)}{separator}".encode()


def tokens(count, end="length", **more):
    """The events of `count` tokens of /v1/completions, the last with the finish reason `end`."""
    reasons = [None] * (count - 1) + [end]
    return [data(openai(n, reason, **more)) for n, reason in enumerate(reasons, 1)]


def over_two_lines(event):
    return event.replace(b', "choices"', b', \ndata: "choices"')


def html_answer(status=b"200 OK", body=HTML):
    head = b"HTTP/1.1 %b\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


# The inputs made after public reports: (answer, more options, tokens counted, error)
REPORTED = {
    "error_null": (chunked(*tokens(4, error=None), DONE), [], [1, 2, 3, 4], None),
    "finish_empty": (
        chunked(data(openai(1, "")), data(openai(2, ""))),
        ["--no-ignore-eos"],
        [1, 2],
        "truncated: the stream ended without a finish reason",
    ),
    "bom": (chunked(BOM + tokens(4)[0], *tokens(4)[1:], DONE), [], [1, 2, 3, 4], None),
    "html_200": (html_answer(), [], [], "malformed: the server answered HTML, not an event stream"),
    "multiline_data": (chunked(*map(over_two_lines, tokens(4)), DONE), [], [1, 2, 3, 4], None),
    "error_object": (chunked(data(openai(1)), data(ERROR), DONE), [], [1], WORDS),
}


@pytest.mark.parametrize("reader", ["epoll", "threads"])
@pytest.mark.parametrize("name", REPORTED)
def test_the_reported_answers_get_their_word_and_exit_status(tmp_path, capsys, name, reader):
    raw, more, counts, error = REPORTED[name]
    port, _ = serve([raw])
    with client_runs(tmp_path, capsys, *TEN_TOKENS) as run:
        argv = ["--backend", "openai", "--model", "m", "--concurrency", "1", "--reader", reader]
        argv += ["--max-new-tokens", "4", *more]
        status, document, _ = run(f"http://127.0.0.1:{port}", *argv)
    (request,) = document["requests"]
    assert [count for _, count in request["events"]] == counts
    assert (request["error"] or "").startswith(error or "")
    assert (status, request["error"] is None) == (int(error is not None), error is None)


def outcome(raw, *argv, prompts=1, read_bytes=None):
    """(tokens counted, error) of the first prompt of an answer."""
    the_stream = stream(raw, read_bytes, prompts)
    got = parse(the_stream, "--backend", "openai", "--no-ignore-eos", *argv)[0]
    return [count for _, count in got.events], got.error


def events(*given, end=DONE):
    """The outcome of a stream of these events (dict, or bytes as they stand on the wire)."""
    pieces = [event if isinstance(event, bytes) else data(event) for event in given]
    return outcome(chunked(*pieces, end))


NO_ERRORS = [
    None,
    "",
    {},
    [],
    False,
    0,
    {"message": None, "code": None},
    {"message": "", "code": 0},
]


@pytest.mark.parametrize("error", NO_ERRORS, ids=json.dumps)
def test_an_empty_error_is_none(error):
    assert events(*tokens(3, error=error)) == ([1, 2, 3], None)
    first, second = json.loads(native(1)), json.loads(native(2, {"type": "length"}))
    assert events(first | {"error": error}, second | {"error": error}) == ([1, 2], None)


ERRORS = {
    "vLLM": ERROR,
    "vLLM, nested": {"error": {"object": "error", "message": "engine gone, ask again"}},
    "OpenAI": {"error": {"message": "engine gone, ask again", "type": "server_error", "code": 500}},
    "a string": {"error": "engine gone, ask again"},
    "TGI": {"error": "engine gone, ask again", "error_type": "generation"},
    "a flag": {"error": True, "message": "engine gone, ask again"},
    "a number": {"error": 500, "message": "engine gone, ask again"},
    "by type": {"type": "error", "message": "engine gone, ask again"},
    "Anthropic": {"type": "error", "error": {"type": "overloaded", "message": WORDS[8:]}},
    "FastAPI": {"detail": "engine gone, ask again"},
    "a bare message": {"message": "engine gone, ask again", "code": 500},
    "Gemini": [{"error": {"code": 500, "message": "engine gone, ask again"}}],
    "OpenRouter": openai(2, "error", error={"code": 502, "message": "engine gone, ask again"}),
    "in the choice": {
        "choices": [{"index": 0, "text": "", "error": {"message": "engine gone, ask again"}}]
    },
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_in_mid_stream_is_reported_in_the_servers_words(name):
    assert events(*tokens(1, None), ERRORS[name]) == ([1], WORDS)
    assert events(ERRORS[name]) == ([], WORDS)


def test_an_error_beside_a_token_is_seen_though_its_event_looks_usual():
    both = openai(3) | {"error": {"message": "engine gone, ask again"}}
    assert events(openai(1), openai(2), both, openai(4, "stop")) == ([1, 2, 4], WORDS)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (b"event: error\ndata: engine gone,\ndata: ask again\n\n", WORDS),
        (b"event:error\r\ndata:" + json.dumps(ERROR).encode() + b"\r\n\r\n", WORDS),
        (b"event: Error\n" + data({"code": 7}), "server: {'code': 7}"),
        (data({"code": 7}).replace(b"data", b"error"), "server: {'code': 7}"),  # llama.cpp's field
        (b"error: engine gone, ask again\n\n", WORDS),
        (json.dumps(ERROR).encode(), WORDS),
        (json.dumps({"error": ERROR}, indent=2).encode() + b"\n", WORDS),
        (data({"choices": [{"index": 0, "text": "", "finish_reason": "error"}]}),
         "server: finish reason error"),
        (data({"choices": [{"index": 0, "text": "", "finish_reason": "abort"}]}), "aborted: "),
    ],
)  # fmt: skip
def test_an_error_of_another_form_is_reported_too(event, error):
    counts, got = events(openai(1), openai(2), event, end=b"")
    assert counts == [1, 2]
    assert got.startswith(error)


def test_an_error_after_one_prompts_end_fails_the_others_alone():
    end = {"type": "length"}
    raw = response(native(1, end, 0), native(1, None, 1), json.dumps(ERROR))
    first, second = parse(stream(raw, prompts=2), "--max-new-tokens", "1")
    assert (first.error, second.error) == (None, WORDS)


@pytest.mark.parametrize("reason", [None, "", "null", "None", {}, {"type": None}, {"type": ""}])
def test_no_reason_is_no_end(reason):
    sent = [openai(n, reason) for n in (1, 2)]
    assert events(*sent, end=b"") == ([1, 2], "truncated: the stream ended without a finish reason")
    assert events(*sent) == ([1, 2], "truncated: [DONE] came without a finish reason")
    assert events(*sent, openai(3, "stop")) == ([1, 2, 3], None)
    for event in sent:
        del event["choices"][0]["finish_reason"]
    assert events(*sent, end=b"") == ([1, 2], "truncated: the stream ended without a finish reason")
    assert events(*sent, openai(3, "stop"), end=b"") == ([1, 2, 3], None)


@pytest.mark.parametrize("counted", [True, False])
def test_a_finish_reason_on_every_event_is_no_end(counted):
    sent = [openai(n if counted or n == 3 else None, "stop") for n in (1, 2, 3)]
    assert events(*sent) == ([1, 2, 3], None)
    counts, error = events(*sent, end=b"")
    assert counts == [1, 2, 3]
    assert error == "truncated: text came after a finish reason, and no [DONE] at the end"
    assert events(openai(1, "stop"), openai(2), openai(3), end=b"")[1].startswith("truncated: text")
    assert events(openai(1, "stop"), openai(2, "stop"), ERROR)[1] == WORDS


IDLE = [
    b": ping - 2025-01-01 00:00:00\r\n\r\n", b":\n", b": OPENROUTER PROCESSING\n\n", b"data:\n\n",
    b"data: \n\n", b"data\ndata\n\n", b"\n\n\n", b"\r\r", b"id: 7\n\n", b"retry: 3000\n\n",
    b"event: ping\ndata: {\"type\": \"ping\"}\n\n", b"event: heartbeat\ndata: still here\n\n",
    b"data: : OPENROUTER PROCESSING\n\n", b"data: {\"choices\": []}\n\n",
    b'data: {"choices": null, "usage": null}\n\n',
    b'data: {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}\n\n',
]  # fmt: skip


@pytest.mark.parametrize("idle", IDLE, ids=repr)
def test_what_keeps_a_connection_alive_is_no_token(idle):
    one, two, three = tokens(3)
    assert events(idle, one, idle, two, idle * 2, three, idle) == ([1, 2, 3], None)
    raw = chunked(idle, one, idle, two, idle * 2, three, idle, DONE)
    for read_bytes in (1, 2, 5, 64):
        assert outcome(raw, read_bytes=read_bytes) == ([1, 2, 3], None)


def test_a_done_without_its_space_or_with_a_name_is_an_end():
    for done in (b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"event: done\ndata: [DONE]\n\n"):
        the_stream = stream(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(tokens(2)) + done)
        (got,) = parse(the_stream, "--max-new-tokens", "2")
        assert (got.error, the_stream.answer.complete()) == (None, True)


ANSWERS = {
    "HTML by its look": (b"<!DOCTYPE html>\n<p>Bad gateway</p>", "", "HTML, not an event"),
    "HTML by its type": (b"Please sign in", "Text/HTML; charset=UTF-8", "HTML, not an event"),
    "HTML with style": (b"<html>\n:root { a: b }\ndata-x\n</html>", "text/html", "HTML"),
    "a byte-order mark, then HTML": (BOM + b"<html>gone</html>", "text/html", "HTML"),
    "a whole answer": (json.dumps(openai(4, "length")).encode(), "application/json", "JSON, not"),
    "a whole batch": (b"[" + native(4).encode() + b", 5]", "application/json", "JSON, not"),
    "JSON cut short": (b'{"choices": [{"te', "application/json", "JSON, not an event stream"),
    "JSON on several lines": (json.dumps(openai(4), indent=1).encode(), "", "JSON, not an event"),
    "lines of JSON": (
        b'{"response": "w", "done": false}\n{"response": "", "done": true}\n',
        "application/x-ndjson",
        "JSON lines, not an event stream",
    ),
    "plain text": (b"upstream connect error", "text/plain", "text/plain, not an event stream"),
    "text without a type": (b"not now", "", "plain text, not an event stream"),
}


@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_no_event_stream_is_called_what_it_is(name, framing):
    body, kind, called = ANSWERS[name]
    head = b"HTTP/1.1 200 OK\r\n" + (b"Content-Type: %b\r\n" % kind.encode() if kind else b"")
    raws = {"length": head + b"Content-Length: %d\r\n\r\n" % len(body) + body}
    raws |= {"chunks": chunked(body, content_type=kind), "close": head + b"\r\n" + body}
    for read_bytes in (None, 1, 7):
        counts, error = outcome(raws[framing], read_bytes=read_bytes)
        assert counts == []
        assert error.startswith(f"malformed: the server answered {called}")
        assert error.endswith("check --base-url, --backend and any proxy between")


@pytest.mark.parametrize("name", [name for name in ERRORS if "choices" not in ERRORS[name]])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_error_in_plain_json_with_status_200_is_reported_in_the_servers_words(name, indent):
    body = json.dumps(ERRORS[name], indent=indent).encode()
    assert outcome(chunked(body, content_type="application/json")) == ([], WORDS)


def test_a_page_between_events_is_reported_and_what_arrived_is_kept():
    counts, error = events(*tokens(2, None), HTML.replace(b"Please", b"504: please"), end=b"")
    assert counts == [1, 2]
    assert error.startswith("malformed: the server sent HTML between events: '504: please")


@pytest.mark.parametrize("body", [b"", b": ping\n\n", b"data: {", b"dat", b"data", b"event: x"])
def test_a_stream_cut_before_its_first_event_is_truncated(body):
    assert outcome(chunked(body) if body else html_answer(body=b""))[1] == (
        "truncated: the stream ended without a finish reason"
    )


def test_a_lost_connection_is_reported_before_lines_that_mean_nothing():
    raw = chunked(*tokens(2, None), b"foo: bar\n")
    assert outcome(raw)[1] == (
        "truncated: the stream ended without a finish reason "
        "(it also holds lines that are no event: b'foo: bar')"
    )
    the_stream = stream(raw)
    the_stream.error = "reset: while reading"
    assert parse(the_stream)[0].error == "reset: while reading"


@pytest.mark.parametrize(
    "head",
    [
        b"content-type: TEXT/Event-Stream;charset=utf-8\r\nTRANSFER-ENCODING: Chunked\r\n",
        b"Content-Encoding: Identity\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n",
    ],
)
def test_headers_of_any_case_and_none_are_read(head):
    chunks = chunked(*tokens(3), DONE).partition(b"\r\n\r\n")[2]
    assert outcome(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + chunks) == ([1, 2, 3], None)


@pytest.mark.parametrize(
    "coding",
    [b"Content-Encoding: gzip", b"Content-Encoding: BR", b"Transfer-Encoding: gzip, chunked"],
)
def test_a_compressed_answer_says_what_to_do(coding):
    chunks = chunked(gzip.compress(b"".join(tokens(3)))).partition(b"\r\n\r\n")[2]
    head = b"HTTP/1.1 200 OK\r\n%b\r\n" % coding
    head += b"" if b"chunked" in coding else b"Transfer-Encoding: chunked\r\n"
    assert outcome(head + b"\r\n" + chunks)[1] == COMPRESSED
    assert outcome(chunked(gzip.compress(HTML)))[1] == COMPRESSED, "no header says so"


@pytest.mark.parametrize("reader", ["epoll", "threads"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_threads_reader_decodes_what_is_compressed(tmp_path, capsys, reader, whole):
    body = gzip.compress(b"".join(tokens(10)) + DONE)
    body = body if whole else b"no gzip at all"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    port, _ = serve([head + body])
    with client_runs(tmp_path, capsys, *TEN_TOKENS) as run:
        argv = ("--backend", "openai", "--model", "m", "--reader", reader, "--batch", "1")
        _, document, _ = run(f"http://127.0.0.1:{port}", *argv)
    (request,) = document["requests"]
    if whole and reader == "threads":
        assert (request["tokens"], request["error"]) == (10, None)
    else:
        assert request["error"].startswith("malformed: ")


@pytest.mark.parametrize("reader", ["epoll", "threads"])
def test_a_bad_chunk_is_malformed_and_what_came_before_it_counts(tmp_path, capsys, reader):
    good = chunked(*tokens(2, None)).removesuffix(b"0\r\n\r\n")
    port, _ = serve([good + b"zz\r\nabc"])
    with client_runs(tmp_path, capsys, *TEN_TOKENS) as run:
        argv = ("--backend", "openai", "--model", "m", "--reader", reader, "--batch", "1")
        _, document, _ = run(f"http://127.0.0.1:{port}", *argv)
    (request,) = document["requests"]
    assert request["error"].startswith("malformed: ") and "zz" in request["error"]
    assert request["tokens"] == 2


@pytest.mark.parametrize(
    ("head", "body", "error"),
    [
        (b"503 Busy\r\nContent-Encoding: gzip", gzip.compress(b'{"error": "busy"}', mtime=0),
         "busy"),
        (b"503 Busy\r\nContent-Encoding: deflate", zlib.compress(b"busy"), "busy"),
        (b"400 Bad", json.dumps(ERRORS["Gemini"]).encode(), WORDS[8:]),
        (b"302 Found\r\nLocation: https://me:pw@login.test/in?token=x", b"<p>moved</p>",
         "moved to https://login.test/in; check --base-url"),
    ],
)  # fmt: skip
def test_an_http_error_is_reported_however_it_is_wrapped(head, body, error):
    raw = b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    said = f"http {head[:3].decode()}: {error}"
    for read_bytes in (None, 1):
        assert outcome(raw, read_bytes=read_bytes)[1].startswith(said)


def chat(delta, tokens=None, reason=None):
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"choices": [choice], "usage": tokens and {"completion_tokens": tokens}}


EMPTY = {"content": "", "role": "assistant", "tool_calls": [], "refusal": None}


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "w"},
        {"content": None, "reasoning_content": "w"},
        {"content": "", "reasoning": "w"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "w"}}]},
    ],
)
def test_a_token_of_the_chat_shape_is_whatever_a_delta_brings(delta):
    usage = data({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}})
    stub = EMPTY | {"function_call": {"name": "", "arguments": ""}}
    pieces = [data(chat(delta)), data(chat(delta)), data(chat(stub, None, "stop")), usage, DONE]
    reads = [b"HTTP/1.1 200 OK\r\n\r\n", data(chat(EMPTY)), *pieces]
    (got,) = parse(stream_of(enumerate(reads)), "--max-new-tokens", "2")
    assert got.events == [[2, 1], [3, 2]], "the role and the end are no tokens"
    assert (got.error, got.prompt_tokens) == (None, 4)


@pytest.mark.parametrize("zeros", [None, 0])
def test_a_count_on_the_last_event_alone_does_not_move_the_first_token(zeros):
    usage = {"prompt_tokens": 4, "completion_tokens": 0} if zeros == 0 else None
    sent = [openai(None) | {"usage": usage} for _ in range(3)]
    reads = [b"HTTP/1.1 200 OK\r\n\r\n", *map(data, [*sent, openai(4, "length")])]
    (got,) = parse(stream_of(enumerate(reads)), "--max-new-tokens", "4")
    assert (got.events, got.error) == ([[1, 1], [2, 2], [3, 3], [4, 4]], None)
    (got,) = parse(stream_of(enumerate([*reads[:-1], data(openai(9, "length"))])))
    assert got.events == [[1, 1], [4, 9]], "single gaps are unknown, the first token is not"
    silent = data(openai(3, "length", text=""))
    (got,) = parse(stream_of(enumerate([*reads[:-1], silent])), "--max-new-tokens", "3")
    assert (got.events, got.error) == ([[1, 1], [2, 2], [3, 3]], None)


def test_a_count_now_and_then_is_kept_where_it_came():
    sent = [openai(n) for n in (None, 2, None, None, 8)] + [openai(None), openai(10, "length")]
    reads = [b"HTTP/1.1 200 OK\r\n\r\n", *map(data, sent)]
    (got,) = parse(stream_of(enumerate(reads)), "--max-new-tokens", "10")
    assert got.events == [[1, 1], [2, 2], [5, 8], [6, 9], [7, 10]]


def test_text_that_nobody_counted_is_no_measurement():
    for sent in ([openai(None), openai(None, "stop")], [openai(1), openai(None, "stop")]):
        assert events(*sent)[1] == UNCOUNTED


def test_several_choices_in_one_event_go_to_their_prompts():
    def both(first, second, usage=None):
        choices = [
            {"index": index, "text": "w", "finish_reason": reason}
            for index, reason in enumerate((first, second))
        ]
        return data({"choices": choices, "usage": usage})

    one = [data(openai(1) | {"choices": [{"index": i, "text": "w", "finish_reason": None}]})
           for i in (0, 1)]  # fmt: skip
    total = {"completion_tokens": 4}
    raw = chunked(*one, both(None, None, total), both("stop", "stop", total), DONE)
    first, second = parse(stream(raw, prompts=2), "--no-ignore-eos")
    assert (first.finish_reason, second.finish_reason) == ("stop", "stop")
    assert (first.error, second.error) == (UNCOUNTED, UNCOUNTED)
    assert (first.tokens, second.tokens) == (1, 1)


@pytest.mark.parametrize(
    "event",
    [
        openai(2) | {"choices": [{"index": -1, "text": "w", "finish_reason": "stop"}]},
        openai(2) | {"choices": [{"index": 7, "text": "w", "finish_reason": "stop"}]},
        openai(2) | {"usage": {"completion_tokens": float("inf")}},
        openai(2) | {"usage": {"completion_tokens": "many"}},
        openai(2) | {"choices": ["w"]},
        b"data: " + b"[" * 100_000 + b"\n\n",
        b'data: {"completion_tokens":' + b"9" * 5000 + b',"finish_reason":null}\n\n',
        b"data: ping\n\n",
        {},
        "w",
    ],
    ids=lambda event: str(event)[:40],
)
def test_an_event_that_cannot_be_is_malformed_and_its_neighbours_count(event):
    counts, error = events(openai(1), event, openai(3, "stop"))
    assert counts == [1, 3]
    assert error.startswith("malformed: event not understood: ")


def test_text_in_broken_utf8_or_with_control_characters_is_a_token_all_the_same():
    texts = (b'"\xe8\xaf"', b'"\x00\t"', b'"\xed\xa0\x80"', b'"\x85\x0b"')
    sent = [one.replace(b'"w"', text) for one, text in zip(tokens(4), texts, strict=True)]
    assert events(*sent) == ([1, 2, 3, 4], None)


@pytest.mark.parametrize("raw", [
    b"", html_answer(), html_answer(b"502 Bad Gateway"), chunked(data(ERROR), DONE),
    chunked(json.dumps(ERROR).encode()), chunked(b": ping\n\n"),
], ids=repr)  # fmt: skip
def test_an_answer_without_output_is_not_asked_for_again_at_once(raw):
    for read_bytes in (None, 1):
        assert stream(raw or b"x", read_bytes).failed_early()
    parsed = stream(raw or b"x")
    parse(parsed)
    assert parsed.failed_early()


def test_an_answer_with_output_is():
    for raw in (chunked(*tokens(1), DONE), response(native(1))):
        given = stream(raw, 3)
        assert not given.failed_early()
        parse(given)
        assert not given.failed_early()


@pytest.mark.parametrize("fault", ["error", "http"])
def test_a_server_that_refuses_with_status_200_is_not_hammered_either(tmp_path, capsys, fault):
    with StandIn(Behaviour(fault=fault)) as server, client_runs(tmp_path, capsys) as run:
        sent, duration_s = [], 0.2
        while len(sent) < 2 and duration_s < 100:  # a busy machine has but one in that time
            duration_s *= 2
            argv = ("--concurrency", "1", "--duration", str(duration_s), "--warmup", "0")
            _, document, _ = run(server.url, *argv)
            sent = [request["sent_ns"] for request in document["requests"]]
    gaps = [after - before for before, after in itertools.pairwise(sent)]
    assert gaps and min(gaps) >= RETRY_S * 1e9
