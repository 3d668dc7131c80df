"""The load client's warm-up passes, and the control after the measured load."""

import itertools

import pytest
from client_harness import client_runs, generated
from standin_server import Behaviour, StandIn

from repro_pp_graphs.client.load import control_options
from repro_pp_graphs.client.options import AUTO_PASSES, parse_options
from repro_pp_graphs.client.record import Record
from repro_pp_graphs.client.warm_up import (
    WarmUpPass,
    agree,
    is_steady,
    measured_longer_caveat,
    not_steady_caveat,
    pass_of,
)

MS = 1_000_000


@pytest.fixture
def run_client(tmp_path, capsys):
    """run(url, *options) -> (exit status, --output document, stdout)."""
    with client_runs(tmp_path, capsys) as run:
        yield run


def record(ttft_ms, tpot_ms, tokens=3, error=None):
    events = [[(ttft_ms + n * tpot_ms) * MS, n + 1] for n in range(tokens)]
    return Record(0, 0, 0, 0, events, tokens, finish_reason="stop", error=error)


def one_pass(ttft_ms=100.0, tpot_ms=10.0, failed=0):
    return WarmUpPass(prompts=2, failed=failed, median_ttft_ms=ttft_ms, mean_tpot_ms=tpot_ms)


def test_the_figures_of_a_pass_are_of_its_completed_prompts():
    bad = record(900, 90, error="reset: while reading")
    found = pass_of([record(100, 10), record(300, 30), bad])
    assert found == WarmUpPass(prompts=3, failed=1, median_ttft_ms=200.0, mean_tpot_ms=20.0)


def test_a_pass_of_single_tokens_has_no_tpot_and_one_that_failed_nothing():
    assert pass_of([record(100, 0, tokens=1)]).mean_tpot_ms is None
    assert pass_of([record(1, 1, error="stalled")]) == WarmUpPass(1, 1, None, None)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (one_pass(105.0), True),
        (one_pass(106.0), False),
        (one_pass(95.0), False),  # 100 is more than 5 % above 95
        (one_pass(100.0, 10.4), True),
        (one_pass(100.0, 11.0), False),
        (one_pass(failed=1), False),
        (WarmUpPass(2, 0, 100.0, None), True),  # of single tokens: TTFT alone
        (WarmUpPass(2, 2, None, None), False),
    ],
)
def test_two_passes_agree_when_ttft_and_tpot_differ_by_at_most_five_percent(other, same):
    assert agree(one_pass(), other) is same
    assert agree(other, one_pass()) is same


def test_only_the_last_two_passes_decide_and_one_pass_cannot_tell():
    slow, fast = one_pass(1000.0), one_pass()
    assert is_steady([]) is is_steady([fast]) is None
    assert is_steady([slow, fast]) is False
    assert is_steady([slow, fast, fast]) is True
    assert is_steady([fast, fast, slow]) is False


@pytest.mark.parametrize(
    ("ttfts", "tpots", "steady"),
    [
        ((223, 239), (99.6, 103.3), False),  # two passes: both figures have to agree
        ((285, 223, 239), (118.4, 99.6, 103.3), True),  # as on four H100s, and the next three
        ((246, 272, 126), (65.6, 66.1, 65.5), False),
        ((246, 272, 126, 136), (65.6, 66.1, 65.5, 65.8), True),
        ((257, 221, 170, 139, 114), (110.4, 106, 100.7, 96.8, 96.3), False),  # still falling
        ((150, 160, 240), (100, 100, 100), False),  # longer than any before
        ((183, 210, 200), (120.1, 131.6, 124.0), False),  # TPOT has to agree
    ],
)
def test_ttft_that_varies_is_settled_where_it_lies_among_those_before(ttfts, tpots, steady):
    passes = [one_pass(*each) for each in zip(ttfts, tpots, strict=True)]
    assert is_steady(passes) is steady


def test_a_pass_that_failed_has_not_settled_whatever_came_before():
    assert is_steady([one_pass(200), one_pass(100), one_pass(120, failed=1)]) is False
    assert is_steady([one_pass(200), WarmUpPass(2, 2, None, None), one_pass(220)]) is False


def test_what_did_not_settle_is_warned_of_with_its_figures():
    said = not_steady_caveat([one_pass(1000.0, 30.0), one_pass(329.0, 10.0)])
    assert "had not settled after 2 warm-up passes" in said
    assert "TTFT 1000.0, 329.0 ms; TPOT 30.0, 10.0 ms" in said
    assert "failed in warm-up pass 2" in not_steady_caveat([one_pass(), one_pass(failed=1)])
    assert not_steady_caveat([one_pass()]) is not_steady_caveat([one_pass(), one_pass()]) is None


def test_whenever_it_is_said_one_figure_of_the_last_two_changed_by_more_than_five_percent():
    ttfts, tpots = (80.0, 96.0, 100.0, 104.0, 120.0), (9.0, 10.0, 10.4, None)
    kinds = [one_pass(*each) for each in itertools.product(ttfts, tpots)]
    said = 0
    for count in (1, 2, 3):
        for passes in itertools.product(kinds, repeat=count):
            if text := not_steady_caveat(passes):
                said += 1
                assert "; one of them still changes by more than 5%)" in text
                a, b = passes[-2:]
                pairs = [(a.median_ttft_ms, b.median_ttft_ms), (a.mean_tpot_ms, b.mean_tpot_ms)]
                assert any(None not in two and max(two) > 1.05 * min(two) for two in pairs)
    assert said > 100


def test_a_measured_pass_that_compiled_is_named_with_both_figures():
    """As on two H100s: a Triton kernel compiled for a new prefill shape."""
    ttfts, tpots = (2464.4, 49.8, 34.5, 37.3, 34.7), (11.9, 10.9, 10.3, 10.9, 10.4)
    passes = [one_pass(*each) for each in zip(ttfts, tpots, strict=True)]
    said = measured_longer_caveat(passes, 2671.1, 10.5)
    assert "warm-up passes after the first: median TTFT 2671.1 ms against at most 49.8 ms;" in said
    assert "; its TTFT and throughput hold a compilation" in said and "TPOT" not in said
    said = measured_longer_caveat(passes, 40.0, 21.9)
    assert "mean TPOT 21.9 ms against at most 10.9 ms; its TPOT and throughput hold" in said
    said = measured_longer_caveat(passes, 100.0, 21.9)
    assert "median TTFT 100.0 ms, mean TPOT 21.9 ms against at most 49.8 and 10.9 ms;" in said
    assert "; its TTFT, TPOT and throughput hold" in said
    assert measured_longer_caveat(passes, 99.6, 21.8) is None, "at most twice as long"
    assert measured_longer_caveat(passes, None, None) is None


def test_one_warm_up_pass_after_the_first_tells_only_where_both_agree():
    assert measured_longer_caveat([], 900.0, 90.0) is None
    assert measured_longer_caveat([one_pass()], 900.0, 90.0) is None
    assert measured_longer_caveat([one_pass(200.0), one_pass()], 900.0, 90.0) is None
    said = measured_longer_caveat([one_pass(104.0), one_pass()], 900.0, 10.0)
    assert "than the warm-up passes: median TTFT 900.0 ms against at most 104.0 ms;" in said
    single_tokens = [WarmUpPass(2, 0, 100.0, None)] * 3
    assert "its TTFT and throughput" in measured_longer_caveat(single_tokens, 201.0, None)


@pytest.mark.parametrize(("given", "passes"), [("auto", AUTO_PASSES), ("3", 3), ("0", 0)])
def test_auto_stands_for_a_number(given, passes):
    assert parse_options(["--warmup-passes", given]).warmup_passes == passes


@pytest.mark.parametrize("given", ["-1", "x", "1.5", ""])
def test_anything_else_is_refused(given, capsys):
    with pytest.raises(SystemExit) as refused:
        parse_options([f"--warmup-passes={given}"])
    assert refused.value.code == 2
    assert "--warmup-passes" in capsys.readouterr().err


def test_passes_repeat_the_load_until_they_agree_or_are_used_up(run_client, monkeypatch):
    monkeypatch.setattr("repro_pp_graphs.client.warm_up.AGREE_SHARE", -1.0)  # none ever agrees
    argv = ("--batch", "2", "--max-new-tokens", "4", "--warmup-passes", "3")
    with StandIn() as server:
        status, document, text = run_client(server.url, *argv)
        sent = [payload["text"] for payload in generated(server)]
    assert status == 0
    summary = document["summary"]
    assert (summary["warmup_passes"], summary["warmup_steady"]) == (3, False)
    assert [one["prompts"] for one in summary["warmup_figures"]] == [2, 2, 2]
    assert len(sent) == 1 + 3 + 1
    assert sent[1:4] == [sent[4]] * 3, "a pass is the measured load"
    assert len(document["requests"]) == 2, "warm-up passes are not measured"
    assert "3 passes of the load: not steady" in text
    assert "had not settled after 3 warm-up passes" in " ".join(text.split())


def test_passes_that_agree_end_the_warm_up(run_client, monkeypatch):
    monkeypatch.setattr("repro_pp_graphs.client.warm_up.agree", lambda one, other: True)
    argv = ("--batch", "2", "--max-new-tokens", "4", "--warmup-passes", "auto")
    with StandIn() as server:
        _, document, text = run_client(server.url, *argv)
        assert len(generated(server)) == 1 + 2 + 1
    assert (document["summary"]["warmup_passes"], document["summary"]["warmup_steady"]) == (2, True)
    assert "2 passes of the load: the last two agree" in text
    assert not [text for text in document["summary"]["warnings"] if "settled" in text]


def test_a_measured_pass_far_longer_than_the_warm_up_is_warned_of(run_client, monkeypatch):
    fast = one_pass(0.001, 0.001)
    monkeypatch.setattr("repro_pp_graphs.client.measure.pass_of", lambda records: fast)
    argv = ("--batch", "2", "--max-new-tokens", "4", "--warmup-passes", "auto")
    with StandIn(Behaviour(ttft_s=0.01)) as server:
        _, document, text = run_client(server.url, *argv)
    assert (
        "the measured pass took far longer than the warm-up" in document["summary"]["warnings"][0]
    )
    assert "warning: the measured pass took far longer" in " ".join(text.split())


def test_synthetic_prompts_differ_from_pass_to_pass(run_client, monkeypatch):
    monkeypatch.setattr("repro_pp_graphs.client.warm_up.AGREE_SHARE", -1.0)
    argv = ("--input-len", "9", "--concurrency", "2", "--warmup-passes", "2", "--control", "3")
    with StandIn() as server:
        run_client(server.url, *argv, "--max-new-tokens", "2")
        texts = [payload["text"] for payload in generated(server)]
    assert len(texts) == 1 + 2 * 2 + 2 + 4
    assert len(set(texts)) == len(texts), "a prefix cache would serve a prompt that came before"
    heads = {" ".join(text.split()[:4]) for text in texts}
    assert len(heads) == len(texts), "or its head"


def test_a_pass_in_which_prompts_fail_ends_the_warm_up(run_client):
    behaviour = Behaviour(fault="http", fault_requests=2)  # the warm-up and the first pass
    argv = ("--batch", "2", "--max-new-tokens", "2", "--warmup-passes", "4")
    with StandIn(behaviour) as server:
        status, document, _ = run_client(server.url, *argv)
        assert len(generated(server)) == 1 + 1 + 1
    assert status == 0
    assert (document["summary"]["warmup_passes"], document["summary"]["completed"]) == (1, 2)
    assert document["summary"]["warmup_steady"] is None
    assert any("failed in warm-up pass 1" in text for text in document["summary"]["warnings"])


@pytest.mark.parametrize("reader", ["epoll", "threads"])
@pytest.mark.parametrize(("from_request", "where"), [(0, "the warm-up"), (1, "warm-up pass 1")])
def test_after_a_warm_up_that_stalled_nothing_more_is_sent(
    run_client, tmp_path, reader, from_request, where
):
    behaviour = Behaviour(fault="stall", fault_after=2, fault_from=from_request)
    argv = ("--batch", "2", "--max-new-tokens", "4", "--warmup-passes", "3", "--control", "2")
    line = tmp_path / "line.jsonl"
    more = ("--stall-timeout", "1", "--reader", reader, "--bench-serving-json", str(line))
    with StandIn(behaviour) as server:
        status, document, text = run_client(server.url, *argv, *more, "--max-error-rate", "1")
        assert len(generated(server)) == from_request + 1
    assert status == 1
    said = " ".join(text.split())
    assert f"the server fell silent in {where}: nothing was measured" in said
    assert "raise --stall-timeout" in said
    assert document["summary"]["errors"] == {"stalled": 2}
    assert document["summary"]["warmup_passes"] == from_request
    assert [request["tokens"] for request in document["requests"]] == [2, 2]
    assert not line.exists() or not line.read_text(), "bench_serving has no word for it"


def test_a_pass_that_lost_one_stream_is_measured_after(run_client):
    def until_one_stalls(received):
        return len(received) > 1 and not server.stalled.is_set()

    behaviour = Behaviour(fault="stall", fault_from=1, fault_requests=2, hold=until_one_stalls)
    argv = ("--concurrency", "3", "--num-prompts", "3", "--max-new-tokens", "3")
    with StandIn(behaviour) as server:
        status, document, _ = run_client(
            server.url, *argv, "--warmup-passes", "2", "--stall-timeout", "2"
        )
        sent = len(generated(server))
    assert (status, document["summary"]["completed"]) == (0, 3)
    assert sent == 1 + 3 + 3, "a pass in which a prompt fails is the last"
    assert document["summary"]["warmup_figures"][0]["failed"] == 1


def test_after_a_load_that_stalled_no_control_is_sent(run_client):
    with StandIn(Behaviour(fault="stall", fault_after=2, fault_from=1)) as server:
        argv = ("--batch", "2", "--max-new-tokens", "4", "--control", "2", "--stall-timeout", "1")
        status, document, text = run_client(server.url, *argv)
        assert len(generated(server)) == 1 + 1
    assert status == 1
    assert document["summary"]["errors"] == {"stalled": 2}
    assert "only 0 of 2 control requests" in " ".join(text.split())


def test_without_the_options_nothing_is_sent_more(run_client):
    with StandIn() as server:
        _, document, text = run_client(server.url, "--batch", "2", "--max-new-tokens", "2")
        assert len(generated(server)) == 2
    summary = document["summary"]
    assert (summary["warmup_passes"], summary["warmup_steady"]) == (0, None)
    assert (summary["control_ttft_ms"], summary["control_requests"]) == (None, 0)
    assert "control" not in text and "passes" not in text


def test_the_control_is_one_short_prompt_alone_after_the_load(run_client):
    argv = ("--batch", "3", "--max-new-tokens", "6", "--control", "4", "--request-rate", "100")
    with StandIn(Behaviour(ttft_s=0.01)) as server:
        _, document, text = run_client(server.url, *argv)
        control = generated(server)[-5:]
    assert [len(payload["text"].split()) for payload in control] == [8] * 5
    assert {payload["sampling_params"]["max_new_tokens"] for payload in control} == {1}
    summary = document["summary"]
    assert summary["control_requests"] == 4, "the first is sent and not counted"
    assert summary["control_ttft_ms"] >= 10
    assert f"alone {summary['control_ttft_ms']:.2f} ms, median of 4" in " ".join(text.split())
    assert max(request["tokens"] for request in document["requests"]) == 6


def test_a_control_that_fails_is_warned_of_and_changes_nothing_else(run_client):
    options = parse_options(["--control", "2"])
    assert control_options(options).base_url == options.base_url
    with StandIn(Behaviour(fault="http", fault_from=2)) as server:
        argv = ("--batch", "2", "--max-new-tokens", "2", "--control", "2")
        status, document, _ = run_client(server.url, *argv)
    assert (status, document["summary"]["completed"]) == (0, 2)
    assert document["summary"]["control_ttft_ms"] is None
    assert any("0 of 2 control requests" in text for text in document["summary"]["warnings"])
