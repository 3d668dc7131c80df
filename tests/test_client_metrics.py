"""Figures of records: latencies, throughput, self-check, the bench_serving line."""

import pytest

from repro_pp_graphs.client.bench_serving import bench_serving_line
from repro_pp_graphs.client.metrics import (
    distribution,
    itl_ms,
    peak_in_flight,
    steady_state,
    tokens_at,
)
from repro_pp_graphs.client.options import parse_options
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.run import Run
from repro_pp_graphs.client.summary import summarize


def record(start_ns, *events, lane=0, error=None):
    events = [list(event) for event in events]
    tokens = events[-1][1] if events else 0
    same = {"start_ns": start_ns, "sent_ns": start_ns, "intended_ns": start_ns}
    return Record(**same, lane=lane, events=events, tokens=tokens, error=error)


def test_itl_of_a_chunk_is_shared_by_its_tokens():
    got = itl_ms(record(0, (0, 1), (6_000_000, 4), (7_000_000, 5)))
    assert got == [2.0, 2.0, 2.0, 1.0]


def test_percentiles_interpolate_as_numpy_does():
    got = distribution("x_ms", [4.0, 1.0, 3.0, 2.0])
    assert got["median_x_ms"] == 2.5
    assert got["p90_x_ms"] == pytest.approx(3.7)
    assert got["std_x_ms"] == pytest.approx(1.118033988749895)
    assert got["max_x_ms"] == 4.0


def test_a_figure_without_samples_is_null_not_zero():
    assert set(distribution("x_ms", []).values()) == {None}


def test_steady_state_lasts_from_the_last_first_token_to_the_first_end():
    a = record(0, (10, 1), (20, 2), (30, 3), (40, 4), lane=0)
    b = record(0, (20, 1), (30, 2), (40, 3), (50, 4), lane=1)
    got = steady_state([a, b])
    assert (got["start_ns"], got["end_ns"], got["output_tokens"]) == (20, 40, 4)
    assert got["output_throughput"] == 4 / 20e-9


def test_steady_state_spans_the_streams_that_follow_in_one_lane():
    records = [record(start, (start + 1, 1), (start + 9, 9), lane=0) for start in (0, 10, 20)]
    got = steady_state([*records, record(0, (5, 1), (25, 21), lane=1)])
    assert (got["start_ns"], got["end_ns"]) == (5, 25)


@pytest.mark.parametrize("late", [(100, 1), None])
def test_without_a_time_when_all_stream_there_is_no_steady_state(late):
    other = record(0, late, lane=1) if late else record(0, lane=1)
    assert steady_state([record(0, (10, 1), (20, 2), lane=0), other]) is None


def test_tokens_between_two_arrivals_are_in_proportion():
    one = record(0, (10, 2), (20, 6))
    assert [tokens_at(one, t) for t in (9, 10, 15, 20, 99)] == [0, 2, 4, 6, 6]


def test_peak_counts_requests_open_at_once():
    assert peak_in_flight([(0, 10), (5, 15), (10, 20)]) == 2


def summary(records, *argv):
    options = parse_options(argv)
    run = Run(begin_ns=0, end_ns=1_000_000_000, cpu_s=0.1)
    return summarize(records, run, options, "model", 0)


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
    run = Run(begin_ns=0, end_ns=1_000_000_000, cpu_s=0.95)
    one = record(0, (10, 1), (20, 2))
    got = summarize([one], run, parse_options([]), "model", 0)
    assert "95% of a core" in got["warnings"][0]


def test_tokens_of_one_prompt_that_were_read_together_are_reported():
    got = summary([record(0, (10, 1), (10, 2), (20, 3), (30, 4))])
    assert got["self_check"]["read_together_share"] == 0.25
    assert "read together" in got["warnings"][0]


def test_the_bench_serving_line_counts_completed_prompts_alone():
    ms, options = 1_000_000, parse_options(["--input-len", "9", "--max-new-tokens", "3"])
    good = record(0, (10 * ms, 1), (20 * ms, 3))
    bad = record(0, (10 * ms, 1), error="reset: while reading")
    good.prompt_tokens = bad.prompt_tokens = 9
    run = Run(begin_ns=0, end_ns=20 * ms)
    figures = summarize([good, bad], run, options, "m", 0)
    line = bench_serving_line(figures, [good, bad], options)
    assert (line["completed"], line["total_input_tokens"], line["total_output_tokens"]) == (1, 9, 3)
    assert (line["output_throughput"], line["total_throughput"]) == (3 / 0.02, 12 / 0.02)
    assert (line["max_output_tokens_per_s"], line["random_input_len"]) == (3, 9)
    assert line["median_itl_ms"] == 5
    assert line["server_info"] is line["accept_length"] is None
