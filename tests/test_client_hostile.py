"""What a broken, or a hostile, server or command line may do: an error, never a hang or a crash."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from repro_pp_graphs.client.answer import Answer
from repro_pp_graphs.client.events import EventStream
from repro_pp_graphs.client.options import options_parser, parse_options
from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.client.wire import LONGEST_HEAD, Body

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
EVENT = b'data: {"text": "x", "meta_info": {"completion_tokens": %d, "finish_reason": %s}}\n\n'


@pytest.mark.parametrize(
    "size", [b"-5", b"-0", b"+5", b"0x5", b"5_0", b"", b" ", b"\xb2", b"g", b"f" * 16, b"9" * 5000]
)
@pytest.mark.parametrize("step", [1, 10_000])
def test_a_chunk_size_that_is_none_ends_the_answer(size, step):
    body, data = Body(), CHUNKED + size + b"\r\n" + b"x" * 100
    for at in range(0, len(data), step):
        body.feed(data[at : at + step])
    assert body.error is not None
    assert "chunk size" in body.error and len(body.error) < 100


@pytest.mark.parametrize("size", [b"5", b"005", b"5;ext=1", b"5 ", b"5\t;x"])
def test_a_chunk_size_as_servers_write_them_is_read(size):
    body = Body()
    assert body.feed(CHUNKED + size + b"\r\nhello\r\n0\r\n\r\n") == b"hello"
    assert body.complete and body.error is None


@pytest.mark.parametrize("status", [b"\xb2\xb2\xb2", b"2", b"20000", b"-20", b"9" * 5000])
def test_a_status_that_is_none_is_no_http(status):
    body = Body()
    body.feed(b"HTTP/1.1 " + status + b" OK\r\n\r\n")
    assert body.error and "not an HTTP response" in body.error


@pytest.mark.parametrize("length", ["\xb2", "-1", "9" * 5000, "1e3"])
def test_a_length_that_is_none_is_not_believed(length):
    body = Body()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    assert body.feed(head + b"data") == b"data"
    assert not body.complete


@pytest.mark.parametrize("start", [b"", CHUNKED])
def test_a_head_or_size_line_without_an_end_is_not_kept_for_ever(start):
    body = Body()
    body.feed(start)
    for _ in range(LONGEST_HEAD // 1000 + 2):
        body.feed(b"1" * 1000)
    assert body.error and len(body.pending) <= LONGEST_HEAD


DEEP = (
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"error":' * 900 + b"1" + b"}" * 900,
    b'{"error":' + b"[" * 900 + b"1" + b"]" * 900 + b"}",
    b'{"text": ' + b"[" * 900 + b"]" * 900 + b', "meta_info": {"completion_tokens": 2}}',
)


@pytest.mark.parametrize("deep", DEEP)
@pytest.mark.parametrize("head", [b"data: ", b"event: error\ndata: ", b"event: ping\ndata: ", b""])
def test_a_deeply_nested_event_costs_no_more_than_its_own_request(deep, head):
    answer = Answer(1)
    answer.feed(1, PLAIN + EVENT % (1, b"null") + head + deep + b"\n\n")
    answer.feed(2, EVENT % (2, b'{"type": "length"}') + b"data: [DONE]\n\n")
    (record,) = answer.finish(None, parse_options(["--max-new-tokens", "2"]))
    assert record.error is None or len(record.error) < 400
    assert record.events


@pytest.mark.parametrize("deep", DEEP)
def test_a_deeply_nested_http_error_is_an_error(deep):
    answer = Answer(1)
    answer.feed(1, b"HTTP/1.1 500 No\r\n\r\n" + deep)
    (record,) = answer.finish(None, parse_options([]))
    assert record.error and record.error.startswith("http 500: ") and len(record.error) < 400


@given(st.lists(st.sampled_from([b"data: a", b"b", b"\r", b"\n", b":", b"da", b"\xef\xbb\xbf"])))
def test_events_do_not_depend_on_how_they_are_cut(pieces):
    whole, cut = EventStream(), EventStream()
    text = b"".join(pieces)
    expected = [event[1:] for event in whole.feed(1, text)]
    assert [event[1:] for piece in pieces for event in cut.feed(1, piece)] == expected
    assert cut.strange() == whole.strange() and cut.unended() == whole.unended()


@given(st.binary(max_size=300), st.integers(1, 40))
def test_no_bytes_crash_the_reading_of_an_answer(data, step):
    for start in (b"", CHUNKED, PLAIN, PLAIN + b"data: "):
        answer, text = Answer(2), start + data
        for at in range(0, len(text), step):
            answer.feed(at, text[at : at + step])
        for record in answer.finish(None, parse_options([])):
            json.dumps(record.error)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://h:-1",
        "http://h:0",
        "http://h:\xb2",
        "http://[::1",
        "http://[zz]:1",
        "http://h :80",
        "http://h\x1b[31m:80",
        "http://user:secret@h",
        "ftp://h",
        "h:80",
        "",
    ],
)
def test_an_address_that_is_none_is_refused_in_one_line(url, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--base-url", url])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "--base-url: give http://HOST:PORT" in said and "secret" not in said


@pytest.mark.parametrize(
    "url", ["http://h", "https://a-b.c_d:1/x", "http://[::1]:8000", "http://1.2.3.4:65535/"]
)
def test_an_address_is_taken(url):
    assert parse_options(["--base-url", url]).base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "option",
    ["--batch", "--concurrency", "--num-prompts", "--max-new-tokens", "--input-len", "--warmup",
     "--control", "--seed", "--warmup-passes"],
)  # fmt: skip
@pytest.mark.parametrize(
    "value", ["\xb2", "\u0663", "1" * 5000, "x", "1_0x", "", "99999999999999999999"]
)
def test_a_number_that_is_none_or_beyond_all_measure_is_refused(option, value, capsys):
    with pytest.raises(SystemExit) as ended:
        options_parser().parse_args([option, value])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err) < 300


def test_control_characters_are_shown_and_not_obeyed():
    assert visible("a\x1b[31m\x07\x9b\r\u202eb\tc\nd") == ("a\\x1b[31m\\x07\\x9b\\r\\u202eb\tc\nd")


COUNTS = [10**7 + 1, 10**19, -1, 1e300, float("inf"), "9" * 30]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens", "cached_tokens"])
@pytest.mark.parametrize("shape", ["sglang", "openai", "usage"])
def test_a_count_that_no_server_can_have_reached_is_an_error_and_takes_no_memory(
    shape, name, count
):
    counts = {"completion_tokens": 1, "prompt_tokens": 1, name: count}
    if shape != "sglang":
        counts["prompt_tokens_details"] = {"cached_tokens": counts.pop("cached_tokens", 0)}
    choice = {"index": 0, "text": "x", "finish_reason": None}
    events = {
        "sglang": [{"text": "x", "meta_info": counts}],
        "openai": [{"choices": [choice], "usage": counts}],
        "usage": [{"choices": [choice]}, {"choices": [], "usage": counts}],
    }[shape]
    answer = Answer(1)
    text = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    answer.feed(1, PLAIN + text)
    (record,) = answer.finish(None, parse_options([]))
    assert record.error and record.error.startswith("malformed: event not understood")
    assert record.tokens <= 1 and 0 <= record.prompt_tokens <= 1 and record.cached_tokens == 0
