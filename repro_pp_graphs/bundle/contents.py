"""What of a run goes into the bundle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repro_pp_graphs.bundle.shorten_log import Shortened, shorten_log

REPORT_BYTES = 4_000_000  # a larger report stays out


class Item(NamedTuple):
    """One file of the bundle: its name, its text, and what was cut of it."""

    name: str
    text: str
    note: str


def dumps(value: object, indent: str = "") -> str:
    """JSON with a line a key, and lists of plain values on one line: an option and its value
    stay together."""
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = (f"{inner}{json.dumps(k)}: {dumps(v, inner)}" for k, v in value.items())
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        items = (inner + dumps(item, inner) for item in value)
        return "[\n" + ",\n".join(items) + f"\n{indent}]"
    return json.dumps(value)


def _json(path: Path, text: str) -> Shortened:
    try:
        value = json.loads(text)
    except ValueError:
        return shorten_log(text)
    note = ""
    if path.name.endswith("_client.json") and isinstance(value, dict):
        for request in value.get("requests", []):
            request["events"] = len(request.get("events", []))
        note = "token arrivals as their number"
    return Shortened(dumps(value) + "\n", note)


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def traces(run: Path) -> str:
    """Every trace of a run with its size: a line `bytes  path` each."""
    found = sorted(path for path in (run / "trace").rglob("*") if path.is_file())
    rows = [f"{path.stat().st_size:>12}  {path.relative_to(run)}" for path in found]
    return "\n".join([f"{'bytes':>12}  trace (not in the bundle)", *rows]) + "\n"


def items(run: Path) -> Iterator[Item]:
    """The files of a run's bundle, but for the issue text. OSError where one is not readable."""
    for path in sorted((run / "logs").iterdir()):
        if not path.is_file() or path.stem == "report":
            continue
        if path.suffix == ".log":
            yield Item(path.name, *shorten_log(_read(path)))
        elif path.suffix == ".json":
            yield Item(path.name, *_json(path, _read(path)))
        elif path.suffix in (".txt", ".sh"):
            yield Item(path.name, _read(path), "")
    for path in sorted([*run.glob("report.*"), *run.glob("logs/report.*")]):
        if path.stat().st_size <= REPORT_BYTES:
            yield Item(path.name, _read(path), "")
    yield Item("traces.txt", traces(run), "names and sizes only")
