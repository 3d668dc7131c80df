"""The analysis on real traces of each release, against a reading of the raw events, and with events
missing: the same answer, or "cannot tell".

The traces in data/traces are cut (cut.py) from runs on two H100s (0.5.2, 0.5.6.post2, 0.5.16; PP 2,
and PP 4 with two ranks a GPU) and on one H200 (0.5.16, four ranks).
"""

from __future__ import annotations

import gzip
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from examples import THOROUGH
from kept_traces import Rank, case_of, documents, ranks_of
from msgspec.structs import replace
from trace_changes import Event, covered, end, only_case
from trace_changes import analysis_of as facts_of

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.conclusion import conclusion
from repro_pp_graphs.traces.explain.token_return_words import CANNOT_TELL, verdict

pytestmark = pytest.mark.slow

DATA = Path(__file__).parent / "data" / "traces"

# folder -> how its sends behave, what the host waits for most in them
RELEASES = {
    "sglang052_graphs_on": ("on_device", "own_graph"),
    "sglang052_graphs_off": ("on_device", "own_compute"),
    "sglang052_pp4": ("on_device", "own_graph"),
    "sglang052_deepseek_on": ("on_device", "own_graph"),
    "sglang052_deepseek_off": ("on_device", "transfer"),
    "sglang056_graphs_on": ("synchronous", "peer_late"),
    "sglang0516_graphs_on": ("asynchronous", "no wait"),
    "sglang0516_sync_send": ("on_device", "own_graph"),
    # requests over NCCL, outside of any annotation of a message
    "sglang0516_sync_send_numbered": ("on_device", "own_graph"),
    "sglang0516_event_send_numbered": ("on_device", "peer_late"),
    "sglang0516_batched_p2p": ("batched", "no wait"),
    "h200_case_A": ("asynchronous", "no wait"),
    "h200_case_B": ("asynchronous", "no wait"),
}


# the beginning of what is said of each blocking send: by what is in the trace, not by the release
BLOCKING = {
    "sglang052_graphs_on": "The send blocks: its metadata is first copied to the GPU",
    "sglang052_graphs_off": "The send blocks: its metadata is first copied to the GPU",
    "sglang0516_sync_send": "The send blocks: its metadata is first copied to the GPU",
    "sglang0516_event_send_numbered": "The send's metadata is copied to the GPU, and the host does "
    "not wait for that",
}


def events_of(path: Path) -> list[Event]:
    return [e for e in documents(path.parent.name)[path.name]["traceEvents"] if "dur" in e]


def last_rank(name: str) -> Path:
    return max((DATA / name).iterdir())


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


def recorded_by_all(name: str) -> tuple[float, float]:
    """From the last rank's first kernel or copy to the first rank's last, us."""
    begins, ends = [], []
    for path in (DATA / name).iterdir():
        work = [e for e in events_of(path) if e["cat"] in ("kernel", "gpu_memcpy", "gpu_memset")]
        begins.append(min(e["ts"] for e in work))
        ends.append(max(map(end, work)))
    return max(begins), min(ends)


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


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_no_rank_is_said_to_wait_for_one_that_waits_for_it(name):
    """That would be a deadlock: what a rank mostly waits for is of other times."""
    text = " ".join(conclusion(facts_of(name)))
    first, _, behind = text.partition(" Meanwhile ")
    waits = [re.findall(r"PP(\d)'s host in", first)[-1:]] if behind else []
    for said in behind.partition(".")[0].split("; ") if behind else []:
        waits.append(re.findall(r"PP(\d) is in", said))
        whom = re.findall(r", for PP(\d) to", said)
        assert not [each for each in whom if [each] in waits], said


def test_the_share_of_a_wait_in_which_its_peer_waits_too_is_told():
    facts = facts_of("cpu_numbered")
    turns = dict(facts.turns)
    for label, late in (("0", 9000.0), ("1", 3000.0)):
        row = replace(
            turns[label].rows["token_recv"],
            waits={"peer_late": late},
            peer_in={"token_recv": late / 2, "launch": late / 4},
        )
        turns[label] = replace(turns[label], rows={**turns[label].rows, "token_recv": row})
    text = " ".join(conclusion(replace(facts, turns=turns)))
    assert (
        "for PP1 to send. Meanwhile PP1 is in the receive of token ids for 4.50 ms of these."
        in text
    )


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


def test_the_wait_behind_a_late_peer_is_followed_to_its_root():
    text = " ".join(conclusion(facts_of("sglang052_pp4")))
    assert (
        "Meanwhile PP1 is in the receive of token ids, for PP0 to send; PP0 is in the receive of "
        "token ids, for PP3 to send; PP3 is in the send of token ids, for its own decode graph."
    ) in text


def test_two_ranks_in_two_parts_of_one_message_are_not_said_to_wait_for_each_other():
    facts = facts_of("sglang052_pp4")
    last = facts.turns["3"]
    send = replace(last.rows["token_send"], waits={"transfer": 20_000.0})
    turns = {**facts.turns, "3": replace(last, rows={**last.rows, "token_send": send})}
    assert (
        "PP3 is in the send of token ids, but not yet at this part of the message (size, metadata "
        "and tensors go one after the other)."
    ) in " ".join(conclusion(replace(facts, turns=turns)))


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


def named(*names: str) -> Callable[[Event], bool]:
    return lambda event: event.get("name") in names


def categories(*names: str) -> Callable[[Event], bool]:
    return lambda event: event.get("cat") in names


REMOVALS: dict[str, Callable[[Event], bool]] = {
    "aten::to": named("aten::to"),
    "aten::_to_copy": named("aten::_to_copy"),
    "aten::copy_": named("aten::copy_"),
    "operators": categories("cpu_op"),
    "c10d operators": lambda event: str(event.get("name")).startswith("c10d::"),
    "graph launches": named("cudaGraphLaunch"),
    "annotations": categories("user_annotation", "gpu_user_annotation"),
    "sglang's annotations": named(
        "send_res_dict_to_next_stage",
        "recv_res_dict_from_prev_stage",
        "send_proxy_dict_to_next_stage",
        "recv_requests",
        "scheduler.recv_requests",
        "send_reqs_to_next_stage",
        "run_batch",
        "scheduler.run_batch",
    ),
    "annotation of the token send": named("send_res_dict_to_next_stage"),
    "gloo's annotations": lambda event: str(event.get("name")).startswith("gloo:"),
    "NCCL's annotations": lambda event: str(event.get("name")).startswith("nccl:"),
    "runtime calls": categories("cuda_runtime"),
    "driver calls": categories("cuda_driver"),
    "copies": named("cudaMemcpyAsync"),
    "copies on the GPU": categories("gpu_memcpy"),
    "NCCL kernels": lambda event: event.get("cat") == "kernel" and "SendRecv" in event["name"],
    "other kernels": lambda event: event.get("cat") == "kernel" and "SendRecv" not in event["name"],
}


def written(changed: dict[str, Rank], folder: Path) -> Analysis:
    """The analysis of some ranks' documents, through files."""
    for file, document in changed.items():
        (folder / file.removesuffix(".gz")).write_bytes(msgspec.json.encode(document))
    return analyze(only_case(folder))


def without(name: str, remove: Callable[[Event], bool]) -> Analysis:
    ranks = ranks_of(name)
    for document in ranks.values():
        document["traceEvents"] = [e for e in document["traceEvents"] if not remove(e)]
    return analyze(case_of(name, ranks))


@pytest.mark.parametrize("name", ["sglang056_graphs_on", "sglang052_pp4"])
def test_what_is_read_of_kept_events_is_what_is_read_of_a_file_of_them(name, tmp_path):
    """Tests here take events out of real traces that are decoded once (kept_traces.py)."""
    changed = ranks_of(name)
    for number, document in enumerate(changed.values()):
        document["host_name"] = f"host{number}"
        del document["traceEvents"][number::7]
    found, read = (
        replace(each, case="", warnings=[w.split(":")[1] for w in each.warnings])
        for each in (analyze(case_of(name, changed)), written(changed, tmp_path))
    )
    assert found == read
    (document, *_) = changed.values()
    with pytest.raises(TypeError, match="kept for other tests"):
        document["traceEvents"][0]["ts"] = 0
    document["traceEvents"][0] = dict(document["traceEvents"][0])
    with pytest.raises(KeyError):  # none of the file's
        case_of(name, changed)


def same_or_unknown(found: Analysis, whole: Analysis, slack: float) -> None:
    """No other number than before: within the slack, or not given."""
    if verdict(found) != CANNOT_TELL:
        assert verdict(found) == verdict(whole)
        told, before = found.token_return, whole.token_return
        host = told.host_us.send.mean
        assert host == pytest.approx(before.host_us.send.mean, rel=slack)
        if told.delivery_known:
            mean = before.delivery_us.send.mean
            assert told.delivery_us.send.mean == pytest.approx(mean, rel=slack)
    for label, turn in found.turns.items():
        assert turn.mean == pytest.approx(whole.turns[label].mean, rel=slack)
        if "launch" in turn.rows:  # else operators and Python are one row
            for row in ("launch", "python"):
                before = whole.turns[label].rows[row].mean
                assert turn.rows[row].mean == pytest.approx(before, rel=0.3, abs=100)
    if found.decode_step:
        mean = whole.decode_step.mean
        assert found.decode_step.mean == pytest.approx(mean, rel=slack)


# one of each way to send, and the one with four ranks
KINDS_REMOVED = [
    *("sglang052_pp4", "sglang056_graphs_on", "sglang0516_graphs_on", "sglang0516_batched_p2p")
]
if THOROUGH:
    KINDS_REMOVED = [name for name in RELEASES if not name.endswith(("_B", "_off"))]


@pytest.mark.slow
@pytest.mark.parametrize("kind", REMOVALS)
@pytest.mark.parametrize("name", KINDS_REMOVED)
def test_a_kind_of_event_removed_leaves_the_answer_or_none(name, kind):
    same_or_unknown(without(name, REMOVALS[kind]), facts_of(name), 0.05)


RANDOM = {
    "sends": lambda event: "send" in str(event.get("name")) or "Dst Rank" in event.get("args", {}),
    "launches": lambda event: "aunch" in str(event.get("name")),
    "operators": categories("cpu_op"),
    "calls": categories("cuda_runtime", "cuda_driver"),
    "annotations": categories("user_annotation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95] if THOROUGH else [0.3, 0.95])
@pytest.mark.parametrize("kind", RANDOM)
@pytest.mark.parametrize(
    "name", ["sglang052_graphs_on", "sglang0516_sync_send", "sglang0516_batched_p2p"]
)
def test_random_events_removed_never_turn_one_verdict_into_another(name, kind, share):
    dice = random.Random(f"{name} {kind} {share}")
    found = without(name, lambda e: RANDOM[kind](e) and dice.random() < share)
    assert verdict(found) in (verdict(facts_of(name)), CANNOT_TELL)


def on_clocks_apart(name: str, apart_us: int) -> Analysis:
    """The ranks on a host each, the clock of every other one ahead."""
    ranks = ranks_of(name)
    for number, document in enumerate(ranks.values()):
        document["host_name"] = f"host{number}"
        document["baseTimeNanoseconds"] += apart_us * 1000 * (number % 2)
    return analyze(case_of(name, ranks))


@pytest.mark.slow
@pytest.mark.parametrize("apart_us", [300, -300, 5000, -5000] if THOROUGH else [300, 5000, -5000])
@pytest.mark.parametrize("name", RELEASES)
def test_hosts_whose_clocks_differ_get_the_same_answer_or_none(name, apart_us):
    same_or_unknown(on_clocks_apart(name, apart_us), facts_of(name), 0.05)


def test_a_time_between_hosts_is_as_good_as_their_clocks_and_not_told_where_shorter():
    name = "sglang0516_graphs_on"
    found, true = on_clocks_apart(name, -5000), facts_of(name)
    text = " ".join(" ".join(lines(found)).split())
    within = re.search(r"2 hosts: clocks may differ by (\S+) ms", text)
    assert within and "its times are taken to be" in text
    times = found.token_return.until_received_us.mean, true.token_return.until_received_us.mean
    assert times[0] == pytest.approx(times[1], abs=float(within[1]) * 1e3)
    assert "has not started its receive" not in text


@pytest.mark.parametrize("missing", [0, -1])
@pytest.mark.parametrize("name", RELEASES)
def test_without_a_rank_the_others_are_explained_alike(name, missing):
    """Also where they wait for it while it writes its file: when that was is not known."""
    changed = ranks_of(name)
    del changed[list(changed)[missing]]
    found = analyze(case_of(name, changed))
    assert len(found.turns) == len(changed)
    for label, turn in found.turns.items():
        assert turn.mean == pytest.approx(facts_of(name).turns[label].mean, rel=0.1)
    assert found.decode_step is None
    assert "in the ranks with a trace" in (text := " ".join(conclusion(found))) or missing == 0
    if missing == 0:
        mean = facts_of(name).token_return.host_us.send.mean
        assert found.token_return.host_us.send.mean == pytest.approx(mean, rel=0.15)
    else:
        assert "Token return: not seen" in text


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


@pytest.mark.parametrize("name", ["sglang056_graphs_on", "sglang0516_graphs_on"])
def test_a_thread_with_more_operators_than_the_scheduler_is_not_taken_for_it(name, tmp_path):
    changed = {}
    for file, document in documents(name).items():
        events = document["traceEvents"]
        ours = [e for e in events if e.get("cat") == "cpu_op" and not e["name"].startswith("c10d")]
        others = [
            {**event, "name": "aten::add", "tid": 1, "ts": event["ts"] + 0.01 * n, "dur": 0.005}
            for event in ours
            for n in range(9)
        ]
        changed[file] = {**document, "traceEvents": [*events, *others]}
    same_or_unknown(written(changed, tmp_path), facts_of(name), 0.05)


def test_one_step_is_not_a_mean():
    name = "sglang052_graphs_on"
    begin = min(e["ts"] for e in events_of(last_rank(name)))
    found = without(name, lambda e: e.get("ts", begin) > begin + 30_000)
    assert found.token_return.steps >= 1
    assert verdict(found) == CANNOT_TELL
    assert not found.turns


def test_where_a_few_long_turns_make_up_the_mean_the_median_stands_beside_it(tmp_path):
    """All ranks stand still for 2 s in the middle, in no call."""
    name = "sglang0516_graphs_on"
    first, last = recorded_by_all(name)
    moment = (first + last) / 2

    def held(event: Event) -> Event:
        if "ts" not in event or event["ts"] + event.get("dur", 0) < moment:
            return event
        if event["ts"] >= moment:
            return {**event, "ts": event["ts"] + 2e6}
        return {**event, "dur": event["dur"] + 2e6}

    changed = {
        file: {**document, "traceEvents": [held(event) for event in document["traceEvents"]]}
        for file, document in documents(name).items()
    }
    median_us = facts_of(name).turns["1"].median
    assert f"; the median is {median_us / 1000:.2f} ms)" in " ".join(
        conclusion(written(changed, tmp_path))
    )


@pytest.mark.parametrize("name", RELEASES)
def test_the_printed_analysis_fits_80_columns_and_begins_with_what_was_seen(name):
    shown = [line for line in lines(facts_of(name)) if not line.startswith("warning: ")]
    assert max(map(len, shown)) <= 80
    text = " ".join(" ".join(shown).split())
    told = facts_of(name).token_return
    seen = f"{told.steps_counted} of PP{told.src}'s {told.steps_there} decode steps"
    assert seen in text
    order = ["recorded at once", "A decode step takes", "The longest wait", "Token return PP"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)


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


@pytest.mark.parametrize(("name", "says"), BLOCKING.items())
def test_a_send_over_nccl_is_said_to_block_only_where_the_copy_before_it_does(name, says):
    assert says in conclusion(facts_of(name))[0]


def test_without_the_copy_in_the_trace_a_wait_for_own_work_is_not_explained_away():
    facts = facts_of("sglang052_graphs_on")
    assert facts.token_return is not None
    returned = replace(facts.token_return, upload_us=None)
    said = conclusion(replace(facts, token_return=returned))[0]
    assert "is not in the trace" in said and "does not wait" not in said


@pytest.mark.parametrize(("name", "issue"), [("on", ["100", "30", "70"]), ("off", ["3"])])
def test_beside_a_case_without_graphs_stands_what_the_issue_has_without(name, issue):
    text = lines(facts_of(f"sglang052_graphs_{name}"))
    head = next(at for at, line in enumerate(text) if line.endswith("in #10865"))
    column = [line[58:].strip() for line in text[head + 1 : head + 4]]
    assert list(filter(None, column)) == issue


@pytest.mark.parametrize("name", ["sglang052_graphs_on", "sglang0516_graphs_on", "h200_case_B"])
def test_the_parts_of_a_sentence_add_up_to_what_it_is_about(name):
    """Those that it names, and the rest, of which less than 1 % may be left out."""
    text = " ".join(conclusion(facts_of(name)))
    idle = re.search(
        r"(?:without compute|none of them) for ([\d.]+ m?u?s)\. Its host spends these in "
        r"(.*?)\. [A-Z]",
        text,
    )
    path = re.search(r"critical path of ([\d.]+ m?u?s) from launch to launch: (.*?)\. [A-Z]", text)
    assert idle or path
    for whole, parts in (found.groups() for found in (idle, path) if found):
        times = [as_us(each) for each in re.findall(r"[\d.]+ [mu]s", parts)]
        assert sum(times) == pytest.approx(as_us(whole), rel=0.01, abs=5.0 * (len(times) + 1))


def as_us(text: str) -> float:
    value, unit = text.split()
    return float(value) * (1e3 if unit == "ms" else 1)
