"""A server's log, all ranks in one file, and its ranks' clock rows."""

from __future__ import annotations

import atexit
import gzip
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from fuzz.choices import Choices
from fuzz.oracle import LONGEST_SAID, check, plain, strict_json
from repro_pp_graphs.bundle.shorten_log import shorten_log
from repro_pp_graphs.pp_clock import collect, rows
from repro_pp_graphs.pp_clock.lines import lines as clock_lines
from repro_pp_graphs.run.finish_step import clocks_not_started
from repro_pp_graphs.run.launch import failure, hang
from repro_pp_graphs.server.http import resolved
from repro_pp_graphs.server.log import diagnosis, log_lines

DATA = Path(__file__).resolve().parents[1] / "data"
STATUSES = (None, 0, 1, 137, 139, 143, 129 + 64, 255)
LABEL = "fuzz"
PREFIX = b"[2026-01-02 03:04:05 PP1] "
FIRST_LINES = 40


@cache
def folder() -> Path:
    made = tempfile.TemporaryDirectory(prefix="fuzz-logs-")
    atexit.register(made.cleanup)
    return Path(made.name)


def _log(choices: Choices) -> None:
    status = choices.one_of(STATUSES)
    path = folder() / f"{LABEL}_server.log"
    path.write_bytes(choices.rest())
    text = log_lines.read_log(path)
    found = log_lines.lines(text)
    check(len(found) == text.count("\n") + 1, "a line's number is not that of sed")
    check(isinstance(log_lines.stage(text), str), "no stage")
    log_lines.is_dying(text)
    log_lines.last_by_rank(found)
    check(all(one.pp_rank >= 0 for one in log_lines.decode_lines(text)), "a negative rank")
    clocks_not_started(folder(), LABEL)
    plain("".join(failure.wrapped(log_lines.latest(text))), "the live line")
    for alive in (False, True):
        why = diagnosis.diagnose(text, None if alive else status, alive)
        check(why.cause and why.remedy, "a diagnosis without cause or remedy")
        check(why == diagnosis.diagnose(text, None if alive else status, alive), "not the same")
        check(len(why.cause) <= LONGEST_SAID, f"a cause of {len(why.cause)} characters")
        for line in failure.lines(failure._masked(why), path):
            plain(line, "a diagnosis")
        if why.line is not None:
            there = found[why.line.number - 1].text == why.line.text
            check(there, "the line that it rests on is another")
    for line in hang.rank_lines(text):
        plain(line, "a rank's line")
    shorten_log(text)


HEADER = {
    **{"format": 1, "capacity": 64, "pid": 1, "pp_rank": 1, "pp_size": 2, "tp_rank": 0},
    **{"loop_size": 2, "alternate": 0, "sglang_version": "0.5.2"},
    **{"found": {"turn": "a"}, "lacks": {"wait_sent": "b"}, "failed": ""},
    **{"boot_id": "1", "unix_ahead_ns": 5},
}
ODD: tuple[Any, ...] = (
    *(None, -1, 0, 1, 2, 7, 1e300, float("nan"), float("inf"), 1 << 70, True, "", "x", "2", "\x1b"),
    *([], {}, [1], {"a": None}, {"turn": ["x"]}, {"a": {"b": 1}}),
)
TIMES = (0, 1, 1000, 10**9, -1, -(1 << 63), (1 << 63) - 1)


def _rank_rows(choices: Choices) -> bytes:
    header = HEADER | {"pp_rank": choices.number(3)}
    for _ in range(choices.number(4)):
        header[choices.one_of(["new", *HEADER])] = choices.one_of(ODD)
    text = json.dumps(header).encode()
    if choices.number(8) == 1:
        text = choices.some(30) + text
    data = bytearray(text.ljust(rows.HEADER_BYTES, b"\0"))
    begin = 10**12
    for number in range(choices.number(120)):
        kind, flags = choices.one_of((13, 1, 2, 3, 14, 0, 255)), choices.number(32)
        length = 1000 * choices.number(256)
        odd = choices.number(64)
        turn = number // 3 if odd != 1 else choices.one_of((0, 1 << 31, 5))
        end = begin + length if odd != 2 else choices.one_of(TIMES)
        count = number + 1 if odd != 3 else choices.one_of((0, 1, 1 << 63))
        torn = 5 if odd == 4 else count
        row = (count, begin, end, turn, kind, flags, 8, number, odd)
        data += rows.LAYOUT.pack(*row, torn & rows.LOW)
        begin += length // (1 + kind % 2)
    if choices.number(8) == 1:
        del data[choices.number(len(data)) :]
    return bytes(data)


def _stored(data: bytes, choices: Choices) -> bytes:
    """Compressed, and perhaps damaged."""
    stored = bytearray(gzip.compress(data, 1, mtime=0))
    damage = choices.number(8)
    if damage == 1:
        del stored[choices.number(len(stored)) :]
    elif damage == 2:
        stored[choices.number(len(stored))] ^= 1 << choices.number(8)
    elif damage == 3:
        stored += choices.some(20)
    return bytes(stored)


CLIENTS: tuple[Any, ...] = (
    None,
    {"requests": [{"start_ns": 10**12, "events": [[2 * 10**12, 3]]}]},
    {"requests": [{"start_ns": None, "events": [[1]]}]},
    {"requests": {"a": 1}},
    {"requests": [1, None, {"events": 5}]},
    {"requests": [{"start_ns": "x", "events": [["y"]]}]},
    {"requests": [{"start_ns": 1e300, "events": [[float("nan"), 1]]}]},
    [1],
)


def _rows(choices: Choices) -> None:
    place = folder()
    for path in place.glob("*"):
        path.unlink()
    client = choices.one_of(CLIENTS)
    if client is not None:
        (place / f"{LABEL}_client.json").write_text(json.dumps(client), encoding="utf-8")
    for rank in range(1 + choices.number(3)):
        name = f"{LABEL}{rows.CLOCK}_PP{rank}_TP0{rows.SUFFIX}"
        if choices.number(4) == 1:
            (place / name).write_bytes(choices.some(200))
        elif choices.number(3) == 1:
            (place / (name + ".gz")).write_bytes(_stored(_rank_rows(choices), choices))
        else:
            (place / name).write_bytes(_rank_rows(choices))
    found = collect.read(place, LABEL, {"PP0": "no"})
    again = collect.collect(place, LABEL, {"PP0": "no"})
    check((found is None) == (again is None), "rows there, and not there")
    if found is None or again is None:
        return
    strict_json(msgspec.json.encode(found))
    check(msgspec.json.encode(found) == msgspec.json.encode(again), "not the same")
    check(collect.load(place, LABEL) is not None, "facts that cannot be read again")
    for line in clock_lines(found):
        plain(line, "the clock's lines")


def _info(choices: Choices) -> None:
    """What a server says of itself."""
    try:
        value = json.loads(choices.rest())
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict):
        json.dumps(resolved(value))


def run(data: bytes) -> None:
    """Raises Fault, or whatever a reader lets out."""
    choices = Choices(data)
    choices.one_of((_log, _rows, _log, _rows, _log, _info, _log, _log))(choices)


def seeds() -> list[bytes]:
    """Logs of servers that died, each line by itself too; rows as ranks write them."""
    logs = [path.read_bytes() for path in sorted((DATA / "server_logs").glob("*.log"))]
    found = [b"\0\0" + text for text in logs]
    found += [b"\0\3" + b"\n".join(text.splitlines()[:FIRST_LINES]) for text in logs]
    plain_row = bytes([0, 16, 9, 5])
    for ranks in (0, 1, 2):
        one = bytes([0, 0, 0, ranks % 3, 0, 0, 60]) + plain_row * 60
        found.append(bytes([1, 1, ranks]) + one * (ranks + 1))
    info = {"model_path": "m", "internal_states": [], "api_key": "k", "max": {"a": [1, "b"]}}
    return [*found, b"\5" + json.dumps(info).encode()]
