"""Ranks' traces through `analyze` and `merge`: a few steps of real ones, changed in any way."""

from __future__ import annotations

import atexit
import copy
import gzip
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from merged_traces import faults

from fuzz.choices import Choices
from fuzz.oracle import check, printed, strict_json
from repro_pp_graphs.traces.analysis_record import document, from_document
from repro_pp_graphs.traces.commands import analyze, merge
from repro_pp_graphs.traces.read import cases

DATA = Path(__file__).resolve().parents[1] / "data" / "traces"
# of real traces: which, and how many ms from the middle on
BASES = (("sglang052_graphs_on", 110), ("h200_case_A", 80), ("cpu_numbered", 260))
BASES += (("sglang0516_async_depth", 60), ("sglang052_graphs_off", 60))
Event = dict[str, Any]
Document = dict[str, Any]


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


ODD: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 5, 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf")),
    *(1 << 31, 1 << 53, 1 << 63, -(1 << 63), 1 << 64, 10**40, 4102444800000000.0),
    *("", "5", "-1", "nan", "1e5", "x", "\u202e\x1b[31m", "\ud800", "\0", "a" * 3000, "²"),
    *([], {}, [1], ["x"], {"a": 1}, _deep(40), {"rank": 1}, [[0, 1]]),
    *("X", "M", "i", "s", "f", "B", "E", "C", "kernel", "cpu_op", "user_annotation", "gpu_memcpy"),
    *(
        "cuda_runtime",
        "ncclDevKernel_SendRecv(x)",
        "record_param_comms",
        "decode",
        "step[DECODE bs=8]",
    ),
    *("scheduler.run_batch", "cudaGraphLaunch", "gloo:send", "Long", "process_name", "thread_name"),
)
KEYS = ("ph", "cat", "name", "pid", "tid", "ts", "dur", "args", "id", "bp", "s", "tts", "new")
HEADER = ("distributedInfo", "baseTimeNanoseconds", "host_name", "schemaVersion", "traceEvents")
INFO = ("rank", "world_size", "pg_config", "pg_count", "backend", "nccl_version")
FILE_NAMES = (
    *("x.trace.json", "x-TP-0.trace.json", "x-TP-0-PP-0.trace.json.gz", "x-TP-0-PP-99999.json"),
    *(
        "x-TP-1-PP-0.json",
        "merged-x.json",
        "x-DP-1-TP-0-PP-0.trace.json",
        "\u202e\x1b.json",
        "x.txt",
    ),
    *("x-TP-0-PP-3.trace.json", "x_chrome_trace.json", "1-TP-0-PP-1-EP-1.json", "²-PP-².json"),
)


@cache
def _base(which: int) -> dict[str, Document]:
    """A few steps of each rank, by file name."""
    name, length_ms = BASES[which]
    found = {}
    for path in sorted((DATA / name).iterdir()):
        document = msgspec.json.decode(gzip.decompress(path.read_bytes()))
        times = sorted(e["ts"] for e in document["traceEvents"] if e["ph"] == "X")
        begin = times[len(times) // 3]
        end = begin + 1000 * length_ms
        document["traceEvents"] = [
            event
            for event in document["traceEvents"]
            if event["ph"] == "M" or begin <= event.get("ts", begin) <= end
        ]
        found[path.name.removesuffix(".gz")] = document
    return found


@cache
def _base_lines() -> dict[int, str]:
    """The JSON of each event of the bases, which live to the end, by its id."""
    documents = [each for base in range(len(BASES)) for each in _base(base).values()]
    return {id(event): json.dumps(event) for each in documents for event in each["traceEvents"]}


def _line(event: Any) -> str:
    return _base_lines().get(id(event)) or json.dumps(event)


class Change:
    """A set of ranks that is being changed, as the choices say."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        base = _base(choices.number(len(BASES)))
        # what is changed is copied first: an event costs less than a file
        self.files = {
            name: document | {"traceEvents": list(document["traceEvents"])}
            for name, document in base.items()
        }
        self.bytes: dict[str, bytes] = {}
        self.layouts: dict[str, int] = {}
        self.others: dict[str, list[Any]] = {}  # in the place of events

    def name(self) -> str:
        return self.choices.one_of(list(self.files))

    def events(self) -> list[Event]:
        found = self.files[self.name()].get("traceEvents")
        whole = isinstance(found, list) and all(isinstance(one, dict) for one in found)
        return found if whole and found else [{}]

    def odd(self, now: object = None) -> Any:
        """Another value, also one near what is there."""
        which = self.choices.number(len(ODD) + 8)
        if which < len(ODD):
            return copy.deepcopy(ODD[which])
        if isinstance(now, int | float) and not isinstance(now, bool):
            by = self.choices.one_of((1, -1, 0.001, 1000, -1000, 1e6, -1e6, 1e9))
            return now + by if which % 2 else now * by
        return str(now) if which % 2 else [now]

    def _alter(self, event: Event) -> None:
        inside = self.choices.number(3)
        args = event.get("args")
        if inside == 0 and isinstance(args, dict) and args:
            key = self.choices.one_of(sorted(args))
            event["args"] = args | {key: self.odd(args[key])}
        else:
            key = self.choices.one_of(KEYS)
            if inside == 1 and key in event:
                del event[key]
            else:
                event[key] = self.odd(event.get(key))

    def one(self) -> None:
        """A field of one event."""
        events = self.events()
        at = self.choices.number(len(events))
        events[at] = dict(events[at])
        self._alter(events[at])

    def alike(self) -> None:
        """The same change to all events like one, or to every n-th of them."""
        events = self.events()
        like = events[self.choices.number(len(events))]
        key, every = self.choices.one_of(("name", "cat", "ph", "tid")), 1 + self.choices.number(4)
        start, seen = self.choices.at, 0
        for at, event in enumerate(events):
            if event.get(key) == like.get(key):
                seen += 1
                if seen % every == 0:
                    self.choices.at = start
                    events[at] = dict(event)
                    self._alter(events[at])

    def drop(self) -> None:
        events = self.events()
        at, many = self.choices.number(len(events)), self.choices.one_of((1, 1, 10, 300))
        del events[at : at + many]

    def drop_alike(self) -> None:
        events = self.events()
        like = events[self.choices.number(len(events))]
        key = self.choices.one_of(("name", "cat", "ph", "tid"))
        every = 1 + self.choices.number(3)
        kept = [e for at, e in enumerate(events) if e.get(key) != like.get(key) or at % every]
        events[:] = kept

    def twice(self) -> None:
        events = self.events()
        at, many = self.choices.number(len(events)), self.choices.one_of((1, 1, 10, 300))
        events += [dict(event) for event in events[at : at + many]]

    def order(self) -> None:
        events = self.events()
        a, b = self.choices.number(len(events)), self.choices.number(len(events))
        events[a], events[b] = events[b], events[a]
        if self.choices.number(8) == 1:
            events.reverse()

    def odd_event(self) -> None:
        self.others.setdefault(self.name(), []).append(self.odd())

    def times(self) -> None:
        """A rank's clock set wrong, or running at another speed."""
        by, times = (
            self.choices.one_of((0, 1, 1000, -1e6, 1e9)),
            self.choices.one_of((1, -1, 0, 1e3)),
        )
        events = self.events()
        for at, event in enumerate(events):
            if isinstance(event.get("ts"), int | float):
                events[at] = event | {"ts": event["ts"] * times + by}

    def header(self) -> None:
        document = self.files[self.name()]
        key = self.choices.one_of(HEADER)
        if self.choices.number(3) == 1:
            document.pop(key, None)
        else:
            document[key] = self.odd(document.get(key) if key != "traceEvents" else None)

    def info(self) -> None:
        document = self.files[self.name()]
        info = document.get("distributedInfo")
        key = self.choices.one_of(INFO)
        now = info.get(key) if isinstance(info, dict) else None
        document["distributedInfo"] = (info if isinstance(info, dict) else {}) | {
            key: self.odd(now)
        }

    def rename(self) -> None:
        name = self.choices.one_of(FILE_NAMES)
        self.files[name] = self.files.pop(self.name())

    def remove(self) -> None:
        if len(self.files) > 1:
            del self.files[self.name()]

    def copied(self) -> None:
        document = self.files[self.name()]
        self.files[self.choices.one_of(FILE_NAMES)] = copy.copy(document)

    def layout(self) -> None:
        self.layouts[self.name()] = self.choices.number(4)

    def damage(self) -> None:
        """Bytes of the text, or of the compressed file."""
        name = self.name()
        data = bytearray(self.bytes.get(name) or self._text(name))
        what = self.choices.number(6)
        if what == 0 and data[:2] != b"\x1f\x8b":
            data = bytearray(gzip.compress(bytes(data), 1, mtime=0))
        at = self.choices.number(len(data) or 1)
        if what == 1:
            del data[at:]
        elif what == 2:
            del data[at : at + 1 + self.choices.number(200)]
        elif what == 3:
            data[at:at] = self.choices.some(24)
        elif what == 4:
            for _ in range(1 + self.choices.number(3)):
                at = self.choices.number(len(data) or 1)
                data[at : at + 1] = self.choices.some(1)
        elif what == 5:
            data[at:at] = data[at : at + 1 + self.choices.number(3000)]
        self.bytes[name] = bytes(data)

    def _text(self, name: str) -> bytes:
        document, layout = dict(self.files[name]), self.layouts.get(name, 0)
        if isinstance(document.get("traceEvents"), list):
            document["traceEvents"] = document["traceEvents"] + self.others.get(name, [])
        if layout == 0:  # as Kineto: an event a line
            events = document.get("traceEvents")
            lines = ",\n  ".join(map(_line, events)) if isinstance(events, list) else "1"
            rest = json.dumps({k: v for k, v in document.items() if k != "traceEvents"})
            text = f'{rest[:-1]}{", " * (rest != "{}")}"traceEvents": [\n  {lines}\n  ]}}'
            return (text if "traceEvents" in document else rest).encode("utf-8", "surrogatepass")
        if layout == 1:
            return json.dumps(document, separators=(",", ":")).encode()
        if layout == 2:
            return json.dumps(document.get("traceEvents", 0), ensure_ascii=False).encode(
                "utf-8", "surrogatepass"
            )
        return b"\xef\xbb\xbf" + json.dumps(document, indent=1).encode()

    def write(self, place: Path) -> None:
        for name in self.files:
            (place / name).write_bytes(self.bytes.get(name) or self._text(name))


# in this order, as all tuples here, which the kept inputs name
CHANGES: tuple[Callable[[Change], None], ...] = (
    *(Change.one, Change.alike, Change.one, Change.alike, Change.drop, Change.drop_alike),
    *(Change.twice, Change.order, Change.odd_event, Change.times, Change.header, Change.info),
    *(Change.rename, Change.remove, Change.copied, Change.layout, Change.damage, Change.damage),
)
PIECES = (
    *(b'{"traceEvents": [', b'{"ph": "X", ', b'"cat": "kernel", ', b'"name": "', b'"pid": 0, '),
    *(
        b'"tid": 7, ',
        b'"ts": 1',
        b'"dur": 2',
        b'"args": {',
        b'"stream": 7',
        b'"correlation": 3',
        b"}",
    ),
    *(
        b"},\n  {",
        b"]}",
        b"[",
        b"]",
        b"{",
        b",",
        b'"',
        b"\\",
        b"1e999",
        b"nan",
        b"-",
        b"null",
        b"[" * 500,
    ),
    *(
        b'"distributedInfo": {"rank": 1, "world_size": 2}',
        b'"baseTimeNanoseconds": 17',
        b"\x1f\x8b\x08",
    ),
)


def _bare(choices: Choices) -> bytes:
    """A file that is no real trace."""
    if choices.number(3) == 0:
        return choices.rest()
    found = []
    while choices.at < len(choices.data) and len(found) < 2000:
        piece = choices.number(len(PIECES) + 2)
        found.append(PIECES[piece] if piece < len(PIECES) else choices.some(20))
    return b"".join(found)


@cache
def folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="fuzz-traces-")
    atexit.register(made.cleanup)
    return Path(made.name)


def _fill(place: Path, choices: Choices) -> None:
    if choices.number(8) == 1:
        name = choices.one_of(FILE_NAMES)
        (place / name).write_bytes(_bare(choices))
        return
    change = Change(choices)
    for _ in range(choices.number(8)):
        choices.one_of(CHANGES)(change)
    change.write(place)


def _analysed(place: Path, out: Path) -> tuple[int, str, str]:
    out.unlink(missing_ok=True)
    status, text = printed(analyze.main, [str(place), "--json", str(out)])
    return status, text, out.read_text(encoding="utf-8") if out.exists() else ""


def _merged(place: Path, out: Path, status: int) -> None:
    out.unlink(missing_ok=True)
    merged, _ = printed(merge.main, [str(place), "-o", str(out)])
    check(merged == status, f"analyze ended with {status}, merge with {merged}")
    if merged == 0:
        found = faults(strict_json(out.read_bytes()))
        # Kineto writes no others, but a file may, and viewers pass over those they do not know
        found = [fault for fault in found if not fault.startswith("phase ")]
        check(not found, f"the merged trace: {found[:2]}")


def run(data: bytes) -> None:
    """Raises Fault, or whatever a reader, the analysis or the merge lets out."""
    with mock.patch.object(cases, "PARALLEL_FROM_BYTES", 1 << 40):  # all in this process
        _run(data)


def _run(data: bytes) -> None:
    choices = Choices(data)
    place, out = folder() / "case", folder() / "out.json"
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    twice = choices.number(4) == 1
    _fill(place, choices)
    status, text, stored = _analysed(place, out)
    check(status in (0, 1), f"exit status {status}")
    check(status == 0 or len(text.splitlines()) < 60, "a refusal of 60 lines and more")
    check((status == 0) == bool(stored), "read, and no analysis, or the reverse")
    if stored:
        found = strict_json(stored)
        for analysis in found["cases"].values() if "cases" in found else [found]:
            check(document(from_document(analysis)) == analysis, "the analysis, read, is another")
    if twice:
        check(_analysed(place, out) == (status, text, stored), "not the same the second time")
    _merged(place, out, status)


def seeds() -> list[bytes]:
    """Each trace as it is, and with each kind of change."""
    found = [bytes([0, 0, base, 0]) for base in range(len(BASES))]
    for at in range(len(CHANGES)):
        for salt in (3, 77, 150):
            steps = bytes([at, salt % 4, *((salt * n * 37) % 256 for n in range(1, 9))])
            found.append(bytes([at % 2, 0, salt % len(BASES), 1]) + steps)
    return [*found, b"\0\1\0\0" + b'{"traceEvents": []}', b"\0\1\0\1" + bytes(range(len(PIECES)))]
