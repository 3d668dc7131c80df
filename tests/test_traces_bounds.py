"""Traces that are bombs, or at times that no clock has: read up to a stated limit, said so."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from repro_pp_graphs.traces.read import blocks
from repro_pp_graphs.traces.read.blocks import TraceFile
from repro_pp_graphs.traces.read.cases import read_case
from repro_pp_graphs.traces.read.identity import identify

EVENT = b'{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":5,"dur":1}'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ALWAYS_UNPACKED", 1 << 19)
    monkeypatch.setattr(blocks, "LONGEST_PIECE", 1 << 19)
    monkeypatch.setattr(blocks, "LONGEST_OTHER", 1 << 19)


@pytest.mark.parametrize(
    ("begin", "filler"),
    [(b"", b"\0"), (b"", b"{"), (b'{"traceEvents": [', b" "), (b"[", EVENT + blocks.EVENT_GAP)],
)
def test_a_gzip_bomb_is_read_up_to_a_limit(tmp_path: Path, small: None, begin, filler):
    path = tmp_path / "1-TP-0-PP-0.trace.json.gz"
    path.write_bytes(gzip.compress(begin + filler * ((32 << 20) // len(filler))))
    trace = TraceFile(path)
    read = sum(len(block) for block in trace.blocks())
    assert read <= max(1 << 20, path.stat().st_size * blocks.MOST_UNPACKED) + (1 << 18)
    assert any("read" in problem for problem in trace.problems)


def test_a_trace_with_the_usual_ratio_is_read_whole(tmp_path: Path):
    path = tmp_path / "1.trace.json.gz"
    path.write_bytes(gzip.compress(b"[" + blocks.EVENT_GAP.join([EVENT] * 50_000) + b"]"))
    trace = TraceFile(path)
    assert sum(bytes(block).count(b'"ph"') for block in trace.blocks()) == 50_000
    assert trace.problems == []


@pytest.mark.parametrize("ts", ["9e22", "-9e22", "99999999999999999999999", "1e300"])
@pytest.mark.filterwarnings("error")
def test_a_time_that_int64_cannot_hold_is_no_time(tmp_path: Path, ts):
    path = tmp_path / "1-TP-0-PP-0.trace.json"
    path.write_text(EVENT.decode().replace("5", ts).join("[]"))
    case = read_case("x", identify([path]))
    assert case.ranks == [] and case.warnings
