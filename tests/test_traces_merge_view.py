"""A view of a merged trace: some ranks, some time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
import trace_changes
from merged_traces import DATA, faults, merged, merged_real

from repro_pp_graphs.traces.commands.merge import main as merge


def merged_by(folder: Path, *options: str) -> Path:
    target = folder / f"{'_'.join(options) or 'all'}.json".replace("--", "")
    assert merge([str(DATA / "h200_case_A"), "-o", str(target), *options]) == 0
    return target


def test_a_view_of_some_ranks_and_some_time_holds_these_alone(tmp_path: Path):
    everything = merged_real("h200_case_A")
    part = merged_by(tmp_path, "--ranks", "0,3", "--window", "20-60")
    document = msgspec.json.decode(part.read_bytes())
    names = {e["args"]["name"] for e in document["traceEvents"] if e["name"] == "process_name"}
    assert {name[:3] for name in names} == {"PP0", "PP3"}
    inside = [e for e in document["traceEvents"] if e["ph"] == "X" and e["cat"] == "kernel"]
    begin, end = document["view"]["start"] / 1000, document["view"]["end"] / 1000
    assert end - begin == pytest.approx(40_000, abs=1)
    assert all(e["ts"] <= end and e["ts"] + e["dur"] >= begin for e in inside)
    of_all = [e for e in everything["traceEvents"] if e["ph"] == "X" and e["cat"] == "kernel"]
    assert 0 < len(inside) < len(of_all) / 4
    assert [len(files) for files in document["mergedFrom"].values()] == [2]
    # nothing but what was under way is longer than that: the viewer would show all of its time
    of_the_profiler = [
        [e for e in events["traceEvents"] if e.get("cat") == "Trace"]
        for events in (everything, document)
    ]
    assert of_the_profiler[0] and not of_the_profiler[1]


def test_no_arrow_of_a_view_has_an_end_outside_it(tmp_path: Path):
    document = msgspec.json.decode(merged_by(tmp_path, "--window", "20-60").read_bytes())
    stops = Counter(e["id"] for e in document["traceEvents"] if e.get("cat") == "p2p")
    assert stops and min(stops.values()) >= 2


def test_a_view_beyond_the_limit_is_cut_with_a_word_on_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    whole = merged_by(tmp_path, "--limit", "0").stat().st_size
    assert capsys.readouterr().err == ""
    cut = merged_by(tmp_path, "--limit", f"{whole / 4e6:.3f}")
    said = " ".join(capsys.readouterr().err.split())
    assert "ms are shown, the rest is left out" in said
    assert 0.02 * whole < cut.stat().st_size < 0.7 * whole


@pytest.mark.parametrize(
    "words", [["--ranks", "a"], ["--ranks", "9"], ["--window", "5"], ["--window", "9-3"]]
)
def test_a_view_of_nothing_is_refused(tmp_path: Path, words: list[str]):
    target = tmp_path / "x.json"
    try:
        status = merge([str(DATA / "h200_case_A"), "-o", str(target), *words])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert not target.exists()


@pytest.mark.parametrize("name", [0, 1.5, None, [], {"a": 1}, True])
def test_an_event_whose_name_is_no_text_is_left_out(tmp_path, name):
    (file, text), *_ = trace_changes.texts().items()
    changed = trace_changes.with_events(
        text, lambda event: event | {"name": name} if event.get("cat") == "cpu_op" else event
    )
    (tmp_path / file).write_text(changed)
    document = merged(tmp_path / "merged" / "out.json", tmp_path)
    assert faults(document) == []
    kept, there = (
        Counter(event["cat"] for event in each["traceEvents"] if "cat" in event)
        for each in (document, msgspec.json.decode(text))
    )
    assert kept["cpu_op"] == 0 < there.pop("cpu_op")
    assert there.items() <= kept.items() and len(there) > 5
