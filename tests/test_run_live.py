"""The line that shows what a step is at: rewritten on a terminal, sparse elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from repro_pp_graphs.run.launch.live_line import LiveLine
from repro_pp_graphs.terminal import wrapped


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the test sets."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_off_a_terminal_a_long_stage_is_told_again_at_ever_later_moments(clock, capsys):
    line = LiveLine("server")
    for second in range(600):
        clock[0] = float(second)
        line.show("loading weights", f"at {second} s " + "x" * 90)
    printed = capsys.readouterr().out.splitlines()
    times_s = [int(row.split("at ")[1].split()[0]) for row in printed]
    assert times_s == [0, 30, 60, 90, 135, 203, 305, 458]
    assert all(row.startswith("  server") and len(row) <= 80 for row in printed)


def test_off_a_terminal_every_change_of_stage_is_told_at_once(clock, capsys):
    line = LiveLine("server")
    for stage in ("starting", "starting", "loading weights", "ready"):
        line.show(stage)
    assert [row.split("s  ")[1] for row in capsys.readouterr().out.splitlines()] == [
        "starting",
        "loading weights",
        "ready",
    ]


def test_on_a_terminal_one_line_is_rewritten_within_its_width(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    line = LiveLine("server")
    for second in (0.25, 0.5, 7.75):
        clock[0] = second
        line.show("loading weights", "Loading shards: 40% " + "x" * 60)
    line.end("ready")
    shown = capsys.readouterr().out
    assert shown.count("\n") == 1 and shown.endswith("  server    7.8 s  ready\n")
    states = shown.split("\r\x1b[K")[1:]
    assert [len(state) for state in states[:-1]] == [59, 59, 59]
    assert "7.8 s  loading weights: Loading shards: 40%" in states[2]


def test_wrapping_leaves_what_may_be_copied_whole():
    path = "/a/very/long-path/" * 8
    lines = wrapped(f"some words before {path} and --some-option after them", "  note: ")
    assert f"        {path}" in lines
    assert all(len(line) <= 79 for line in lines if path not in line)
