"""Event streams by WHATWG's rules: the standard's examples, and its test suite's lines."""

import itertools
import random

import pytest
from client_harness import HEAD, chunked, native, parse, stream, stream_of

from repro_pp_graphs.client.events import EventStream
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.run import Run
from repro_pp_graphs.client.summary import summarize

BOM = b"\xef\xbb\xbf"


def events_of(body, *cuts):
    """(name, data) of each event of a body that comes in pieces cut at these places."""
    found, places = EventStream(), [0, *cuts, len(body)]
    pieces = [body[a:b] for a, b in itertools.pairwise(places)]
    return [event[1:] for piece in pieces for event in found.feed(0, piece)]


def unnamed(*datas):
    return [(b"", data) for data in datas]


# html.spec.whatwg.org, "Parsing an event stream" and "Interpreting an event stream"
EXAMPLES = {
    "three messages": (
        b"data: This is the first message.\n\ndata: This is the second message, it\n"
        b"data: has two lines.\n\ndata: This is the third message.\n\n",
        unnamed(
            b"This is the first message.",
            b"This is the second message, it\nhas two lines.",
            b"This is the third message.",
        ),
    ),
    "names": (
        b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\nevent: add\ndata: 113411\n\n",
        [(b"add", b"73857293"), (b"remove", b"2153"), (b"add", b"113411")],
    ),
    "stocks": (b"data: YHOO\ndata: +2\ndata: 10\n\n", unnamed(b"YHOO\n+2\n10")),
    "comment, ids, an end that does not dispatch": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event",
        unnamed(b"first event", b"second event"),
    ),
    "the same with its last empty line": (
        b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
        b"data:  third event\n\n",
        unnamed(b"first event", b"second event", b" third event"),
    ),
    "empty data": (b"data\n\ndata\ndata\n\ndata:", unnamed(b"", b"\n")),
    "the space is optional": (b"data:test\n\ndata: test\n\n", unnamed(b"test", b"test")),
}


# as the web platform tests in eventsource/format-* have them
PLATFORM = {
    "bom": (BOM + b"data:1\n\ndata:2\n\n", unnamed(b"1", b"2")),
    "a second bom is no bom": (BOM + BOM + b"data:1\n\ndata:2\n\n", unnamed(b"2")),
    "a bom amid the stream": (b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", unnamed(b"1", b"3")),
    "comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + b"x" * 2048 + b"\rdata:3\n:data:fail\r:xx\ndata:4\n\n",
        unnamed(b"1\n2\n3\n4"),
    ),
    "fields": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\r"
        b"data:\r\n data:32\ndata:4\n\n",
        unnamed(b"\0\n 2\n1\n3\n\n4"),
    ),
    "one space alone": (b"data:\ttest\rdata: \ndata:test\n\n", unnamed(b"\ttest\n\ntest")),
    "line ends": (b"data:test\r\ndata\ndata:test\r\n\r", unnamed(b"test\n\ntest")),
    "only CR": (b"data:1\r\rdata:2\r\r", unnamed(b"1", b"2")),
    "only CRLF": (b"data:1\r\n\r\ndata:2\r\n\r\n", unnamed(b"1", b"2")),
    "lines of other kinds": (b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay"
                             b"\ndata:test\n\n", unnamed(b"test\n\ntest")),
    "a name holds for one event": (b"event:test\ndata:x\n\ndata:x\n\n",
                                   [(b"test", b"x"), (b"", b"x")]),
    "an empty name": (b"event: \ndata:data\n\n", unnamed(b"data")),
    "a name without data": (b"event:test\n\ndata:x\n\n", unnamed(b"x")),
    "the last name counts": (b"event:a\ndata:x\nevent:b\n\n", [(b"b", b"x")]),
    "retry": (b"retry:3000\nretry:1000x\ndata:x\n\n", unnamed(b"x")),
    "UTF-8": ("data:ok…\n\n".encode(), unnamed("ok…".encode())),
    "only a bom": (BOM, []),
    "nothing": (b"", []),
}  # fmt: skip


CASES = EXAMPLES | PLATFORM


@pytest.mark.parametrize("name", CASES)
def test_events_are_those_of_the_standard_however_the_stream_is_cut(name):
    body, wanted = CASES[name]
    assert events_of(body) == wanted
    assert events_of(body, *range(1, len(body))) == wanted
    for cut in range(len(body)):
        assert events_of(body, cut) == wanted
        assert events_of(body, cut, cut + 1) == wanted


def test_line_ends_may_be_mixed():
    body = b"data: 1\r\n\rdata: 2\rdata: 3\n\r\ndata: 4\r\r\n"
    for cut in range(len(body)):
        assert events_of(body, cut) == unnamed(b"1", b"2\n3", b"4")


ENDS = {"LF": b"\n", "CR": b"\r", "CRLF": b"\r\n"}


def four(end=b"\n", prefix=b"data: ", index=None):
    """The events of four tokens, each to be an HTTP chunk."""
    events = [native(n, {"type": "length"} if n == 4 else None, index) for n in (1, 2, 3, 4)]
    return [prefix + event.encode() + end * 2 for event in [*events, "[DONE]"]]


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize(
    "prefix", [b"data: ", b"data:", b"id: 7\ndata: ", b"event: message\ndata: "]
)
@pytest.mark.parametrize("read_bytes", [None, 1, 2, 3, 7, 64, "chunk"])
def test_tokens_are_counted_whatever_ends_a_line(end, prefix, read_bytes):
    pieces = four(end, prefix.replace(b"\n", end))
    raw = chunked(*pieces)
    if read_bytes == "chunk":
        framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        the_stream = stream_of(enumerate([HEAD, *framed]))
    else:
        the_stream = stream(raw, read_bytes)
    (got,) = parse(the_stream, "--max-new-tokens", "4")
    assert ([tokens for _, tokens in got.events], got.error) == ([1, 2, 3, 4], None)


@pytest.mark.parametrize("read_bytes", [None, 1, 2, 3, 100])
def test_a_byte_order_mark_at_the_start_costs_no_token(read_bytes):
    pieces = four()
    (got,) = parse(stream(chunked(BOM + pieces[0], *pieces[1:]), read_bytes))
    assert [tokens for _, tokens in got.events] == [1, 2, 3, 4]
    (got,) = parse(stream(chunked(BOM[:1], BOM[1:], *pieces), read_bytes))
    assert [tokens for _, tokens in got.events] == [1, 2, 3, 4]


def test_an_event_over_several_lines_has_arrived_with_the_last_of_them():
    lines = [b'data: {"meta_info": {"completion_tokens": 1,\n', b'data: "finish_reason": null}}\n']
    last = b"data: " + native(2, {"type": "length"}).encode() + b"\n\n"
    pieces = [b"HTTP/1.1 200 OK\r\n\r\n", *lines, b"\n", last]
    (got,) = parse(stream_of(enumerate(pieces)), "--max-new-tokens", "2")
    assert (got.events, got.error) == ([[2, 1], [4, 2]], None)


def test_an_event_without_its_empty_line_is_dropped_and_the_stream_called_truncated():
    *whole, last, _ = four()
    for end in (b"", b"\n"):
        (got,) = parse(stream(chunked(*whole, last.rstrip() + end)), "--max-new-tokens", "4")
        assert [tokens for _, tokens in got.events] == [1, 2, 3]
        assert got.error == "truncated: the stream ended without a finish reason"


@pytest.mark.parametrize("end", [b"\n\n", b""])
def test_events_that_no_empty_line_divides_are_named(end):
    (got,) = parse(stream(chunked(b"".join(piece[:-1] for piece in four()) + end)))
    assert got.error.startswith("malformed: no empty line between two events: ")


def test_a_carriage_return_in_a_lone_event_ends_a_line_there_too():
    pieces = [f"data: {native(n)}\n\n".encode() for n in (1, 2, 3)]
    odd = pieces[2].replace(b'"meta_info"', b'\rdata:"meta_info"')
    last = f"data: {native(4, {'type': 'length'})}\n\n".encode()
    reads = [b"%x\r\n%b\r\n" % (len(p), p) for p in (*pieces[:2], odd, last)]
    (got,) = parse(stream_of(enumerate([HEAD, *reads])), "--max-new-tokens", "4")
    assert ([tokens for _, tokens in got.events], got.error) == ([1, 2, 3, 4], None)


@pytest.mark.parametrize("line", [b"%x", b"%X", b"00%x", b"%X;name=value"])
def test_the_size_of_a_chunk_is_read_however_http_lets_it_be_written(line):
    ends = (None, None, None, {"type": "length"})
    pieces = [f"data: {native(n, end)}\n\n".encode() for n, end in enumerate(ends, 1)]
    assert {f"{len(piece):x}".isdigit() for piece in pieces} == {False}, "else no case differs"
    reads = [line % len(piece) + b"\r\n" + piece + b"\r\n" for piece in pieces]
    (got,) = parse(stream_of(enumerate([HEAD, *reads])), "--max-new-tokens", "4")
    assert (got.events, got.error) == ([[1, 1], [2, 2], [3, 3], [4, 4]], None)


def test_lines_that_the_rules_ignore_are_reported():
    *pieces, done = four()
    the_stream = stream(chunked(pieces[0], BOM + pieces[1], *pieces[2:], b"foo: bar\n\n", done))
    records = parse(the_stream, "--max-new-tokens", "4")
    assert (records[0].events[-1][1], records[0].error) == (4, None)
    run = Run(end_ns=10**9, streams=[the_stream])
    options = parse_options([])
    summary = summarize(records, run, options, "m", 0)
    assert summary["ignored_lines"] == 2
    assert summary["warnings"][0].startswith("2 lines of the answers are no field")
    assert "'\\ufeffdata: {" in summary["warnings"][0]


def chunk_reads(raw):
    """The reads of an answer that comes a chunk at a time."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    *chunks, last = rest.split(b"\n\n\r\n")
    reads = [head + b"\r\n\r\n", *(chunk + b"\n\n\r\n" for chunk in chunks), last]
    assert b"".join(reads) == raw
    return reads


def test_lines_that_are_no_field_do_not_hide_the_events_after_them():
    first, *others, _ = four()
    raw = chunked(first.replace(b"data", b"dat}"), *others[:-1], others[-1].rstrip())
    for the_stream in (stream(raw), stream_of(enumerate(chunk_reads(raw)))):
        (got,) = parse(the_stream)
        assert [tokens for _, tokens in got.events] == [2, 3]
        assert got.error.startswith("truncated: ") and "dat}" in got.error


def test_nothing_is_read_after_a_bad_chunk():
    raw = chunked(*four())
    raw = raw.replace(b"\n\n\r\n", b"\n\n\r\nzz\r\n", 1)
    for the_stream in (stream(raw), stream(raw, 1), stream_of(enumerate(chunk_reads(raw)))):
        (got,) = parse(the_stream)
        assert [tokens for _, tokens in got.events] == [1]
        assert got.error == "malformed: bad HTTP chunk size b'zz'"


SLIPS = [b"\r", b"\n", b"\r\n", b": x", BOM, b"event: error\n", b"error: x", b"[DONE]", b"{", b'"',
         b"<html>", b"\x00\xff", b'data: {"error":"e"}\n\n', b'"index":-1,', b'"index":1,',
         b'"error":null,', b'"error":{"message":"m"},', b'"completion_tokens":5,']  # fmt: skip


@pytest.mark.parametrize("seed", range(100))
def test_the_cut_into_reads_changes_nothing_whatever_slips_into_a_stream(seed):
    rng = random.Random(seed)
    pieces = four(rng.choice([b"\n", b"\n", b"\r\n", b"\r"]), index=rng.choice([None, 0]))
    for _ in range(rng.randint(1, 3)):
        number = rng.randrange(len(pieces))
        at = rng.randint(0, len(pieces[number]))
        old = pieces[number]
        pieces[number] = old[:at] + rng.choice(SLIPS) + old[at + rng.choice([0, 0, 1, 2]) :]
    raw = chunked(*pieces)
    raw = raw[: rng.randint(len(raw) // 2, len(raw))] if rng.random() < 0.3 else raw

    def outcome(the_stream):
        (got,) = parse(the_stream, "--no-ignore-eos")
        return [tokens for _, tokens in got.events], got.finish_reason, got.error

    whole = outcome(stream(raw))
    assert outcome(stream_of(enumerate(chunk_reads(raw)))) == whole
    for read_bytes in (1, rng.randint(2, 40), rng.randint(41, 400)):
        assert outcome(stream(raw, read_bytes)) == whole
