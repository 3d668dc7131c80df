"""The files of a trace: whole, or still being written."""

from __future__ import annotations

import gzip
import os

import pytest

from repro_pp_graphs.run.folder.trace_files import TraceFiles, is_whole_gzip


@pytest.fixture
def whole() -> bytes:
    return gzip.compress(os.urandom(3 << 20))  # more than one read


def test_a_whole_trace_is_told_from_one_still_being_written(tmp_path, whole):
    path = tmp_path / "1-TP-0-PP-0.trace.json.gz"
    pieces = {
        "whole": (whole, True),
        "two members": (whole + gzip.compress(b"{}"), True),
        "empty": (b"", False),
        "header only": (whole[:10], False),
        "half": (whole[: len(whole) // 2], False),
        "check sum cut": (whole[:-1], False),
        "damaged": (whole[:-8] + b"\0" * 8, False),
        "not gzip": (b'{"traceEvents": []}', False),
    }
    found = {}
    for name, (data, _) in pieces.items():
        path.write_bytes(data)
        found[name] = is_whole_gzip(path)
    assert found == {name: expected for name, (_, expected) in pieces.items()}
    assert not is_whole_gzip(tmp_path / "absent")


def test_a_growing_file_is_looked_at_again_and_a_whole_one_is_not(tmp_path, whole, monkeypatch):
    files = TraceFiles(tmp_path)
    path = tmp_path / "1-TP-0-PP-0.trace.json.gz"
    path.write_bytes(whole[:1000])
    (tmp_path / "1-TP-0-PP-1.trace.json").write_bytes(whole)  # another name
    assert files.whole() == []
    path.write_bytes(whole)
    assert files.whole() == [path]
    monkeypatch.setattr(
        "repro_pp_graphs.run.folder.trace_files.is_whole_gzip",
        lambda path: pytest.fail("read again"),
    )
    assert files.whole() == [path]
