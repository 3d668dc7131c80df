"""The analysis of real traces with events missing or moved, clocks apart, or without a rank: the
same answer as before, or "cannot tell".
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from examples import THOROUGH
from kept_traces import Rank, case_of, documents, ranks_of
from msgspec.structs import replace
from release_traces import RELEASES, events_of, last_rank, recorded_by_all
from trace_changes import Event, only_case
from trace_changes import analysis_of as facts_of

from repro_pp_graphs.traces.analysis_record import Analysis
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.conclusion import conclusion
from repro_pp_graphs.traces.explain.token_return_words import CANNOT_TELL, verdict

pytestmark = pytest.mark.slow


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
