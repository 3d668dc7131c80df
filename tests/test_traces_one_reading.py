"""explain_case: the merged trace and the analysis from one reading of the traces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from trace_changes import DATA

from repro_pp_graphs.traces.commands.analyze import main as analyze
from repro_pp_graphs.traces.commands.merge import main as merge
from repro_pp_graphs.traces.commands.one_reading import CannotExplainError, explain_case
from repro_pp_graphs.traces.read.rank import read_rank


def test_one_reading_gives_what_merge_and_analyze_give(tmp_path, capsys, monkeypatch):
    read: list[Path] = []

    def counted(path, *more):
        read.append(path)
        return read_rank(path, *more)

    folder = DATA / "sglang0516_graphs_on"
    assert merge([str(folder), "-o", str(tmp_path / "1.json")]) == 0
    capsys.readouterr()
    assert analyze([str(folder), "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    monkeypatch.setattr("repro_pp_graphs.traces.read.cases.read_rank", counted)
    monkeypatch.setattr("repro_pp_graphs.traces.read.cases.workers_for", lambda paths: 1)
    new = [tmp_path / "new" / name for name in ("merged.json", "b.json", "b.txt")]
    found = explain_case(folder, *new)
    assert sorted(read) == sorted(folder.iterdir())
    assert new[0].read_bytes() == (tmp_path / "1.json").read_bytes()
    assert new[1].read_bytes() == (tmp_path / "a.json").read_bytes()
    assert new[2].read_text() == printed
    warnings = json.loads(new[1].read_text())["warnings"]
    assert (found.ranks, found.warnings) == (2, warnings[: len(found.warnings)])
    assert len(found.warnings) == 1  # what reading them warned of; the rest is of pairing
    assert found.events == len(json.loads(new[0].read_text())["traceEvents"])
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "b.json",
        "b.txt",
        "merged.json",
    ]


def test_what_cannot_be_explained_is_said_and_leaves_no_file(tmp_path):
    (tmp_path / "x-TP-0-PP-0.trace.json").write_text("{")
    files = [tmp_path / "out" / name for name in ("merged.json", "a.json", "a.txt")]
    with pytest.raises(CannotExplainError, match=r"no trace could be read: give a folder .*x-TP-0"):
        explain_case(tmp_path, *files)
    with pytest.raises(FileNotFoundError):
        explain_case(tmp_path / "nowhere", *files)
    assert not (tmp_path / "out").exists()
    blocked = tmp_path / "file"
    blocked.touch()  # where a folder is needed
    with pytest.raises(OSError, match=str(blocked)):
        explain_case(DATA / "cpu_prefill", tmp_path / "m.json", files[1], blocked / "b.txt")
