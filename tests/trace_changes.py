"""Small real traces with something changed, and the analysis of the unchanged ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import msgspec

from repro_pp_graphs.traces.analysis_record import Analysis, document
from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.path.whole_analysis import explained
from repro_pp_graphs.traces.rank_trace import Case
from repro_pp_graphs.traces.read.cases import cases_of, read_case

DATA = Path(__file__).parent / "data" / "traces"
REFERENCE = "h200_case_A"
Event = dict[str, Any]
Change = Callable[[Event], Event | None]


@cache
def texts(name: str = REFERENCE) -> dict[str, str]:
    """The ranks' JSON by file name, as Kineto lays it out."""
    return {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()).decode()
        for path in sorted((DATA / name).iterdir())
    }


@lru_cache(maxsize=8)
def minified(text: str) -> str:
    return json.dumps(msgspec.json.decode(text), separators=(",", ":"))


def write(folder: Path, changed: dict[str, str | bytes]) -> Path:
    """The reference ranks in a folder, those that are given changed."""
    folder.mkdir(exist_ok=True)
    for name, text in (texts() | changed).items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@lru_cache(maxsize=8)
def _taken_apart(text: str) -> tuple[str, list[Event], list[str]]:
    """A rank's JSON around its events, and each of these as it is read and as it is written."""
    document = msgspec.json.decode(text)
    events = document["traceEvents"]
    around = json.dumps({**document, "traceEvents": []})
    return around, events, list(map(json.dumps, events))


def with_events(text: str, change: Change) -> str:
    """A rank's JSON with each event changed, or left out where None comes back; an event a line."""
    around, events, lines = _taken_apart(text)
    kept = []
    for event, line in zip(events, lines, strict=True):
        changed = change({**event, "args": {**event["args"]}} if "args" in event else {**event})
        if changed is not None:
            kept.append(line if changed == event else json.dumps(changed))
    array = '"traceEvents": ['
    return around.replace(array, array + "\n  " + ",\n  ".join(kept) + "\n  ", 1)


@lru_cache(maxsize=8)
def _around_events(text: str) -> tuple[dict[str, Any], str]:
    document = msgspec.json.decode(text)
    events = json.dumps(document["traceEvents"])
    return document | {"traceEvents": []}, events


def with_header(text: str, **fields: Any) -> str:
    """A rank's JSON in one line, what stands outside its events changed."""
    around, events = _around_events(text)
    array = '"traceEvents": ['
    return json.dumps(around | fields).replace(array + "]", array + events[1:], 1)


def only_case(*paths: Path) -> Case:
    cases = cases_of(list(paths))
    assert len(cases) == 1
    return read_case(*next(iter(cases.items())))


def analysed(case: Case) -> dict[str, Any]:
    """The analysis of a case as --json writes it."""
    return document(analyze(case))


def facts_of(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The analysis of a folder without the case's name, and its warnings."""
    facts = analysed(only_case(folder))
    del facts["case"]
    return facts, facts.pop("warnings")


@cache
def undamaged() -> dict[str, Any]:
    """The reference's analysis."""
    facts, warnings = facts_of(DATA / REFERENCE)
    assert warnings == []
    return facts


@cache
def analysis_of(name: str) -> Analysis:
    """The analysis of a real case, without its path; made once: nothing may change it."""
    return analyze(only_case(DATA / name))


def written_of(name: str) -> dict[str, Any]:
    """The same as --json writes it, one of its own for each test."""
    return document(analysis_of(name))


@cache
def explained_of(name: str) -> Analysis:
    """The analysis of a real case with its path; made once: nothing may change it."""
    return explained(only_case(DATA / name))


def whole(name: str) -> Analysis:
    """The same, one of its own for each test."""
    return msgspec.json.decode(msgspec.json.encode(explained_of(name)), type=Analysis)


def end(event: Event) -> float:
    """When an event is over, us."""
    return float(event["ts"] + event["dur"])


def covered(spans: list[tuple[float, float]], begin: float, over: float) -> float:
    """How much of a time the spans cover, by sweeping over them."""
    total, reach = 0.0, begin
    for low, high in sorted(spans):
        length = min(high, over) - max(low, reach)
        if length > 0:
            total += length
            reach = min(high, over)
    return total
