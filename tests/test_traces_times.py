"""Impossible times are left out with one warning that counts them; numbers may be strings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("msgspec")

import msgspec
from merged_traces import crossings, faults, merged
from trace_changes import (
    DATA,
    REFERENCE,
    Event,
    facts_of,
    only_case,
    texts,
    undamaged,
    with_events,
    write,
)
from trace_maker import TraceMaker, ring

from repro_pp_graphs.traces.read.cases import cases_of, read_case

LAST = "CASE_A-TP-0-PP-3.trace.json"
THIRD = "CASE_A-TP-0-PP-2.trace.json"
FAR = "at ts 0 or more than an hour from the file's first"
PAST = "that reach past the next ones of their stream or thread"
EARLY = "that begin before the call that launched them"


@pytest.fixture(scope="module")
def whole_merged(tmp_path_factory):
    return merged(tmp_path_factory.mktemp("whole") / "out.json", DATA / REFERENCE)


@pytest.fixture(scope="module")
def whole_slices(whole_merged):
    return sorted(map(sliced, whole_merged["traceEvents"]))


def some(
    category: str, every: int, change: dict[str, Any], *names: str
) -> Callable[[Event], Event]:
    """A change of every so many events of a category (and of these names): its ts and dur, which
    may be functions of what they were."""
    count = 0

    def changed(event: Event) -> Event:
        nonlocal count
        if event.get("cat") != category or (names and event["name"] not in names):
            return event
        count += 1
        if count % every == 3:
            for key, value in change.items():
                event[key] = value(event[key]) if callable(value) else value
        return event

    return changed


def told(warnings: list[str]) -> list[str]:
    return [text.split("left out: ")[1] for text in warnings if "impossible times" in text]


def own(document: dict[str, Any]) -> int:
    """How many events of the ranks' own a merged trace has."""
    added = ("pipeline", "p2p", "path", None)
    return sum(event.get("cat") not in added for event in document["traceEvents"])


def spread(document: dict[str, Any]) -> float:
    """Seconds from the first slice to the last's end."""
    slices = [event for event in document["traceEvents"] if event["ph"] in "Xisf"]
    last = max(event["ts"] + event.get("dur", 0) for event in slices)
    return (last - min(event["ts"] for event in slices)) / 1e6


@pytest.mark.parametrize("name", sorted(path.name for path in DATA.iterdir() if path.is_dir()))
def test_nothing_is_left_out_of_a_real_trace(name):
    for case in [read_case(*each) for each in cases_of([DATA / name]).items()]:
        assert [text for text in case.warnings if "left out" in text or "clocks" in text] == []
        assert not any(rank.left_out_ns for rank in case.ranks)


# four at a time, each in another rank (the last first): the change, and what is said of it. None
# of the kernels is a message: without one its edge is not paired
IMPOSSIBLE = {
    "times from elsewhere, of kernels and host": (
        (("kernel", 400, {"ts": 0, "dur": 0}), FAR),
        (("kernel", 400, {"ts": lambda ts: ts / 1000}), FAR),
        (("cpu_op", 300, {"ts": 1e15}), FAR),
        (("cuda_runtime", 300, {"ts": 0}), FAR),
    ),
    "no times, and negative lengths": (
        (("gpu_user_annotation", 50, {"ts": -7.0}), FAR),
        (("cpu_op", 300, {"ts": float("nan")}), "whose time is no number"),
        (("kernel", 400, {"dur": lambda dur: -dur}), "of negative length"),
        (("cpu_op", 300, {"dur": -1}), "of negative length"),
    ),
    "lengths without end": (
        (("kernel", 400, {"ts": lambda ts: ts - 100_000}), EARLY),
        (("kernel", 400, {"dur": float("inf")}), "whose time is no number"),
        (("kernel", 400, {"ts": 0}), FAR),
        (("user_annotation", 150, {"dur": 1e13}), "longer than two hours"),
    ),
    "past the next ones": (
        (("kernel", 400, {"dur": 180_000.0}), PAST),
        (("cuda_runtime", 300, {"dur": lambda dur: dur + 180_000}), PAST),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", IMPOSSIBLE)
def test_events_at_impossible_times_are_left_out_and_counted(tmp_path, whole_merged, kind):
    changed = {
        name: with_events(texts()[name], some(*change))
        for name, (change, _) in zip(reversed(texts()), IMPOSSIBLE[kind], strict=False)
    }
    facts, warnings = facts_of(write(tmp_path / "changed", changed))
    counts = Counter()
    for reason in told(warnings):
        count, _, said = reason.partition(" ")
        counts[said] += int(count)
        assert int(count) >= 3 or said == PAST
    assert len(told(warnings)) == len(changed)
    assert set(counts) == {says for _, says in IMPOSSIBLE[kind]}
    before = undamaged()
    assert facts["window_us"] == before["window_us"]
    assert [e["pairs"] for e in facts["p2p"]] == [e["pairs"] for e in before["p2p"]]
    for label, row in facts["ranks"].items():
        was = before["ranks"][label]["busy_fraction"]
        assert row["busy_fraction"] == pytest.approx(was, abs=0.005)
    document = merged(tmp_path / "merged" / "out.json", tmp_path / "changed")
    assert spread(document) < 5
    assert faults(document) == []
    assert crossings(document, "kernel") == 0
    assert own(whole_merged) - own(document) == counts.total()


def test_kernels_past_their_successors_do_not_make_a_rank_busy(tmp_path):
    text = with_events(texts()[THIRD], some("kernel", 470, {"dur": lambda dur: dur + 180_000}))
    facts, warnings = facts_of(write(tmp_path, {THIRD: text}))
    assert told(warnings) == [f"4 {PAST}"]
    assert facts["ranks"]["2"]["busy_fraction"] == pytest.approx(0.121, abs=0.001)


def test_spans_past_the_next_of_their_name_are_no_part_of_the_token_return(tmp_path):
    change = some("user_annotation", 9, {"dur": 180_000.0}, "send_res_dict_to_next_stage")
    facts, warnings = facts_of(write(tmp_path, {LAST: with_events(texts()[LAST], change)}))
    assert told(warnings) == [f"3 {PAST}"]
    send, was = (each["token_return"]["host_us"]["send"]["max"] for each in (facts, undamaged()))
    assert send <= was


def test_kinds_of_impossible_times_are_counted_in_one_line(tmp_path):
    text = with_events(texts()[LAST], some("kernel", 600, {"ts": 0}))
    text = with_events(text, some("cpu_op", 900, {"dur": -5}))
    _, warnings = facts_of(write(tmp_path, {LAST: text}))
    assert len(warnings) == 1
    assert "event(s) at impossible times left out: " in warnings[0]
    assert FAR in warnings[0]
    assert "of negative length" in warnings[0]


def test_clocks_of_host_and_gpu_that_do_not_agree_cost_no_kernel(tmp_path):
    def late(event: Event) -> Event:
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"):
            event["ts"] -= 40_000
        return event

    folder = write(tmp_path, {name: with_events(text, late) for name, text in texts().items()})
    facts, warnings = facts_of(folder)
    assert told(warnings) == []
    assert sum("clocks of host and GPU do not agree" in text for text in warnings) == 4
    busy = [row["busy_fraction"] for row in facts["ranks"].values()]
    assert busy == pytest.approx([row["busy_fraction"] for row in undamaged()["ranks"].values()])


def test_kernels_side_by_side_are_left_as_they_are(tmp_path):
    maker = ring(1, steps=40)[0]
    for n in range(40):
        graph = 70_000 + n
        maker.call("cudaGraphLaunch", 1000 * n, 5, graph)
        for at in range(6):  # branches of a graph
            maker.kernel("branch", 1000 * n + 10 + at, 300, graph)
        maker.kernel("after", 1000 * n + 309, 5, 80_000 + n)  # before the graph has ended
        maker.add("kernel", "long", 1000 * n, 990, stream=99, correlation=90_000 + n)
    maker.write(tmp_path)
    assert only_case(tmp_path).warnings == []


def test_a_profile_that_idles_for_most_of_an_hour_is_one_profile(tmp_path):
    maker = ring(1)[0]
    before = len(maker.document()["traceEvents"])
    maker.kernel("much later", 50 * 60e6, 10, 77)
    maker.write(tmp_path)
    assert only_case(tmp_path).ranks[0].events == before + 1


@pytest.mark.parametrize("base", [None, "absent", 0, 1_590_857_026_000_000_000, "soon", 10**30])
def test_a_rank_whose_base_time_cannot_be_goes_by_the_others(tmp_path, base):
    makers = ring(3)
    makers[1].header = {"baseTimeNanoseconds": base}
    if base == "absent":
        makers[1].header = {}
    for maker in makers:
        document = maker.document()
        if maker.rank == 1 and base == "absent":
            del document["baseTimeNanoseconds"]
        name = f"CASE-TP-0-PP-{maker.rank}.trace.json"
        (tmp_path / name).write_text(json.dumps(document))
    case = only_case(tmp_path)
    assert {rank.base_ns for rank in case.ranks} == {makers[0].base_ns}
    assert any("used theirs" in text for text in case.warnings)
    assert spread(merged(tmp_path / "merged" / "out.json", tmp_path)) < 1


def stringed(value: Any, keys: set[str] | None, key: str = "") -> Any:
    """JSON with its numbers, or those under the keys, as strings."""
    if isinstance(value, dict):
        return {each: stringed(inner, keys, each) for each, inner in value.items()}
    if isinstance(value, list):
        return [stringed(inner, keys, key) for inner in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(value) if is_number and (keys is None or key in keys) else value


# what is a string in each of the ranks; None: every number
STRINGS: dict[str, list[set[str] | None]] = {
    "all": [None] * 4,
    "some": [
        {"ts", "dur"},
        {"correlation"},
        {"External id", "Dst Rank", "Src Rank", "In msg nelems"},
        {"pid", "tid"},
    ],
    "of the file": [{"rank", "world_size", "ranks", "baseTimeNanoseconds"}] * 4,
}


@pytest.mark.slow
@pytest.mark.parametrize("which", STRINGS)
def test_numbers_written_as_strings_are_read_as_numbers(tmp_path, whole_slices, which):
    changed = {
        name: json.dumps(stringed(msgspec.json.decode(text), keys))
        for (name, text), keys in zip(texts().items(), STRINGS[which], strict=True)
    }
    folder = write(tmp_path / "strings", changed)
    facts, warnings = facts_of(folder)
    assert warnings == []
    assert facts == undamaged()
    document = merged(tmp_path / "merged" / "strings.json", folder)
    assert faults(document) == []
    assert sorted(map(sliced, document["traceEvents"])) == whole_slices


def sliced(event: Event) -> str:
    """What tells an event of a merged trace, numbers and their strings alike."""
    args = event.get("args", {})
    facts = [event["name"], event["pid"], event["tid"], event.get("ts"), event.get("dur")]
    facts += [int(args[key]) if key in args else None for key in ("correlation", "External id")]
    return repr(facts)


def test_a_time_that_a_single_event_writes_as_a_string_costs_nothing(tmp_path):
    maker: TraceMaker = ring(1)[0]
    maker.events[4]["ts"] = f"{maker.events[4]['ts']}"
    maker.write(tmp_path)
    case = only_case(tmp_path)
    assert (case.ranks[0].events, case.warnings) == (len(maker.document()["traceEvents"]), [])


def test_a_file_in_which_nothing_has_a_time_says_so(tmp_path):
    document = ring(1)[0].document()
    for event in document["traceEvents"]:
        event["ts"] = 0
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(json.dumps(document))
    case = only_case(tmp_path)
    assert any(FAR in text for text in case.warnings)


@pytest.mark.parametrize(
    ("factor", "says"),
    [(1e-3, "19 of 20 kernels take under 0.5 us"), (1e3, "half of its operators take over 700 us")],
)
def test_a_file_whose_times_are_in_another_unit_is_left_out_and_named(tmp_path, factor, says):
    """As a converter writes it, in ms or ns: a step would be a thousandth or a thousand times."""

    def scaled(event: Event) -> Event:
        times = {key: float(event[key]) * factor for key in ("ts", "dur") if key in event}
        return {**event, **times}

    ranks = texts("sglang0516_graphs_on")
    last = max(ranks)
    for name, text in (ranks | {last: with_events(ranks[last], scaled)}).items():
        (tmp_path / name).write_text(text)
    case = only_case(tmp_path)
    assert [rank.pp for rank in case.ranks] == [0]
    assert any(f"{last}: {says}" in text for text in case.warnings)
    assert not any("another unit" in text for text in only_case(DATA / REFERENCE).warnings)
