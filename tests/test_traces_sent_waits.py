"""Waits for earlier sends, which pp_clock names in a trace: the host's time, its causes, the path.

The trace is of sglang 0.5.21 on a CPU, PP 4, on a machine with much else to do: peers come late.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import DATA, Event, analysed, only_case, texts, with_events

from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.explain.words import ROW_TITLES
from repro_pp_graphs.traces.pair.host_clocks import move
from repro_pp_graphs.traces.path.whole_analysis import explained

pytestmark = pytest.mark.slow

REAL = "cpu_async_pp4"
WAIT = "pp_clock:wait "


def changed(folder: Path, name: str) -> Path:
    """The trace with every such wait under another name; empty: without any."""

    def change(event: Event) -> Event | None:
        if not str(event.get("name", "")).startswith(WAIT):
            return event
        return event | {"name": name} if name else None

    folder.mkdir()
    for each, text in texts(REAL).items():
        (folder / each).write_text(with_events(text, change))
    return folder


def test_every_wait_has_its_sends_and_ends_after_the_peer_began_to_receive():
    """By the annotations alone: the receive of a number begins before the wait for it ends."""
    begun: dict[str, float] = {}
    sent: set[str] = set()
    waits: list[tuple[float, list[str]]] = []
    for text in texts(REAL).values():
        document = msgspec.json.decode(text)
        base_us = document["baseTimeNanoseconds"] / 1000
        for event in document["traceEvents"]:
            name = str(event.get("name", ""))
            if event.get("ph") != "X" or event.get("cat") != "user_annotation":
                continue
            if found := re.fullmatch(r"pp_clock:recv (\S+ \S+_cpu #\d+)", name):
                begun[found[1]] = base_us + event["ts"]
            if found := re.fullmatch(r"pp_clock:send (\S+ \S+_cpu #\d+)", name):
                sent.add(found[1])
            if name.startswith(WAIT):
                sends = re.findall(r"send (\S+ \S+_cpu #\d+)", name)
                waits.append((base_us + event["ts"] + event["dur"], sends))
    known = [(end, max(begun[each] for each in its if each in begun)) for end, its in waits
             if any(each in begun for each in its)]  # fmt: skip
    assert len(known) > 60
    assert all(began <= end for end, began in known)
    read = [wait for rank in only_case(DATA / REAL).ranks for wait in rank.sent_waits]
    assert len(read) == sum(not sent.isdisjoint(its) for _, its in waits)
    assert all(send.kind == "send" and send.backend == "gloo" for w in read for send in w.sends)


def test_without_their_names_the_path_of_a_token_is_not_known(tmp_path):
    named, nameless = (
        " ".join(" ".join(lines(explained(only_case(folder)))).split())
        for folder in (DATA / REAL, changed(tmp_path / "t", ""))
    )
    assert "One token's way round, the critical path of" in named
    assert "in nothing that its trace shows" not in named
    assert "in nothing that its trace shows" in nameless


def test_they_are_time_in_their_messages_and_no_longer_python(tmp_path):
    named, nameless = (
        analysed(only_case(folder))["turns"]["0"]
        for folder in (DATA / REAL, changed(tmp_path / "t", ""))
    )
    assert named["mean"] == nameless["mean"]
    less = nameless["rows"]["python"]["mean"] - named["rows"]["python"]["mean"]
    sends = ("token_send", "hidden_send", "requests")
    more = sum(named["rows"][row]["mean"] - nameless["rows"][row]["mean"] for row in sends)
    assert less == pytest.approx(more, abs=0.01) and less > 1000  # us
    for row in named["rows"].values():
        assert sum(row["waits"].values()) <= row["mean"] + 0.01
    assert named["rows"]["hidden_send"]["waits"]["peer_late"] > 1000
    assert set(named["rows"]) <= set(ROW_TITLES)


def test_names_that_say_something_else_are_no_waits(tmp_path):
    for number, name in enumerate(("send 0->1", "recv 0->1 pp_cpu #1", "send 9->8 pp_cpu #1")):
        folder = changed(tmp_path / str(number), WAIT + name)
        assert not any(rank.sent_waits for rank in only_case(folder).ranks)


def test_they_are_moved_with_their_rank():
    (one, *_), (other, *_) = (only_case(DATA / REAL).ranks for _ in range(2))
    move(other, 5_000_000)
    for before, after in zip(one.sent_waits, other.sent_waits, strict=True):
        assert after.start_ns - before.start_ns == after.end_ns - before.end_ns == 5_000_000
        assert [send.start_ns for send in after.sends] == [
            send.start_ns + 5_000_000 for send in before.sends
        ]
