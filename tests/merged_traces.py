"""Merging in tests, and what holds of every merged trace."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from repro_pp_graphs.traces.commands.merge import main as merge

DATA = Path(__file__).parent / "data" / "traces"
NUMBER = (int, float)


def faults(document: dict[str, Any]) -> list[str]:
    """Breaches of the Trace Event format, and of what Perfetto's importer asks beyond it."""
    found: list[str] = []
    starts: dict[Any, float] = {}
    ends: list[tuple[Any, float]] = []
    for event in document["traceEvents"]:
        ph = event.get("ph")
        if ph == "X" and _is_slice(event.get):
            continue
        if ph not in ("X", "M", "i", "s", "t", "f", "C"):
            found.append(f"phase {ph}")
        if not isinstance(event.get("name"), str):
            found.append(f"no name: {event}")
        if not (isinstance(event.get("pid"), int) and isinstance(event.get("tid"), int)):
            found.append(f"pid or tid is no integer: {event}")
        if ph != "M" and not isinstance(event.get("ts"), NUMBER):
            found.append(f"no ts: {event}")
        if ph == "X" and not (isinstance(event.get("dur"), NUMBER) and event["dur"] >= 0):
            found.append(f"no dur: {event}")
        flow = (event.get("cat"), event.get("name"), event.get("id"))
        if ph == "s":
            if flow in starts:
                found.append(f"two flows start as {flow}")
            starts[flow] = event["ts"]
        if ph == "f":
            ends.append((flow, event["ts"]))
        if ph == "C" and not all(isinstance(v, NUMBER) for v in event["args"].values()):
            found.append(f"counter without a number: {event}")
    found += [
        f"flow {flow} ends before it starts"
        for flow, ts in ends
        if flow[0] == "p2p" and ts < starts.get(flow, float("inf"))
    ]
    return found


def _is_slice(get: Callable[[str], Any]) -> bool:
    """Whether nothing is wrong with a slice, which most events are."""
    return (
        type(get("name")) is str
        and type(get("pid")) is int
        and type(get("tid")) is int
        and type(get("ts")) in NUMBER
        and type(dur := get("dur")) in NUMBER
        and dur >= 0
    )


def crossings(document: dict[str, Any], category: str) -> int:
    """Slices of a category that overlap another of their thread without lying inside it."""
    lanes = defaultdict(list)
    for event in document["traceEvents"]:
        if event["ph"] == "X" and event.get("cat") == category:
            start = round(event["ts"] * 1000)
            lanes[event["pid"], event["tid"]].append((start, start + round(event["dur"] * 1000)))
    count = 0
    for slices in lanes.values():
        stack: list[int] = []
        for start, end in sorted(slices, key=lambda s: (s[0], -s[1])):
            while stack and stack[-1] <= start:
                stack.pop()
            count += bool(stack) and end > stack[-1]
            stack.append(end)
    return count


def merged(out: Path, *paths: Path) -> dict[str, Any]:
    assert merge([*map(str, paths), "-o", str(out)]) == 0
    data = out.read_bytes()
    text = gzip.decompress(data) if out.suffix == ".gz" else data
    try:
        return msgspec.json.decode(text)
    except msgspec.ValidationError:  # 1e400, which is a number in JSON
        return json.loads(text)


@cache
def _merged_real(*names: str) -> bytes:
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        assert merge([*(str(DATA / name) for name in names), "-o", str(out)]) == 0
        return out.read_bytes()


def merged_real(*names: str) -> dict[str, Any]:
    """The merged trace of real cases: merged once, and a document of its own for each test."""
    document: dict[str, Any] = msgspec.json.decode(_merged_real(*names))
    return document


def processes(document: dict[str, Any]) -> dict[int, str]:
    return {
        e["pid"]: e["args"]["name"]
        for e in document["traceEvents"]
        if e["ph"] == "M" and e["name"] == "process_name"
    }


def thread_names(document: dict[str, Any]) -> dict[int, str]:
    return {
        e["tid"]: e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"
    }


def in_order(document: dict[str, Any]) -> list[str]:
    order = {
        e["pid"]: e["args"]["sort_index"]
        for e in document["traceEvents"]
        if e["name"] == "process_sort_index"
    }
    names = processes(document)
    return [names[pid] for pid in sorted(names, key=order.__getitem__)]
