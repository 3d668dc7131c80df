"""What the load client makes of raw bytes and of events: pure functions, no server."""

import json

import pytest
from client_harness import HEAD, native, openai, parse, response, stream, stream_of

from repro_pp_graphs.client.errors import server_message
from repro_pp_graphs.client.quick_count import quick_count


@pytest.mark.parametrize("framing", [b"", b"Content-Length: %d\r\n"])
@pytest.mark.parametrize("read_bytes", [None, 1, 64])
def test_a_body_needs_no_chunks(framing, read_bytes):
    body = (
        f"data: {native(1)}\n\ndata: {native(2, {'type': 'length'})}\n\ndata: [DONE]\n\n".encode()
    )
    head = b"HTTP/1.1 200 OK\r\n" + (framing % len(body) if framing else b"") + b"\r\n"
    the_stream = stream(head + body, read_bytes)
    (got,) = parse(the_stream, "--max-new-tokens", "2")
    assert ([tokens for _, tokens in got.events], got.error) == ([1, 2], None)
    assert the_stream.answer.complete()


@pytest.mark.parametrize(
    ("end", "complete"), [(b"0\r\n\r\n", True), (b"", False)], ids=["last chunk", "none"]
)
def test_a_chunked_body_is_complete_with_its_last_chunk(end, complete):
    the_stream = stream(HEAD + b"7\r\ndata: {\r\n" + end, 3)
    parse(the_stream)
    assert the_stream.answer.complete() is complete


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("prompts", [1, 3])
def test_the_quick_look_at_an_event_finds_what_the_json_parser_finds(
    separators, prompts, monkeypatch
):
    index = None if prompts == 1 else prompts - 1
    odd = 'quoted "index": 7, "finish_reason":null}} \\" and\n\ttabs \u2028'
    events = [json.loads(native(n, None, index, odd)) for n in (1, 2, 5)]
    events.append(json.loads(native(7, {"type": "length"}, index, odd)))
    events.insert(2, events[1] | {"meta_info": dict(reversed(events[2]["meta_info"].items()))})
    raw = response(
        *(json.dumps(event, separators=separators) for event in events), chunk_bytes=None
    )
    quick = parse(stream(raw, 40, prompts))
    assert quick_count(json.dumps(events[0], separators=separators).encode(), prompts)
    monkeypatch.setattr("repro_pp_graphs.client.answer.quick_count", lambda *_: None)
    assert parse(stream(raw, 40, prompts)) == quick


def test_of_interrupted_prompts_it_is_known_how_long_they_were():
    """Only their first events say so: of the rest the token count alone is looked at."""
    events = [native(n, None, index) for n in (1, 2, 3) for index in (0, 1, 2)]
    longer = [event.replace('"prompt_tokens": 4', '"prompt_tokens": 75') for event in events]
    got = parse(stream(response(*longer)[:-5], None, 3))
    assert [record.prompt_tokens for record in got] == [75] * 3
    assert [record.tokens for record in got] == [3] * 3 and all(record.error for record in got)


def test_a_quick_look_that_disagrees_is_not_used():
    event = json.loads(native(3)) | {"x": {"completion_tokens": 99}}
    last = json.loads(native(4, {"type": "length"})) | {"x": {"completion_tokens": 99}}
    assert quick_count(json.dumps(event).encode(), 1) == (0, 99)
    raw = response(json.dumps(event), json.dumps(event), json.dumps(last))
    (got,) = parse(stream(raw), "--max-new-tokens", "4")
    assert [tokens for _, tokens in got.events] == [3, 4]


@pytest.mark.parametrize("chunk_bytes", [None, 1, 7, 100])
@pytest.mark.parametrize("read_bytes", [None, 1, 2, 5, 64])
def test_events_survive_any_cut_into_http_chunks_and_reads(chunk_bytes, read_bytes):
    raw = response(native(1), native(2), native(4, {"type": "length"}), chunk_bytes=chunk_bytes)
    (got,) = parse(stream(raw, read_bytes), "--max-new-tokens", "4")
    assert got.error is None
    assert [tokens for _, tokens in got.events] == [1, 2, 4]


def test_an_event_has_arrived_with_the_read_that_ended_its_line():
    raw = response(native(1), native(2, {"type": "length"}))
    first_line_end = raw.index(b"\n", raw.index(b"data:"))
    reads = [(100, raw[:first_line_end]), (200, raw[first_line_end:])]
    (got,) = parse(stream_of(reads), "--max-new-tokens", "2")
    assert got.events == [[200, 1], [200, 2]]
    reads = [(100, raw[: first_line_end + 1]), (200, raw[first_line_end + 1 :])]
    (got,) = parse(stream_of(reads), "--max-new-tokens", "2")
    assert got.events == [[100, 1], [200, 2]]


def test_interleaved_prompts_are_told_apart_by_index():
    end = {"type": "length"}
    raw = response(native(1, index=1), native(1, index=0), native(2, end, 1), native(3, end, 0))
    first, second = parse(stream(raw, prompts=2), "--max-new-tokens", "2")
    assert ([first.tokens, second.tokens], first.prompt_tokens) == ([3, 2], 4)


def test_an_event_without_a_new_token_is_no_arrival():
    raw = response(native(2), native(2), native(2, {"type": "length"}))
    (got,) = parse(stream(raw), "--max-new-tokens", "2")
    assert (len(got.events), got.error) == (1, None)


def test_text_that_looks_like_a_count_is_not_counted():
    raw = response(native(1, {"type": "length"}, text='"completion_tokens": 99, \n\ndata: {"x"'))
    (got,) = parse(stream(raw), "--max-new-tokens", "1")
    assert (got.tokens, got.error) == (1, None)


def test_an_interim_100_continue_is_skipped():
    raw = b"HTTP/1.1 100 Continue\r\n\r\n" + response(native(1, {"type": "length"}))
    (got,) = parse(stream(raw), "--max-new-tokens", "1")
    assert got.error is None


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "malformed: not an HTTP response: 'SSH-2.0-OpenSSH_9.6'"),
        (b"HTTP/1.1 200", "malformed: the connection closed before a whole response head"),
        (HEAD + b"zz\r\nabc", "malformed: bad HTTP chunk size b'zz'"),
        (HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), "malformed: the server"),
        (HEAD + b"40\r\ndata: {", "truncated: the stream ended without a finish reason"),
        (
            b"HTTP/1.1 502 Bad Gateway\r\n\r\n\n<style>p {}</style><h1>no upstream</h1>",
            "http 502: a web page, 'no upstream'; check --base-url, --backend and any proxy "
            "between",
        ),
        (response("[1]"), "malformed: event not understood: [1]"),
        (response(native(1, index=5)), "malformed: event not understood: "),
    ],
)
def test_what_is_not_understood_is_named(raw, error):
    (got,) = parse(stream(raw))
    assert got.error.startswith(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "too long"}}, "too long"),
        ({"object": "error", "message": "too long", "code": 400}, "too long"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"error": "too\nlong"}, "too long"),
        ({"code": 7}, "{'code': 7}"),
    ],
)
def test_the_servers_own_message_is_found(body, message):
    assert server_message(body) == message


def test_a_batch_that_is_counted_as_one_keeps_no_tokens_that_came_before():
    events = [openai(2), openai(None), openai(None, choices=[], usage={"completion_tokens": 7})]
    late = [openai(1), openai(3, "stop")]
    first, second = parse(stream(response(*map(json.dumps, [*events, *late])), prompts=2))
    assert first.error is not None and "counts a batch as one" in first.error
    counts = [tokens for _, tokens in first.events]
    assert counts == sorted(set(counts)) and counts[-1:] == [first.tokens]
    assert (second.tokens, second.events) == (0, [])
