"""Explaining a decode step: intervals, shares, and where the token return waits."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from trace_changes import analysed, analysis_of, explained_of, only_case, written_of
from trace_maker import TraceMaker, ring, sync_release

from repro_pp_graphs.traces import time_sets as sets
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.messages import messages
from repro_pp_graphs.traces.rank_trace import P2POp, RankTrace, Span
from repro_pp_graphs.traces.time_sets import intervals, partition

DATA = Path(__file__).parent / "data" / "traces"

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted), max_size=8)


def points(times) -> set[int]:
    return {moment for start, end in times for moment in range(start, end)}


@given(pairs, pairs)
def test_interval_sets_agree_with_sets_of_points(left, right):
    ours, theirs = sets.merged(intervals(left)), sets.ranges(sets.merged(intervals(right)))
    assert points(ours.tolist()) == points(left)
    assert sets.total(ours) == len(points(left))
    assert points(sets.clip(ours, 10, 40).tolist()) == points(left) & set(range(10, 40))
    covered, rest = sets.taken(sets.ranges(ours), theirs)
    assert covered == len(points(left) & points(right))
    assert points(rest) == points(left) - points(right)
    assert sets.length(rest) == len(points(rest))


@given(pairs, pairs, pairs)
def test_a_partition_adds_up_to_its_span(span, first, second):
    whole, a, b = (sets.ranges(sets.merged(intervals(each))) for each in (span, first, second))
    shares = partition(whole, {"a": a, "b": b}, "rest")
    assert sum(shares.values()) == sets.length(whole)
    assert shares["a"] == len(points(span) & points(first))
    assert shares["b"] == len(points(span) & points(second) - points(first))


@pytest.mark.parametrize("named", [True, False])
def test_the_three_numbers_of_the_issue_come_out_of_a_blocking_send(tmp_path, named):
    for maker in sync_release(named):
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    told = facts["token_return"]
    assert told["steps"] == 4
    assert told["found_by"].startswith("send_res_dict" if named else "send_tensor_dict")
    medians = {name: cell["median"] for name, cell in told["delivery_us"].items()}
    assert medians == {"send": 99_900, "overlapped_with_graph": 29_000, "idle": 70_900}
    assert told["host_us"]["send"]["median"] == 29_600
    assert told["until_received_us"]["median"] == 99_900


def test_the_host_span_is_split_by_what_it_waits_for(tmp_path):
    for maker in sync_release(named=False):
        maker.write(tmp_path)
    told = analysed(only_case(tmp_path))["token_return"]
    split = {name: cell["mean"] for name, cell in told["split_us"].items()}
    assert split["blocked_on_own_graph"] == 29_000
    assert split["transfer"] == 430  # from the c10d::send call until the recv ends
    assert split["peer_late"] == 0
    assert sum(split.values()) == told["host_us"]["send"]["mean"] == 29_600
    way = {name: cell["mean"] for name, cell in told["delivery_split_us"].items()}
    assert way["peer_late"] == 70_260
    assert sum(way.values()) == 99_900
    assert told["blocking_calls"][0]["name"] == "cudaMemcpyAsync"
    assert told["blocking_calls"][0]["calls"] == told["steps_counted"] == 3


def test_waits_and_transfer_follow_the_definitions(tmp_path):
    for maker in sync_release(named=True):
        maker.write(tmp_path)
    (edge,) = analysed(only_case(tmp_path))["p2p"]
    assert edge["pairs"] == 8
    assert edge["send_wait_us"]["max"] == 70_260
    assert edge["recv_wait_us"]["max"] == 0
    assert edge["transfer_us"]["median"] == edge["shorter_us"]["median"] == 50
    assert edge["lag_us"]["max"] == 0
    assert edge["buffered"] == 0


def test_a_send_that_ends_before_its_recv_starts_is_buffered(tmp_path):
    first, second = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(5):
        first.p2p("send", 1, 1000 * n, 10)
        second.p2p("recv", 0, 1000 * n + 300, 10)
    for maker in (first, second):
        maker.write(tmp_path)
    (edge,) = analysed(only_case(tmp_path))["p2p"]
    assert edge["buffered"] == 5
    assert edge["lag_us"]["median"] == 300


def test_kernels_of_a_graph_are_told_by_its_launchs_correlation_alone(tmp_path):
    for maker in sync_release(named=True):
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    assert facts["graph_launches"] == {"0": 0, "1": 4}
    assert facts["ranks"]["1"]["graph_us"] == 30_000


def test_busy_p2p_and_idle_shares_add_up_to_one(tmp_path):
    for maker in ring(4, steps=10):
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    for row in facts["ranks"].values():
        shares = [row[f"{kind}_fraction"] for kind in ("busy", "p2p", "idle")]
        assert sum(shares) == pytest.approx(1, abs=2e-4)
        assert row["busy_fraction"] == pytest.approx(0.04, abs=0.01)


def test_empty_slots_of_the_loop_lower_the_number_of_micro_batches(tmp_path):
    makers = ring(4, steps=12)
    for maker in makers:
        for n in range(16):
            maker.span("recv_requests", 750 * n, 10)
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))["ring"]
    assert facts["micro_batches"] == 3
    assert facts["ideal_bubble_fraction"] == 0.25


def test_decode_steps_are_counted_by_batch_size():
    facts = written_of("h200_case_A")
    assert facts["ranks"]["3"]["decode_batch_sizes"] == {"1": 8, "4": 8, "11": 8}
    assert facts["ring"]["micro_batches"] == 3
    assert facts["token_return"]["steps"] == 24


@pytest.mark.parametrize("case", ["A", "B"])
def test_the_table_fits_80_columns_and_shows_every_edge(case):
    facts = analysis_of(f"h200_case_{case}")
    shown = lines(facts)
    assert max(map(len, shown)) <= 80
    assert sum(line.startswith(("nccl ", "gloo ")) for line in shown) == 8
    assert np.isfinite(facts.window_us)


SIZE, PICKLE, TENSOR = (1, "long int"), (219, "unsigned char"), (65536, "c10::BFloat16")


@pytest.mark.parametrize("pp", [0, 1, 2])
@pytest.mark.parametrize("on_device", [False, True])
def test_requests_that_no_annotation_names_are_not_hidden_states(pp, on_device):
    """Blocking sends: requests go on while results are processed, without an annotation of their
    own, and with the backend of the tensors. Of 4 ranks those that pass them on."""
    sent = [[SIZE], [SIZE, PICKLE, TENSOR, TENSOR], [SIZE, PICKLE], [SIZE, PICKLE, TENSOR, TENSOR]]
    rank, ends, now = RankTrace("", pp, 0, pp), {}, 0
    if on_device:
        rank.p2p_kernels = intervals([(0, 1)])
    for number, parts in enumerate(sent):
        if number % 2:
            rank.spans.append(Span("send_proxy_dict_to_next_stage", now, now + 100 * len(parts)))
        for place, (elements, dtype) in enumerate(parts):
            nccl = on_device and (number % 2 == 0 or place > 0)
            names = {"long int": "Long", "unsigned char": "Byte", "c10::BFloat16": "BFloat16"}
            op = P2POp(
                "send",
                pp + 1,
                elements,
                names[dtype] if nccl else dtype,
                now + 10,
                now + 90,
                "nccl" if nccl else "gloo",
                now + 10,
            )
            rank.p2p.append(op)
            if not nccl:
                ends[id(op)] = op.end_ns
            now += 100
        now += 1000
    assert [m.what for m in messages(rank, 4, ends)] == ["requests", "hidden"] * 2
    # of which it is not known what they hold, those without a size in front
    for op in rank.p2p:
        if op.backend == "nccl":
            op.dtype = op.elements = None
    if on_device:
        assert [m.what for m in messages(rank, 4, ends)] == ["requests", "hidden"] * 2


def test_of_a_cpu_it_is_not_said_that_a_send_does_not_wait():
    for name in ("cpu_numbered", "cpu_batched", "cpu_async_pp4"):
        text = " ".join(" ".join(lines(explained_of(name))).split())
        assert "does not wait" not in text and "do not tell what of that is waiting" in text
