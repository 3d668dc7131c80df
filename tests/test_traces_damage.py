"""One event whose text is no JSON costs that event, wherever it stands; it is named and counted."""

from __future__ import annotations

import json
import random
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

import msgspec
from examples import THOROUGH
from merged_traces import faults, merged
from trace_changes import facts_of, minified, only_case, texts, undamaged, write
from trace_maker import TraceMaker, ring

from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.read import blocks as events

CUT = re.compile(r"(?<=\}),(?=\s*\{\s*\"ph\")")
CONTROL = "|||\x01S(1): <module>"
QUOTED = '{"device": "cpu", "dtype": "float32"}(12): __init__'


def stuffed(text: str, name: str, every: int) -> str:
    """A trace with one more event before every so many, of a name that is written as it is."""
    found = list(CUT.finditer(text))[::every]
    event = f'{{"ph": "X", "cat": "python_function", "name": "{name}", "pid": 1, "tid": 1, "ts": 4'
    event += '605802239552.086, "dur": 1.5, "args": {"Python id": 0, "Python parent id": null}}'
    for gap in reversed(found):
        text = f"{text[: gap.end()]}\n  {event},{text[gap.end() :]}"
    return text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "says", "every", "layout"),
    [
        (CONTROL, r"named '|||\x01S(1): <module>'", 900, str),
        (CONTROL, r"named '|||\x01S(1): <module>'", 40, minified),
        (QUOTED, "named '" + QUOTED[:30], 50, str),
        (QUOTED, "named '" + QUOTED[:30], 50, minified),
        ("C:\\models\\qwen", r"named 'C:\\models\\qwen'", 300, str),
        ("a path with a\nline break", r"named 'a path with a\nline break'", 300, str),
        ("ends in a backslash\\", "named 'ends in a backslash", 300, minified),
        ("says },\n  {, as if it ended", "named 'says }", 300, str),
    ],
)
def test_names_that_are_no_json_cost_only_their_events(tmp_path, name, says, every, layout):
    changed = {file: stuffed(layout(text), name, every) for file, text in texts().items()}
    broken = sum(text.count('"python_function"') for text in changed.values())
    assert broken >= 4 * 7
    facts, warnings = facts_of(write(tmp_path, changed))
    assert facts == undamaged()
    about = [text for text in warnings if "no JSON left out; the first: " in text]
    assert about == warnings
    assert len(about) == 4
    assert all(says in text and "byte " in text for text in about)
    counted = sum(int(text.split(": ")[1].split()[0]) for text in about)
    halves = 2 if "}," in name else 1  # of a name that looks like the end of an event
    assert broken <= counted <= halves * broken


def test_a_name_that_looks_like_an_event_is_not_taken_for_one_with_a_time(tmp_path):
    name, text = next(iter(texts().items()))
    changed = stuffed(text, 'says "},{"ph": "X", "cat": "kernel", "name": "k"}, too', 700)
    facts, warnings = facts_of(write(tmp_path, {name: changed}))
    assert facts == undamaged()
    assert any("no JSON" in text for text in warnings)


def test_the_place_that_is_told_is_that_of_the_event(tmp_path):
    name, text = next(iter(texts().items()))
    changed = stuffed(text, CONTROL, 700)
    _, warnings = facts_of(write(tmp_path, {name: changed}))
    place = int(warnings[0].split("byte ")[1].split()[0])
    assert changed.encode()[place - 1 :].startswith(b'{"ph": "X", "cat": "python_function"')


BREAKS = {
    "control character": lambda text: text.replace('"name": "', '"name": "\x02', 1),
    "quote": lambda text: text.replace('"name": "', '"name": "a"b', 1),
    "backslash": lambda text: text.replace('"name": "', '"name": "\\d', 1),
    "line break": lambda text: text.replace('"name": "', '"name": "a\nb', 1),
    "no number": lambda text: re.sub(r'"ts": -?[\d.]+', '"ts": oops', text, count=1),
    "cut off": lambda text: text[: len(text) // 2],
    "two commas": lambda text: text.replace(", ", ",, ", 1),
    "no brace": lambda text: text.rstrip()[:-1],
}


@pytest.mark.parametrize("compact", [False, True], ids=["Kineto's", "one line"])
@pytest.mark.parametrize("kind", BREAKS)
@pytest.mark.parametrize("where", ["first", "at the end of a block", "last"])
def test_every_other_event_is_read_and_merged(tmp_path, monkeypatch, compact, kind, where):
    maker = ring(1, steps=30)[0]
    text = json.dumps(maker.document()) if compact else maker.text()
    gaps = [match.start() for match in re.finditer(r",\s*\{\s*\"(?=ph|name)", text)]
    begins = [text.index("{", text.index('"traceEvents"')), *(text.index("{", at) for at in gaps)]
    ends = [*gaps, text.rindex("]")]
    block = 3000
    monkeypatch.setattr(events, "BLOCK_BYTES", block)
    at = {
        "first": 0,
        "at the end of a block": max(n for n, begin in enumerate(begins) if begin < block),
        "last": len(begins) - 1,
    }[where]
    broken = text[: begins[at]] + BREAKS[kind](text[begins[at] : ends[at]]) + text[ends[at] :]
    with pytest.raises(ValueError, match=r"line \d+ column"):
        json.loads(broken)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(broken)
    case = only_case(tmp_path)
    assert case.ranks[0].events == len(begins) - 1
    assert sum("1 event(s) whose text is no JSON left out" in text for text in case.warnings) == 1
    kept = merged(tmp_path / "merged" / "out.json", tmp_path)["traceEvents"]
    of_ours = [event for event in kept if event["ph"] == "X" and event["cat"] != "pipeline"]
    there = [event for event in maker.document()["traceEvents"] if event["ph"] == "X"]
    assert len(of_ours) == len(there) - (where != "last")  # the last one is a name


@pytest.mark.parametrize(
    ("damage", "lost"),
    [(("},\n  {", "}\n  {"), 0), (("},\n  {", "},,\n  {"), 0), (("},\n  {", "},\n  "), 1)],
    ids=["no comma", "two commas", "no brace"],
)
def test_damage_between_events_costs_none_that_is_whole(tmp_path, damage, lost):
    maker = ring(1, steps=10)[0]
    head, first, rest = maker.text().partition('"ph": "X"')
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(head + first + rest.replace(*damage, 1))
    case = only_case(tmp_path)
    assert case.ranks[0].events == len(maker.document()["traceEvents"]) - lost
    document = merged(tmp_path / "merged" / "out.json", tmp_path)
    assert faults(document) == []


def test_numbers_in_lists_and_objects_inside_an_event_do_not_break_it_up(tmp_path):
    maker = ring(1, steps=4)[0]
    maker.events[3]["args"]["list"] = [{"a": 1}, {"b": [{"c": 2}, {"d": float("inf")}]}]
    text = stuffed(json.dumps(maker.document()), QUOTED, 5)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(text)
    assert only_case(tmp_path).ranks[0].events == len(maker.document()["traceEvents"])
    kept = merged(tmp_path / "merged" / "out.json", tmp_path)["traceEvents"]
    (listed,) = [event["args"]["list"] for event in kept if "list" in event.get("args", {})]
    assert listed == [{"a": 1}, {"b": [{"c": 2}, {"d": None}]}]


def test_a_damaged_header_costs_what_is_damaged_in_it(tmp_path):
    def rank(text: str) -> tuple[Any, list[str]]:
        (tmp_path / "CASE-TP-0-PP-1.trace.json").write_text(text)
        case = only_case(tmp_path)
        return case.ranks[0], case.warnings

    maker = ring(2)[1]
    whole = len(maker.document()["traceEvents"])
    text = maker.text()
    for old, new in (('"backend"', 'backend"'), ('"traceEvents": [', '"traceEvants": [')):
        found, warnings = rank(text.replace(old, new, 1))
        assert (found.events, found.base_ns) == (whole, maker.base_ns)
        assert sum("header is not valid JSON" in text for text in warnings) == 1
    found, _ = rank("\ufeff" + text)
    assert (found.events, found.rank, found.world_size) == (whole, 1, 2)


def test_nesting_that_no_parser_follows_is_one_damaged_event(tmp_path):
    maker = ring(1, steps=4)[0]
    deep = '"args": {"External id": 3, "deep": ' + "[" * 100_000
    text = maker.text().replace('"args": {"External id": 3', deep, 1)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(text)
    assert only_case(tmp_path).ranks[0].events == len(maker.document()["traceEvents"]) - 1


@pytest.mark.parametrize("value", ["9" * 400, "1e400", "-" + "9" * 30, "[1]", "true", '"\\ud800"'])
@pytest.mark.parametrize("key", ["correlation", "External id", "In msg nelems", "Dst Rank"])
def test_values_beyond_reason_cost_at_most_their_event(tmp_path, recwarn, key, value):
    makers = ring(2)
    for maker in makers:
        text = re.sub(rf'("{key}": )\d+', rf"\g<1>{re.escape(value)}", maker.text(), count=1)
        text = text.replace("\\-", "-").replace("\\[", "[").replace("\\]", "]")
        (tmp_path / f"CASE-TP-0-PP-{maker.rank}.trace.json").write_text(text)
    case = only_case(tmp_path)
    for maker, rank in zip(makers, case.ranks, strict=True):
        assert rank.events >= len(maker.document()["traceEvents"]) - 1
    analyze(case)
    merged(tmp_path / "merged" / "out.json", tmp_path)
    assert not recwarn.list


@pytest.mark.parametrize("key", ["correlation", "pid"])
def test_a_number_beyond_all_floats_moves_no_other_of_its_column(tmp_path, key):
    (maker,) = ring(1)
    (tmp_path / "whole").mkdir()
    maker.write(tmp_path / "whole")
    compute = [event for event in maker.events if event["name"] == "compute"][2]
    (compute["args"] if key in compute["args"] else compute)[key] = 10**400
    (tmp_path / "changed").mkdir()
    maker.write(tmp_path / "changed")
    (whole,), (changed,) = (only_case(tmp_path / each).ranks for each in ("whole", "changed"))
    assert changed.kernels.times.tolist() == whole.kernels.times.tolist()


@cache
def events_there() -> dict[str, int]:
    """How many events each rank's file of the reference has."""
    return {file: len(msgspec.json.decode(each)["traceEvents"]) for file, each in texts().items()}


def corrupted(text: bytes, random_: random.Random, times: int) -> bytes:
    """Bytes replaced, deleted and put in at random places."""
    changed = bytearray(text)
    for _ in range(times):
        at = random_.randrange(len(changed))
        how = random_.randrange(4)
        if how == 0:
            changed[at] = random_.randrange(256)
        elif how == 1:
            del changed[at]
        elif how == 2:
            changed.insert(at, random_.choice(b'"\\\n\x00{}[],:'))
        else:
            changed[at] = random_.choice(b'0123456789-.eE"{}[]\\')
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [str, minified], ids=["Kineto's", "minified"])
@pytest.mark.parametrize("seed", range(5 if THOROUGH else 3))
def test_random_damage_costs_no_more_than_what_is_damaged(tmp_path, monkeypatch, seed, layout):
    random_ = random.Random(seed)
    monkeypatch.setattr(events, "BLOCK_BYTES", random_.choice([5000, 40_000, 1 << 17]))
    name, text = random_.choice(list(texts().items()))
    times = random_.choice([1, 3, 20])
    # the array's end is at the end: damage there is another matter
    whole = layout(text).encode()
    damaged = corrupted(whole[:-300], random_, times) + whole[-300:]
    case = only_case(write(tmp_path / "damaged", {name: damaged}))
    counts = {Path(rank.path).name: rank.events for rank in case.ranks}
    there = dict(events_there())
    assert there[name] - 2 * times <= counts.pop(name) <= there.pop(name)
    assert counts == there
    document = merged(tmp_path / "merged" / "out.json", tmp_path / "damaged")
    moments = [event["ts"] for event in document["traceEvents"] if event["ph"] == "X"]
    assert max(moments) - min(moments) < 2 * 3600e6
    assert all(event["dur"] >= 0 for event in document["traceEvents"] if event["ph"] == "X")


def test_an_event_that_the_format_does_not_know_is_counted(tmp_path):
    maker: TraceMaker = ring(1)[0]
    document = maker.document()
    for at, key in enumerate(["ph", "name", "pid", "ts", "dur"]):
        del document["traceEvents"][at][key]
    document["traceEvents"][5]["ph"] = "?"
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(json.dumps(document))
    warnings = only_case(tmp_path).warnings
    assert sum("4 event(s) with a name, category or id that is missing" in w for w in warnings) == 1
    assert any("1 without a length" in w and "1 whose time is no number" in w for w in warnings)
    assert faults(merged(tmp_path / "merged" / "out.json", tmp_path)) == []
