"""The analysis of real traces of each release against a reading of the raw events."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from release_traces import RELEASES, events_of, last_rank, recorded_by_all
from trace_changes import DATA, covered, end
from trace_changes import analysis_of as facts_of

from repro_pp_graphs.traces.explain.conclusion import conclusion
from repro_pp_graphs.traces.explain.token_return_words import verdict

pytestmark = pytest.mark.slow


def sends_by_hand(path: Path) -> list[tuple[float, float]]:
    """Begin and end of each token send, us, read from the raw events of the last rank.

    Annotated where sglang annotates it. Else from the operator around the last copy from pageable
    memory, where the metadata goes over NCCL, or the first send of three, to the last of three.
    """
    events = events_of(path)
    marked = [
        e
        for e in events
        if e["name"] == "send_res_dict_to_next_stage" and e["cat"] == "user_annotation"
    ]
    if marked:
        return [(e["ts"], end(e)) for e in marked]
    sends = sorted((e for e in events if e["name"] == "c10d::send"), key=lambda e: e["ts"])
    uploads = {e["args"]["correlation"] for e in events if "Pageable -> Device" in e["name"]}
    copies = [e for e in events if e["name"] == "cudaMemcpyAsync"]
    starts = [e["ts"] for e in copies if e["args"]["correlation"] in uploads]
    on_device = any(
        e["name"].startswith("nccl")
        and e["args"].get("dtype") == "Byte"
        and "Dst Rank" in e["args"]
        for e in events
    )
    outer = [e for e in events if e["name"] == "aten::to"]
    found = []
    for first, _, third in zip(sends[::3], sends[1::3], sends[2::3], strict=False):
        begin = first["ts"]
        if on_device:
            before = [moment for moment in starts if moment < begin]
            if not before:
                continue
            begin = next(e["ts"] for e in outer if e["ts"] <= before[-1] <= end(e))
        found.append((begin, end(third)))
    return found


@pytest.mark.parametrize("name", RELEASES)
def test_the_send_takes_what_the_raw_events_say(name):
    first, last = recorded_by_all(name)
    sends = [(a, b) for a, b in sends_by_hand(last_rank(name)) if first <= a and b <= last]
    kernels = [e for e in events_of(last_rank(name)) if e["cat"] == "kernel"]
    launches = Counter(kernel["args"]["correlation"] for kernel in kernels)
    ours = [kernel for kernel in kernels if not kernel["name"].startswith("nccl")]
    compute = [(kernel["ts"], end(kernel)) for kernel in ours]
    graph = [(k["ts"], end(k)) for k in ours if launches[k["args"]["correlation"]] > 1]
    by_hand = {
        "send": [b - a for a, b in sends],
        "overlapped_with_graph": [covered(graph, a, b) for a, b in sends],
        "idle": [b - a - covered(compute, a, b) for a, b in sends],
    }
    told = facts_of(name).token_return
    # where the file is cut inside a send, its last kernel is missing and the send does not count
    all_whole = told.steps_counted == len(sends)
    assert all_whole or told.steps_counted == len(sends) - 1
    for key, values in by_hand.items():
        mean = pytest.approx(sum(values) / len(values), abs=2 if all_whole else 20)
        assert getattr(told.host_us, key).mean == mean, key


@pytest.mark.parametrize(("name", "expected"), RELEASES.items())
def test_how_sends_behave_and_what_they_wait_for_is_told(name, expected):
    facts = facts_of(name)
    assert (facts.sends, verdict(facts)) == expected


@pytest.mark.parametrize("name", RELEASES)
def test_a_turn_is_shared_out_without_a_rest(name):
    facts = facts_of(name)
    assert not facts.turns_unknown
    assert len(facts.turns) == facts.pp_size
    for turn in facts.turns.values():
        parts = [row.mean for row in turn.rows.values()]
        assert sum(parts) == pytest.approx(turn.mean, abs=0.1)
        assert turn.rows["other_messages"].mean <= 0.05 * turn.mean
        for row in turn.rows.values():
            assert sum(row.waits.values()) <= row.mean + 0.1


def test_a_receive_waits_for_its_own_send_whatever_else_is_under_way():
    """By the raw files, whose messages are numbered: the rank's own sends, which nobody has taken
    yet, do not make the send late that it waits for."""
    (first, second) = (
        msgspec.json.decode(gzip.decompress(path.read_bytes()))
        for path in sorted((DATA / "cpu_numbered").iterdir())
    )
    base = [each["baseTimeNanoseconds"] / 1e3 for each in (first, second)]
    events = sorted((e for e in first["traceEvents"] if e.get("ph") == "X"), key=lambda e: e["ts"])
    received: dict[str, tuple[float, float]] = {}
    for at, event in enumerate(events):
        if event["name"].startswith("pp_clock:recv 1->0 "):
            op = next(each for each in events[at:] if each["name"] == "gloo:recv")
            begin = base[0] + op["ts"]
            received[event["name"].split("#")[1]] = begin, begin + op["dur"]
    begun = {
        event["name"].split("#")[1]: base[1] + event["ts"]
        for event in second["traceEvents"]
        if str(event.get("name")).startswith("pp_clock:send 1->0 ")
    }
    pairs = [(*received[number], begun[number]) for number in received if number in begun]
    late = [max(0.0, min(end, sent) - begin) for begin, end, sent in pairs]
    moving = [end - max(begin, min(end, sent)) for begin, end, sent in pairs]
    turn = facts_of("cpu_numbered").turns["0"]
    waits = {cause: us * turn.turns for cause, us in turn.rows["token_recv"].waits.items()}
    # the turns begin after the first message
    assert waits["peer_late"] == pytest.approx(sum(late[3:]), abs=100)
    assert waits["transfer"] == pytest.approx(sum(moving[3:]), abs=100)


def test_releases_0_5_3_to_0_5_6_wait_in_the_next_receive():
    facts = facts_of("sglang056_graphs_on")
    assert facts.turns["1"].rows["token_recv"].waits["peer_late"] > 20_000
    assert facts.token_return.host_us.send.mean < 1000
    assert "PP1's host in the receive of token ids" in " ".join(conclusion(facts))


@pytest.mark.parametrize("name", RELEASES)
def test_a_decode_step_takes_the_time_from_one_message_of_a_micro_batch_to_its_next(name):
    """By hand: every m-th message of hidden states of rank 0 is of the same micro-batch."""
    step = facts_of(name).decode_step
    kernels = [
        e
        for e in events_of(min((DATA / name).iterdir()))
        # of a batch the kernel says nothing, what was asked for does
        if e["name"].startswith("record_param" if name.endswith("batched_p2p") else "nccl")
        and e["args"].get("dtype") == "BFloat16"
        and "Dst Rank" in e["args"]
    ]
    moments = sorted(e["ts"] for e in kernels)[::2]  # hidden states and residual
    m = step.micro_batches
    gaps = sorted(b - a for a, b in zip(moments, moments[m:], strict=False))
    assert step.median == pytest.approx(gaps[len(gaps) // 2], rel=0.05)
    assert m == {"sglang052_pp4": 4, "h200_case_A": 3, "h200_case_B": 3}.get(name, 2)


def test_batches_and_sizes_are_known_without_annotations():
    for row in facts_of("sglang052_graphs_on").ranks.values():
        assert row.batches >= 12
        assert set(row.decode_batch_sizes) == {"8"}


def test_a_loop_deeper_than_its_ranks_has_no_known_number_of_micro_batches():
    """--pp-async-batch-depth 1: three micro-batches in two ranks, by the client's prompts."""
    facts = facts_of("sglang0516_async_depth")
    assert facts.decode_step is None
    assert "--pp-async-batch-depth" in " ".join(conclusion(facts))
    assert facts.ring.micro_batches is facts.ring.ideal_bubble_fraction is None


def test_a_send_of_a_batch_that_was_launched_before_the_recording_does_not_count():
    """--pp-async-batch-depth 1: the first recorded send is of the batch before the first launch."""
    found = facts_of("sglang0516_async_depth").token_return
    assert found.gaps == {"the batch was launched before the recording": 1}
    assert found.steps_counted == found.steps_there - 1
    assert found.host_us.idle.max < 50


def test_prefill_steps_are_left_out_and_counted():
    """A profile of sglang 0.5.21 on a CPU that begins before the load: 3 prefills, then decode."""
    facts = facts_of("cpu_prefill")
    told = facts.token_return
    marks = Counter(
        event["name"].split("[")[1].split()[0]
        for event in events_of(last_rank("cpu_prefill"))
        if event["name"].startswith("step[")
    )
    assert (marks["EXTEND"], told.prefill_steps) == (3, 3)
    assert marks["DECODE"] - 2 <= told.steps_counted <= marks["DECODE"]
    assert facts.ranks["1"].decode_batch_sizes == {"4": marks["DECODE"]}
    assert "3 prefill steps left out" in " ".join(conclusion(facts))
