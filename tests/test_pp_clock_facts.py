"""The facts of a launch's clock: stored, read again, printed, each rank under its own name."""

from __future__ import annotations

import json

import pytest
from made_up_rank import CALLS, EVERYTHING, Rank, steady

from repro_pp_graphs import files
from repro_pp_graphs.pp_clock import collect, launch_facts, lines, rows


def test_a_launchs_facts_are_stored_and_read_again(tmp_path):
    file = rows.RowFile(tmp_path / "A_pp_clock_PP1_TP0.rows", 1 << 12)
    file.describe(**{**steady().header})
    for row in steady().rows:
        file.write(*row[1:7], row.value)
    client = {"requests": [{"start_ns": 0, "events": [[10**12, 1]]}]}
    (tmp_path / "A_client.json").write_text(json.dumps(client), encoding="utf-8")
    found = collect.collect(tmp_path, "A", {})
    assert found is not None and found == launch_facts.summary([steady().file], EVERYTHING)
    assert collect.load(tmp_path, "A") == found == collect.read(tmp_path, "A", {})
    assert "PP1 decode, measured (38 turns)" in (tmp_path / "A_pp_clock.txt").read_text()
    assert collect.load(tmp_path, "B") is None
    (tmp_path / "A_pp_clock.json").write_text("{}", encoding="utf-8")
    with pytest.raises(files.BadFile, match=r"A_pp_clock\.json"):
        collect.load(tmp_path, "A")


def test_lines_are_at_most_80_columns():
    rank = steady()
    for at in range(40):
        rank.own_batch(at, 2, 12)
    text = lines.lines(launch_facts.summary([rank.file], EVERYTHING))
    assert max(map(len, (line for line in text if not line.startswith("!")))) <= 80
    assert any("outside it" in line for line in text)


def test_ranks_of_several_tp_lanes_have_names_of_their_own():
    files_ = []
    for pp in (0, 1):
        for tp in (0, 1):
            rank = Rank(pp)
            rank.header["tp_rank"] = tp
            rank.turn(0, CALLS)
            files_.append(rank.file)
    found = launch_facts.summary(files_, EVERYTHING)
    assert list(found.ranks) == ["PP0 TP0", "PP0 TP1", "PP1 TP0", "PP1 TP1"]
    assert found.last == "PP1 TP0"
