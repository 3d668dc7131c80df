"""What the load client makes of raw bytes and of events: pure functions, no server."""

import json
import struct

import pytest
from client_harness import HEAD, client, native, parse, response, stream, stream_of


def record(start_ns, *events, lane=0, error=None):
    events = [list(event) for event in events]
    tokens = events[-1][1] if events else 0
    same = {"start_ns": start_ns, "sent_ns": start_ns, "intended_ns": start_ns}
    return client.Record(**same, lane=lane, events=events, tokens=tokens, error=error)


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
    assert client.quick_count(json.dumps(events[0], separators=separators).encode(), prompts)
    monkeypatch.setattr(client, "quick_count", lambda *_: None)
    assert parse(stream(raw, 40, prompts)) == quick


def test_a_quick_look_that_disagrees_is_not_used():
    event = json.loads(native(3)) | {"x": {"completion_tokens": 99}}
    last = json.loads(native(4, {"type": "length"})) | {"x": {"completion_tokens": 99}}
    assert client.quick_count(json.dumps(event).encode(), 1) == (0, 99)
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


def stamp(realtime_ns):
    whole = struct.pack("=6q", *divmod(realtime_ns, 10**9), 0, 0, 0, 0)
    return [(client.socket.SOL_SOCKET, client.SCM_TIMESTAMPING, whole)]


def test_a_kernel_stamp_is_put_on_the_monotonic_clock():
    clock = client.KernelClock()
    clock.note(0, 10**18, 100)
    assert clock.arrival_ns(5_000_000, stamp(10**18 + 4_000_000)) == 4_000_000
    assert clock.lags_ns == [1_000_000]


@pytest.mark.parametrize(
    "ancillary",
    [None, [], [(1, 37, b"short")], stamp(10**18 + 6_000_000), stamp(10**18 - 10**11)],
    ids=["none", "empty", "32 bit", "later than the read", "minutes old"],
)
def test_a_read_without_a_plausible_stamp_keeps_the_time_it_returned(ancillary):
    clock = client.KernelClock()
    clock.note(0, 10**18, 100)
    assert clock.arrival_ns(5_000_000, ancillary) == 5_000_000
    assert (clock.reads, clock.lags_ns) == (1, [])


def test_stamps_around_a_step_of_the_clock_are_not_trusted_and_later_ones_are():
    second, step = 10**9, 3 * 10**6
    clock = client.KernelClock()
    for now in (1, 2, 3):
        clock.note(now * second, 10**18 + (step if now == 3 else 0), 100)
    clock.note(4 * second, 10**18 + step + 50, 100)
    read = [round(at * second) for at in (1.5, 2.5, 3.1, 3.9)]
    old, unsure, near, new = (
        clock.arrival_ns(at, stamp(10**18 + at - 1000 + (step if at > 2.2 * second else 0)))
        for at in read
    )
    assert (old, unsure, near, new) == (read[0] - 1000, read[1], read[2], read[3] - 1000)


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
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n<h1>no upstream</h1>", "http 502: <h1>no upstream</h1>"),
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
    assert client.server_message(body) == message


def test_itl_of_a_chunk_is_shared_by_its_tokens():
    got = client.itl_ms(record(0, (0, 1), (6_000_000, 4), (7_000_000, 5)))
    assert got == [2.0, 2.0, 2.0, 1.0]


def test_percentiles_interpolate_as_numpy_does():
    got = client.distribution("x_ms", [4.0, 1.0, 3.0, 2.0])
    assert got["median_x_ms"] == 2.5
    assert got["p90_x_ms"] == pytest.approx(3.7)
    assert got["std_x_ms"] == pytest.approx(1.118033988749895)
    assert got["max_x_ms"] == 4.0


def test_a_figure_without_samples_is_null_not_zero():
    assert set(client.distribution("x_ms", []).values()) == {None}


def test_steady_state_lasts_from_the_last_first_token_to_the_first_end():
    a = record(0, (10, 1), (20, 2), (30, 3), (40, 4), lane=0)
    b = record(0, (20, 1), (30, 2), (40, 3), (50, 4), lane=1)
    got = client.steady_state([a, b])
    assert (got["start_ns"], got["end_ns"], got["output_tokens"]) == (20, 40, 4)
    assert got["output_throughput"] == 4 / 20e-9


def test_steady_state_spans_the_streams_that_follow_in_one_lane():
    records = [record(start, (start + 1, 1), (start + 9, 9), lane=0) for start in (0, 10, 20)]
    got = client.steady_state([*records, record(0, (5, 1), (25, 21), lane=1)])
    assert (got["start_ns"], got["end_ns"]) == (5, 25)


@pytest.mark.parametrize("late", [(100, 1), None])
def test_without_a_time_when_all_stream_there_is_no_steady_state(late):
    other = record(0, late, lane=1) if late else record(0, lane=1)
    assert client.steady_state([record(0, (10, 1), (20, 2), lane=0), other]) is None


def test_tokens_between_two_arrivals_are_in_proportion():
    one = record(0, (10, 2), (20, 6))
    assert [client.tokens_at(one, t) for t in (9, 10, 15, 20, 99)] == [0, 2, 4, 6, 6]


def test_peak_counts_requests_open_at_once():
    assert client.peak_in_flight([(0, 10), (5, 15), (10, 20)]) == 2


def summary(records, *argv):
    options = client.parse_options(argv)
    run = client.Run(begin_ns=0, end_ns=1_000_000_000, cpu_s=0.1)
    return client.summarize(records, run, options, "model", 0)


def test_latencies_follow_their_definitions():
    ms = 1_000_000
    one = record(0, (100 * ms, 1), (110 * ms, 2), (140 * ms, 5))
    got = summary([one], "--max-new-tokens", "5")
    assert got["mean_ttft_ms"] == 100
    assert got["mean_tpot_ms"] == 10
    assert got["max_itl_ms"] == 10
    assert got["mean_e2e_latency_ms"] == 140
    assert got["output_throughput"] == pytest.approx(5 / 0.14)


def test_failed_prompts_lend_no_latency_but_their_tokens_arrived():
    ms = 1_000_000
    good = record(0, (10 * ms, 1), (20 * ms, 2))
    bad = record(0, (500 * ms, 1), error="stalled: no byte for 1 s")
    got = summary([good, bad])
    assert (got["completed"], got["failed"], got["errors"]) == (1, 1, {"stalled": 1})
    assert (got["max_ttft_ms"], got["total_output_tokens"]) == (10, 3)


def test_an_interrupted_prompt_lends_ttft_and_itl_but_no_end():
    got = summary([record(0, (10, 1), (20, 2), error="interrupted: stopped by a signal")])
    assert got["mean_itl_ms"] is not None
    assert got["mean_e2e_latency_ms"] is got["mean_tpot_ms"] is None


def test_a_busy_client_says_so():
    run = client.Run(begin_ns=0, end_ns=1_000_000_000, cpu_s=0.95)
    one = record(0, (10, 1), (20, 2))
    got = client.summarize([one], run, client.parse_options([]), "model", 0)
    assert "95% of a core" in got["warnings"][0]


def test_tokens_of_one_prompt_that_were_read_together_are_reported():
    got = summary([record(0, (10, 1), (10, 2), (20, 3), (30, 4))])
    assert got["self_check"]["read_together_share"] == 0.25
    assert "read together" in got["warnings"][0]


def test_the_bench_serving_line_counts_completed_prompts_alone():
    ms, options = 1_000_000, client.parse_options(["--input-len", "9", "--max-new-tokens", "3"])
    good = record(0, (10 * ms, 1), (20 * ms, 3))
    bad = record(0, (10 * ms, 1), error="reset: while reading")
    good.prompt_tokens = bad.prompt_tokens = 9
    run = client.Run(begin_ns=0, end_ns=20 * ms)
    figures = client.summarize([good, bad], run, options, "m", 0)
    line = client.bench_serving_line(figures, [good, bad], options)
    assert (line["completed"], line["total_input_tokens"], line["total_output_tokens"]) == (1, 9, 3)
    assert (line["output_throughput"], line["total_throughput"]) == (3 / 0.02, 12 / 0.02)
    assert (line["max_output_tokens_per_s"], line["random_input_len"]) == (3, 9)
    assert line["median_itl_ms"] == 5
    assert line["server_info"] is line["accept_length"] is None


def test_both_spellings_of_an_option_are_one():
    for argv in (["--max_new_tokens", "7"], ["--max-new-tokens=7"], ["--max_new_tokens=7"]):
        assert client.parse_options(argv).max_new_tokens == 7
    assert str(client.parse_options(["--output=a_b.json"]).output) == "a_b.json"


@pytest.mark.parametrize(
    ("argv", "batch", "concurrency"),
    [
        ([], 16, 1),
        (["--batch", "4"], 4, 1),
        (["--concurrency", "8"], 1, 8),
        (["--batch", "4", "--concurrency", "8"], 4, 8),
        (["--request-rate", "2"], 1, None),
    ],
)
def test_batch_is_one_where_streams_are_separate(argv, batch, concurrency):
    options = client.parse_options(argv)
    assert (options.batch, options.concurrency) == (batch, concurrency)


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch", "0"],
        ["--concurrency", "x"],
        ["--duration", "0"],
        ["--request-rate", "inf"],
        ["--base-url", "127.0.0.1:30000"],
        ["--base-url", "http://user:word@127.0.0.1:30000"],
        ["--backend", "grpc"],
        ["--bat", "3"],
    ],
)
def test_a_wrong_option_is_a_usage_error(argv, capsys):
    with pytest.raises(SystemExit) as stopped:
        client.parse_options(argv)
    assert stopped.value.code == 2
    assert argv[0].lstrip("-") in capsys.readouterr().err


def test_arrivals_are_poisson_at_the_asked_rate_and_reproducible():
    options = client.parse_options(["--request-rate", "100", "--input-len", "3"])

    def due():
        streams = client.plan(options, "m", client.Prompts(options), 0, 2000)
        return [stream.due_offset_ns for stream in streams]

    offsets = due()
    assert offsets == due()
    assert offsets[0] == 0
    assert offsets[-1] / 1999 == pytest.approx(10e6, rel=0.1)


def test_synthetic_prompts_have_the_asked_length_and_differ():
    options = client.parse_options(["--input-len", "50"])
    prompts = client.Prompts(options)
    texts = [prompts[number] for number in (-2, -1, 0, 1)]
    assert {len(text.split()) for text in texts} == {50}
    assert len(set(texts)) == 4
