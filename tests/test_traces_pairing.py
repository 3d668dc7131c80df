"""Pairing sends with recvs: the right offset, or none with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

from trace_changes import analysed, only_case, written_of
from trace_maker import TraceMaker, of_two_base_times, ring

from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.pair.clock_bounds import bounds, of_all_pairs
from repro_pp_graphs.traces.pair.edges import OpenChannel, OpenEdge, edges_of, pair_edges
from repro_pp_graphs.traces.pair.pairing import pair_queues
from repro_pp_graphs.traces.pair.queues import SLACK_NS, queues_of
from repro_pp_graphs.traces.rank_trace import P2POp

DATA = Path(__file__).parent / "data" / "traces"


def pair(sends, recvs):
    return pair_queues(queues_of(sends, recvs, 0))


def op(kind: str, start_us: float, end_us: float, elements: int | None = 8) -> P2POp:
    return P2POp(
        kind,
        1,
        elements,
        "Long" if elements else None,
        int(start_us * 1000),
        int(end_us * 1000),
        "nccl",
        int(start_us * 1000),
    )


def sends(*starts: float, dur: float = 10, elements: int | None = 8) -> list[P2POp]:
    return [op("send", start, start + dur, elements) for start in starts]


def recvs(*ends: float, dur: float = 10, elements: int | None = 8) -> list[P2POp]:
    return [op("recv", end - dur, end, elements) for end in ends]


def edge_between(src: int, dst: int, ours: list[P2POp], theirs: list[P2POp]) -> OpenEdge:
    """An edge with one channel, not yet paired."""
    channel = OpenChannel("", ours, theirs, queues_of(ours, theirs, SLACK_NS["nccl"]))
    return OpenEdge("nccl", src, dst, None, None, [channel])


@pytest.mark.parametrize("case", ["A", "B"])
def test_the_reference_traces_give_the_table_computed_independently(case):
    facts = written_of(f"h200_case_{case}")
    table = {
        (e["src"], e["dst"]): (e["sends"], e["recvs"], e["offset"], e["pairs"])
        for e in facts["p2p"]
    }
    assert table == {
        (0, 1): (72, 74, -1, 71),
        (1, 2): (72, 74, -1, 71),
        (2, 3): (72, 74, -1, 71),
        (3, 0): (24, 24, 2, 22),
    }
    assert {e["backend"] for e in facts["p2p"]} == {"nccl"}
    assert {e["backend"] for e in facts["p2p_gloo"]} == {"gloo"}
    assert facts["graph_launches"] == dict.fromkeys("0123", 24 if case == "A" else 0)


def test_ranks_that_start_at_different_steps_are_paired_with_the_offset_between_them(tmp_path):
    for maker in ring(4, steps=12):
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    offsets = {(e["src"], e["dst"]): (e["offset"], e["pairs"]) for e in facts["p2p"]}
    assert offsets == {(0, 1): (-1, 11), (1, 2): (-1, 11), (2, 3): (-1, 11), (3, 0): (3, 9)}


def test_the_ranks_base_times_are_brought_to_one_clock(tmp_path):
    for maker in of_two_base_times():
        maker.write(tmp_path)
    assert [e["pairs"] for e in analysed(only_case(tmp_path))["p2p"]] == [5, 5]


def test_causality_rules_out_a_recv_that_ends_before_its_send():
    found = pair(sends(100, 200, 300), recvs(105, 215, 312, dur=1))
    assert found.pairs == [(0, 0), (1, 1), (2, 2)]
    found = pair(sends(100, 200, 300), recvs(95, 112, 215, 312, dur=1))
    assert (found.offset, len(found.pairs)) == (1, 3)


def test_element_counts_rule_out_an_offset_that_times_allow():
    first = [op("send", 100 * n, 100 * n + 9, elements=n % 3) for n in range(1, 10)]
    second = [op("recv", 100 * n + 250, 100 * n + 255, elements=n % 3) for n in range(1, 10)]
    assert pair(first, second).offset == 0


def test_the_smallest_lag_is_taken_when_every_turn_looks_alike():
    found = pair(sends(*range(0, 5000, 500)), recvs(*range(-500, 4500, 500)))
    assert found.offset == 1
    found = pair(sends(*range(0, 5000, 500)), recvs(*range(20, 5020, 500)))
    assert found.offset == 0


def test_an_event_missing_in_the_middle_splits_the_pairs_and_none_is_wrong():
    ours = sends(*(1000 * n for n in range(40)))
    theirs = recvs(*(1000 * n + 20 for n in range(40) if n != 20))
    found = pair(ours, theirs)
    assert all(j == i - (i > 20) for i, j in found.pairs)
    assert len(found.pairs) >= 35


def test_no_offset_that_fits_is_a_reason_not_a_guess():
    found = pair(sends(100, 200, elements=4), recvs(120, 220, elements=8))
    assert found.pairs == []
    assert "no offset" in found.reason


def test_two_offsets_that_fit_equally_are_a_tie():
    found = pair(sends(100), recvs(150, 150.5))
    assert found.pairs == []
    assert "a tie" in found.reason


def test_metadata_of_the_linked_operator_stands_in_for_missing_kernel_arguments(tmp_path):
    makers = ring(2)
    for maker in makers:
        for event in list(maker.events):
            args = event["args"]
            if "Collective name" in args:
                facts = {
                    key: args.pop(key)
                    for key in list(args)
                    if key
                    in (
                        "Collective name",
                        "In msg nelems",
                        "dtype",
                        "Process Group Name",
                        "Src Rank",
                        "Dst Rank",
                    )
                }
                maker.events.append(
                    {
                        **event,
                        "cat": "cpu_op",
                        "name": "record_param_comms",
                        "pid": maker.pid,
                        "tid": maker.pid,
                        "args": {"External id": args["External id"], **facts},
                    }
                )
        maker.write(tmp_path)
    assert [e["pairs"] for e in analysed(only_case(tmp_path))["p2p"]] == [5, 5]


def annotated(maker: TraceMaker, own: int, peers: dict[str, int], on_gpu: bool) -> None:
    """Take the kernels' metadata away and leave `nccl:` annotations instead."""
    for event in list(maker.events):
        args = event["args"]
        kind = args.pop("Collective name", None)
        if not kind:
            continue
        for key in ("Src Rank", "Dst Rank", "External id"):
            args.pop(key, None)
        name = (
            f"nccl:send {own}->{peers[kind]}"
            if kind == "send"
            else f"nccl:recv {own}<-{peers[kind]}"
        )
        if on_gpu:
            maker.add(
                "gpu_user_annotation", name, event["ts"] - 0.001, event["dur"] + 0.002, stream=45
            )
        else:
            maker.span(name, event["ts"] - 1, 20)


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_annotation_around_kernel_or_launch_stands_in_for_both(tmp_path, on_gpu):
    for maker in ring(4):
        peers = {"send": (maker.rank + 1) % 4, "recv": (maker.rank - 1) % 4}
        annotated(maker, maker.rank, peers, on_gpu)
        maker.write(tmp_path)
    assert [e["pairs"] for e in analysed(only_case(tmp_path))["p2p"]] == [5, 5, 5, 3]


def test_annotations_number_ranks_in_their_group_so_tp_lanes_stay_apart(tmp_path):
    for pp, maker in enumerate(ring(2)):
        for tp in range(2):
            lane = TraceMaker(2 * pp + tp, 4, pid=600 + 2 * pp + tp)
            lane.events = [{**event, "args": dict(event["args"])} for event in maker.events]
            annotated(lane, pp, {"send": 1 - pp, "recv": 1 - pp}, on_gpu=True)
            lane.write(tmp_path, f"CASE-TP-{tp}-PP-{pp}.trace.json.gz")
    facts = analysed(only_case(tmp_path))
    assert {(e["src"], e["dst"], e["tp"]): e["pairs"] for e in facts["p2p"]} == {
        (0, 1, 0): 5,
        (0, 1, 1): 5,
        (1, 0, 0): 5,
        (1, 0, 1): 5,
    }


def test_global_peer_ranks_keep_tp_lanes_apart(tmp_path):
    for pp, maker in enumerate(ring(2)):
        for tp in range(2):
            lane = TraceMaker(2 * pp + tp, 4)
            lane.events = [{**event, "args": dict(event["args"])} for event in maker.events]
            for event in lane.events:
                for side in ("Src Rank", "Dst Rank"):
                    if side in event["args"]:
                        event["args"][side] = 2 * event["args"][side] + tp
            lane.write(tmp_path, f"CASE-TP-{tp}-PP-{pp}.trace.json.gz")
    edges = analysed(only_case(tmp_path))["p2p"]
    assert sorted((e["src"], e["dst"], e["tp"], e["pairs"]) for e in edges) == [
        (0, 1, 0, 5),
        (0, 1, 1, 5),
        (1, 0, 0, 5),
        (1, 0, 1, 5),
    ]


def test_p2p_without_metadata_is_counted_and_never_guessed(tmp_path):
    makers = ring(2)
    for maker in makers:
        for _ in range(3):
            maker.kernel("ncclDevKernel_SendRecv(x)", 50_000, 10, 999_999)
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    assert facts["p2p_without_metadata"] == {"0": 3, "1": 3}
    assert [e["pairs"] for e in facts["p2p"]] == [5, 5]
    assert sum("do not say who their peer is" in text for text in facts["warnings"]) == 2


def test_messages_of_two_process_groups_are_two_queues(tmp_path):
    """Group 12 is received in another order relative to group 11 than it was sent."""
    first, second = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(8):
        first.p2p("send", 1, 1000 * n, 10)
        first.p2p("send", 1, 1000 * n + 20, 10, **{"Process Group Name": "12"})
        second.p2p("recv", 0, 1000 * n + 30, 10, **{"Process Group Name": "12"})
        second.p2p("recv", 0, 1000 * n + 50, 10)
    for maker in (first, second):
        maker.write(tmp_path)
    (edge,) = analysed(only_case(tmp_path))["p2p"]
    assert edge["pairs"] == 16
    assert [(c["group"], c["offset"]) for c in edge["channels"]] == [("11", 0), ("12", 0)]


def test_gloo_is_paired_by_the_same_code_requests_apart(tmp_path):
    first, second = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(8):
        at = 1000 * n
        first.span("send_reqs_to_next_stage", at, 15)
        first.span("gloo:send", at + 1, 700)
        first.add(
            "user_annotation",
            "gloo:send",
            at + 20,
            700,
            **{"Input Dims": [[4, 2]], "Input type": ["long int"]},
        )
        second.add(
            "user_annotation",
            "gloo:recv",
            at + 60,
            40,
            **{"Input Dims": [[8]], "Input type": ["long int"]},
        )
        second.span("recv_requests", at + 200, 50)
        second.span("gloo:recv", at + 201, 40)
    for maker in (first, second):
        maker.write(tmp_path)
    facts = analysed(only_case(tmp_path))
    assert facts["p2p_gloo"] == []
    (edge,) = facts["p2p"]
    assert edge["backend"] == "gloo"
    assert {c["group"]: (c["offset"], c["pairs"]) for c in edge["channels"]} == {
        "requests": (0, 8),
        "tensors": (0, 8),
    }
    assert edge["transfer_us"]["max"] <= 41
    assert any("no GPU kernels" in text for text in facts["warnings"])


def test_causality_both_ways_bounds_the_clocks(tmp_path):
    for maker in ring(3, steps=8):
        maker.write(tmp_path)
    most = bounds(edges_of(only_case(tmp_path)), [0, 1, 2])
    for row in of_all_pairs(most, [0, 1, 2]):
        assert row.low_us < 0 < row.high_us


def test_a_clock_ahead_moves_its_interval_by_as_much(tmp_path):
    plain, moved = tmp_path / "plain", tmp_path / "moved"
    for folder, ahead in ((plain, 0), (moved, 15)):
        folder.mkdir()
        for maker in ring(2, steps=8):
            maker.base_ns += 1000 * ahead * maker.rank
            maker.write(folder)
    (before,), (after,) = (
        of_all_pairs(bounds(edges_of(only_case(f)), [0, 1]), [0, 1]) for f in (plain, moved)
    )
    assert after.low_us - before.low_us == pytest.approx(15)
    assert after.high_us - before.high_us == pytest.approx(15)


def hosts_apart(folder: Path, ahead_us: int, jitter_us: float) -> list[TraceMaker]:
    """Two ranks on two hosts; the second's clock is ahead."""
    makers = ring(2, steps=14, period_us=3000, jitter_us=jitter_us)
    for maker in makers:
        maker.header = {"host_name": f"node{maker.rank}"}
        maker.base_ns += 1000 * ahead_us * maker.rank
        maker.write(folder)
    return makers


def test_several_hosts_are_told_with_the_interval_their_waits_are_good_to(tmp_path):
    hosts_apart(tmp_path, 0, jitter_us=30)
    facts = analyze(only_case(tmp_path))
    assert facts.hosts == ["node0", "node1"]
    for edge in facts.p2p:
        assert edge.pairs == 13
        assert edge.clock_us.low_us < 0 < edge.clock_us.high_us
    assert any("2 hosts" in line for line in lines(facts))


def test_hosts_whose_steps_are_all_alike_are_not_paired_by_guess(tmp_path):
    hosts_apart(tmp_path, 0, jitter_us=0)
    facts = analysed(only_case(tmp_path))
    assert [edge["pairs"] for edge in facts["p2p"]] == [0, 0]
    assert all("both fit: the receiver's clock may be" in e["unpairable"] for e in facts["p2p"])


def test_an_edge_whose_lags_vary_is_paired_by_the_clocks_that_another_edge_tells(tmp_path):
    first, _ = hosts_apart(tmp_path, 1500, jitter_us=30)
    for n, event in enumerate(first.events):
        if event["args"].get("Collective name") == "recv":
            event["dur"] += n * 37 % 500
    first.write(tmp_path)
    there, back = analysed(only_case(tmp_path))["p2p"]
    assert (there["pairs"], there["offset"]) == (13, -1)
    assert (back["pairs"], back["offset"]) == (13, 1)


def clocks_apart(folder: Path, ahead_us: int, host: str) -> list[dict[str, Any]]:
    """The edges of two ranks that send every ms or so, the second's clock ahead."""
    for maker in ring(2, steps=14, period_us=1000, jitter_us=30):
        maker.header = {"host_name": host} if host else {}
        maker.base_ns += 1000 * ahead_us * maker.rank
        maker.write(folder)
    return analysed(only_case(folder))["p2p"]


@pytest.mark.parametrize("ahead_us", [-900, -400, 400, 900])
@pytest.mark.parametrize("host", ["", "node"])
def test_clocks_that_only_lags_tell_of_are_told_by_them(tmp_path, ahead_us, host):
    edges = clocks_apart(tmp_path, ahead_us, host)
    assert [(e["pairs"], e["offset"]) for e in edges] == [(13, -1), (13, 1)]


def test_an_edge_that_a_slow_clock_would_shift_by_a_turn_is_paired_by_the_other_edges_lags():
    """Messages 600 us late every 900 us, the sender 400 us behind: a recv before looks nearer."""
    starts = [900 * n + n**3 % 31 * 3 for n in range(20)]
    late = [start + 650 + n * 37 % 90 for n, start in enumerate(starts)]
    ours = sends(*starts)
    moved = [op("recv", s.start_ns / 1e3 - 400, s.end_ns / 1e3 - 400) for s in ours]
    back = edge_between(1, 0, sends(*(start - 400 for start in starts)), recvs(*late, dur=100))
    assert pair_queues(back.channels[0].queues).offset == -1
    edges = pair_edges([edge_between(0, 1, ours, moved), back])
    assert [edge.channels[0].pairing.offset for edge in edges] == [0, 0]


def test_lags_that_contradict_each_other_leave_both_edges_unpaired():
    starts = [5000 * n + n**3 % 31 * 30 for n in range(20)]
    ours = sends(*starts)
    behind = [op("recv", s.start_ns / 1e3, s.end_ns / 1e3 - 700) for s in ours]
    edges = pair_edges([edge_between(0, 1, ours, behind), edge_between(1, 0, ours, behind)])
    assert [edge.channels[0].pairing.pairs for edge in edges] == [[], []]
    assert all("contradict" in edge.channels[0].pairing.reason for edge in edges)


def test_a_merged_file_that_sglang_left_in_the_folder_is_no_rank(tmp_path):
    for maker in ring(2):
        maker.write(tmp_path)
    ring(2)[0].write(tmp_path, "merged-CASE.trace.json.gz")
    assert [rank.pp for rank in only_case(tmp_path).ranks] == [0, 1]


def test_kernels_of_one_name_for_all_collectives_are_told_apart_by_their_metadata(tmp_path):
    for maker in ring(2):
        for event in maker.events:
            event["name"] = event["name"].replace("SendRecv", "Generic")
        maker.kernel("ncclDevKernel_Generic(x)", 50_000, 10, 77, **{"Collective name": "allreduce"})
        maker.write(tmp_path)
    case = only_case(tmp_path)
    assert [e["pairs"] for e in analysed(case)["p2p"]] == [5, 5]
    assert all(rank.unlabelled_p2p == 0 for rank in case.ranks)
    assert all(rank.kernels.times.max() >= 50_000_000 for rank in case.ranks)
