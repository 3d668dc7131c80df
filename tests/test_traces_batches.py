"""Kernels of a batch_isend_irecv: what is sent and received in each, held against the raw events of
a real run (0.5.16 with the shim batched_p2p, two H100s, cut), and against made-up ones."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import DATA, Event, analysis_of, covered, end, only_case, texts, with_events

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.pair.edges import edges_of
from repro_pp_graphs.traces.path.what_if import REMEDIES
from repro_pp_graphs.traces.path.whole_analysis import explained
from repro_pp_graphs.traces.rank_trace import P2POp
from repro_pp_graphs.traces.read.identity import Identity
from repro_pp_graphs.traces.read.peers import (
    COALESCED,
    Asked,
    Label,
    LaunchSite,
    Mark,
    P2PKernel,
    label_kernels,
)

NAME = "sglang0516_batched_p2p"


@cache
def facts() -> Analysis:
    return analysis_of(NAME)


def events_of(rank: int) -> list[Event]:
    text = list(texts(NAME).values())[rank]
    return [e for e in msgspec.json.decode(text)["traceEvents"] if "dur" in e]


@cache
def exchanges(rank: int) -> list[dict[str, Any]]:
    """A rank's exchanges, read by hand: kernel, sglang's annotation around it, the numbers of the
    messages that gloo carried for it, and what was asked of NCCL; us on one clock."""
    events = events_of(rank)
    events.sort(key=lambda e: e["ts"])
    kernels = {
        e["args"]["correlation"]: e
        for e in events
        if e["cat"] == "kernel" and "SendRecv" in e["name"]
    }
    calls = [e for e in events if e["cat"] == "cuda_driver"]
    calls = [e for e in calls if e["args"]["correlation"] in kernels]
    spans = [e for e in events if e["name"] == "send_res_dict_to_next_stage"]
    found, since = [], 0.0
    for call in calls:
        inside = [e for e in events if since < e["ts"] < call["ts"] and "gpu" not in e["cat"]]
        numbers = [e["name"] for e in inside if re.match(r"pp_clock:\w+ \S+ pp_cpu #", e["name"])]
        around = [(e["ts"], end(e)) for e in spans if e["ts"] <= call["ts"] <= end(e)]
        kernel = kernels[call["args"]["correlation"]]
        asked_in = [e for e in inside if "Rank" in str(e["args"])]
        found.append(
            {
                "host": (min([e["ts"] for e in asked_in], default=0.0) - 1, end(call) + 1),
                "tid": call["tid"],
                "kernel": (kernel["ts"], end(kernel)),
                "span": around[0] if around else None,
                "numbers": {re.sub(r"pp_clock:\w+ ", "", name) for name in numbers},
                "asked": [
                    (e["args"]["Collective name"], e["args"]["dtype"], e["args"]["In msg nelems"])
                    for e in inside
                    if e["name"] == "record_param_comms" and "Rank" in str(e["args"])
                    and e["args"].get("Collective name") in ("send", "recv")
                ],
            }
        )  # fmt: skip
        since = call["ts"]
    return found


def both_ends() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each exchange of rank 1 with that of rank 0 that the same messages over gloo are of."""
    return [
        (ours, theirs)
        for ours in exchanges(1)
        for theirs in exchanges(0)
        if ours["numbers"] == theirs["numbers"] and len(ours["numbers"]) == 4
    ]


def batches(ops: list[P2POp]) -> list[list[P2POp]]:
    found: dict[int, list[P2POp]] = {}
    for op in ops:
        if op.batch:
            found.setdefault(op.batch, []).append(op)
    return sorted(found.values(), key=lambda ops: ops[0].start_ns)


def test_a_kernel_is_what_was_asked_for_in_its_batch():
    for rank in only_case(DATA / NAME).ranks:
        by_hand = [each for each in exchanges(rank.pp) if len(each["asked"]) == 4]
        assert len(by_hand) >= 17 and rank.unlabelled_p2p <= 1
        found = batches(rank.p2p)
        kinds = [[(op.kind, op.dtype, op.elements) for op in ops] for ops in found]
        assert kinds == [each["asked"] for each in by_hand]
        assert {op.peer for ops in found for op in ops} == {1 - rank.pp}
        assert all(len({(op.start_ns, op.end_ns) for op in ops}) == 1 for ops in found)


def test_the_pairs_are_those_of_the_messages_sizes():
    """gloo's are numbered: a pair of kernels is of one exchange where those of its sizes are."""
    case = only_case(DATA / NAME)
    base = {rank.pp: rank.base_ns for rank in case.ranks}
    expected = {
        (round(theirs["kernel"][0] * 1000) + base[0], round(ours["kernel"][0] * 1000) + base[1])
        for ours, theirs in both_ends()
    }
    assert len(expected) >= 16
    analysis = explained(case)
    assert {(edge.src, edge.dst, edge.pairs) for edge in analysis.p2p} == {
        (0, 1, 3 * len(expected)), (1, 0, len(expected))
    }  # fmt: skip
    for edge in edges_of(case):
        if edge.backend == "nccl":
            ends = {(send.start_ns, recv.start_ns) for send, recv in edge.paired()}
            assert ends == (expected if edge.src_rank == 0 else {(b, a) for a, b in expected})


def test_the_last_byte_has_left_by_the_end_of_the_kernel():
    events = events_of(1)
    compute = [
        (e["ts"], end(e))
        for e in events
        if e["cat"] == "kernel" and not e["name"].startswith("nccl")
    ]
    lengths, idle, own = [], [], []
    for ours, theirs in both_ends():
        begin, back = ours["span"]
        left = max(ours["kernel"][0], min(ours["kernel"][1], theirs["kernel"][1]))
        over = max(back, left)
        lengths.append(over - begin)
        idle.append(over - begin - covered(compute, begin, over))
        own.append(ours["kernel"][1] - ours["kernel"][0])
    told = facts().token_return
    assert told.delivery_known and told.delivered_counted in (len(lengths), len(lengths) + 1)
    assert told.delivery_us.send.mean == pytest.approx(sum(lengths) / len(lengths), abs=60)
    assert told.delivery_us.idle.mean == pytest.approx(sum(idle) / len(idle), abs=30)
    # how good that is: it cannot have left before the kernel began
    assert sum(own) / len(own) < 0.01 * told.delivery_us.send.mean


def test_the_way_round_the_ring_is_followed_through_batches():
    analysis = explained(only_case(DATA / NAME), {"token_send": REMEDIES["token_send"]})
    path = analysis.ring_path
    assert path is not None and path.micro_batches == 2
    assert sum(part.mean for part in path.categories.values()) == pytest.approx(path.step_us.mean)
    assert path.categories["unexplained"].mean + path.categories["peer_late"].mean < 100
    assert path.retimed_us == pytest.approx(path.steady_us, rel=0.01)
    # what the token ids cost alone is not known: they go with what is received
    assert not {"token_send", "comm_stream", "batched_p2p"} & path.what_if.keys()
    assert "in one batch" in analysis.what_if_not_given["token_send"]
    text = " ".join(" ".join(lines(analysis)).split())
    assert "no what-if for token_send: token ids go in one batch" in text
    assert "launch=0: launching took no time" in text
    assert re.search(
        r"has left after 20\.6\d to 20\.6\d ms \(the batch is one kernel: when in", text
    )
    assert "the send holds" not in text


def test_an_exchange_is_a_row_of_its_own_on_every_rank():
    for label, turn in facts().turns.items():
        spans = [each["span"] for each in exchanges(int(label)) if each["span"]]
        mean = sum(b - a for a, b in spans) / len(spans)
        assert turn.rows["exchange"].mean == pytest.approx(mean, rel=0.05)
        assert "token_send" not in turn.rows or turn.rows["token_send"].mean == 0


def later(event: Event) -> Event:
    """The kernels of batches from 5 ms before they began on: of a rank that waits for another."""
    if "SendRecv" in event["name"] or event["cat"] == "gpu_user_annotation":
        return {**event, "ts": event["ts"] - 5000, "dur": event["dur"] + 5000}
    return event


def test_of_a_send_in_a_long_kernel_it_is_not_said_when_it_was_over(tmp_path):
    for file, text in texts(NAME).items():
        (tmp_path / file).write_text(with_events(text, lambda e: later(e) if "dur" in e else e))
    found = analyze(only_case(tmp_path))
    assert found.sends == "batched" and not found.token_return.delivery_known
    text = " ".join(" ".join(lines(found)).split())
    assert "when the last byte has left (it goes in one kernel with what is received" in text
    assert "until the last byte" not in text


def test_a_batch_of_rccl_whose_kernels_have_no_name_of_their_own_is_read_too(tmp_path):
    for file, text in texts(NAME).items():
        (tmp_path / file).write_text(
            text.replace("ncclDevKernel_SendRecv", "ncclDevKernel_Generic")
        )
    found, before = analyze(only_case(tmp_path)), facts()
    assert found.token_return == before.token_return and found.p2p == before.p2p


# made up: what was asked for, the annotation in which the batch is launched, its kernel


def asked(ts: float, side: str = "send", group: str = "7", thread: int = 1) -> Asked:
    label = Label(side, 8, "Long", 1 - (side == "send"), int(side == "send"), group)
    return Asked(ts, ts + 1, int(ts), thread, label)


def kernel(ts: float, correlation: int) -> P2PKernel:
    return P2PKernel(ts, 5.0, 0, 20, correlation, -1, Label())


def labelled(site: LaunchSite, kernels: list[P2PKernel]) -> tuple[list[list[str]], int]:
    site.sort()
    who = Identity("made up", pp=0, tp=0, pp_size=2, tp_size=1)
    ops, unlabelled = label_kernels(kernels, site, who, lambda ts: round(ts * 1000))
    return [[op.kind for op in batch] for batch in batches(ops)], unlabelled


def site_of(*marks: float, each: tuple[Asked, ...], calls: dict[int, float]) -> LaunchSite:
    host = [Mark(ts, ts + 5, COALESCED, int(ts), 1) for ts in marks]
    return LaunchSite(asked=list(each), host=host, calls=calls)


def two() -> tuple[Asked, ...]:
    return asked(10), asked(12, "recv"), asked(110), asked(112, "recv")


def test_each_batch_has_what_was_asked_for_before_it():
    site = site_of(20, 120, each=two(), calls={1: 22, 2: 122})
    assert labelled(site, [kernel(30, 1), kernel(130, 2)]) == ([["send", "recv"]] * 2, 0)


def test_without_the_annotation_of_a_batch_the_next_one_has_not_what_that_sent():
    site = site_of(120, each=two(), calls={1: 22, 2: 122})
    assert labelled(site, [kernel(30, 1), kernel(130, 2)]) == ([], 2)
    # nor where its kernel is missing too, but a graph was launched in between
    site = site_of(120, each=two(), calls={2: 122})
    site.graphs = [60.0]
    assert labelled(site, [kernel(130, 2)]) == ([], 1)


def test_of_a_batch_of_two_kernels_it_is_not_known_which_one_does_what():
    site = site_of(20, each=two()[:2], calls={1: 22, 2: 23})
    assert labelled(site, [kernel(30, 1), kernel(36, 2)]) == ([], 2)


def test_what_another_thread_asks_for_is_not_of_the_batch():
    others = asked(14, thread=2), asked(15, "recv", thread=2)
    site = site_of(20, each=(*two()[:2], *others), calls={1: 22})
    assert labelled(site, [kernel(30, 1)]) == ([["send", "recv"]], 0)


def test_a_send_before_the_batch_over_another_group_is_not_of_it():
    site = site_of(20, each=(asked(8, group="3"), *two()[:2]), calls={1: 22})
    assert labelled(site, [kernel(30, 1)]) == ([["send", "recv"]], 0)


def test_a_send_with_an_annotation_of_its_own_is_not_of_the_batch():
    site = site_of(20, each=(asked(8), *two()[:2]), calls={1: 22})
    site.host.append(Mark(8.5, 8.8, "nccl:send 0->1", 8, 1))
    assert labelled(site, [kernel(30, 1)]) == ([["send", "recv"]], 0)


def test_an_operation_that_names_no_peer_leaves_the_whole_batch_unknown():
    lone = asked(10)._replace(label=Label("send", 8, "Long", None, None, "7"))
    site = site_of(20, each=(lone, asked(12, "recv")), calls={1: 22})
    assert labelled(site, [kernel(30, 1)]) == ([], 1)


def test_kernels_of_which_nothing_is_known_leave_the_end_of_the_sends_unknown(tmp_path: Path):
    for file, text in texts(NAME).items():
        without = with_events(text, lambda e: None if e["name"] == "record_param_comms" else e)
        (tmp_path / file).write_text(without)
    found = analyze(only_case(tmp_path))
    assert found.sends == "unknown" and set(found.p2p_without_metadata) == {"0", "1"}
    assert not found.token_return.delivery_known and found.decode_step is None


# numbers of pp_clock: one annotation for all messages of a batch


def numbered(folder: Path, skip: int = 0) -> Path:
    """The real traces with the annotation that pp_clock has around each batch; of rank 1's so many
    of the last messages left out."""
    folder.mkdir()
    for rank, (file, text) in enumerate(texts(NAME).items()):
        document = msgspec.json.decode(text)
        for each in exchanges(rank):
            found = [int(name.split("#")[1]) for name in each["numbers"] if name.startswith("0->1")]
            if not found or len(each["asked"]) < 4:
                continue
            # gloo's numbers tell which exchange it is, on either rank
            at, counts, names = max(found), Counter[int](), []
            for kind, _, _ in each["asked"]:
                src = rank if kind == "send" else 1 - rank
                number = 10 * at + counts[src]
                counts[src] += 1
                names.append(f"{kind} {src}->{1 - src} pp #{number}")
            names = names[: len(names) - skip * rank]
            first, over = each["host"]
            document["traceEvents"].append({
                "ph": "X", "cat": "user_annotation", "pid": rank, "tid": each["tid"], "args": {},
                "name": f"pp_clock:{', '.join(names)}", "ts": first, "dur": over - first,
            })  # fmt: skip
        (folder / file).write_bytes(msgspec.json.encode(document))
    return folder


def test_the_numbers_of_a_batch_pair_its_messages(tmp_path):
    plain, found = facts(), analyze(only_case(numbered(tmp_path / "n")))
    for edge, before in zip(found.p2p, plain.p2p, strict=True):
        assert edge.by_number is not None and edge.by_number.other == 0
        assert edge.by_number.pairs == edge.by_number.same == before.pairs
    assert found.token_return == plain.token_return and found.turns == plain.turns


def test_an_annotation_of_other_messages_than_the_batch_has_gives_no_numbers(tmp_path):
    found = analyze(only_case(numbered(tmp_path / "n", skip=1)))
    assert all(edge.by_number is None for edge in found.p2p)
    assert [edge.pairs for edge in found.p2p] == [edge.pairs for edge in facts().p2p]


def test_a_batch_over_gloo_is_known_by_its_numbers():
    """A rehearsal on a CPU, sglang 0.5.21: real torch and gloo."""
    found = explained(only_case(DATA / "cpu_batched"))
    assert found.sends == "batched" and not found.turns_unknown
    assert found.decode_step is not None and found.decode_step.micro_batches == 2
    assert all(turn.rows["exchange"].mean > 1000 for turn in found.turns.values())
    edges = {(edge.src, edge.dst): edge for edge in found.p2p}
    assert all(edge.by_number and edge.by_number.pairs == edge.pairs for edge in edges.values())
    # of each exchange three tensors, a size and its metadata go one way, a third of that the other
    assert edges[0, 1].sends > 1.5 * edges[1, 0].sends


def test_a_step_in_which_a_batch_is_missing_is_not_counted(tmp_path):
    """Without its annotation a batch's messages are not known, and the next one would seem to be
    the next of all; the others are paired by their numbers."""
    first = min(numbered(tmp_path / "n").iterdir())
    marks = [e["ts"] for e in events_of(0) if e["name"] == COALESCED and e["cat"][0] == "u"]
    missing = sorted(marks)[len(marks) // 2]
    first.write_text(
        with_events(first.read_text(), lambda e: None if e.get("ts") == missing else e)
    )
    found, whole = analyze(only_case(tmp_path / "n")).decode_step, facts().decode_step
    assert found is None or found.mean == pytest.approx(whole.mean, rel=0.02)
