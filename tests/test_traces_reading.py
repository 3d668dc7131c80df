"""Reading the ranks' files: what is damaged is named once, and the rest is still analysed."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import DATA, analysed, only_case
from trace_maker import TraceMaker, ring

from repro_pp_graphs.traces.commands.analyze import main as analyze
from repro_pp_graphs.traces.commands.merge import main as merge
from repro_pp_graphs.traces.read import blocks as events
from repro_pp_graphs.traces.read import cases as folder
from repro_pp_graphs.traces.read.cases import cases_of


def write_ring(folder: Path, pp_size: int = 2, **kwargs) -> list[TraceMaker]:
    makers = ring(pp_size, **kwargs)
    for maker in makers:
        maker.write(folder)
    return makers


def test_every_rank_of_a_healthy_folder_is_read_without_warnings(tmp_path):
    write_ring(tmp_path, 4)
    case = only_case(tmp_path)
    assert [rank.pp for rank in case.ranks] == [0, 1, 2, 3]
    assert case.warnings == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: b"", "is empty"),
        (lambda data: gzip.compress(b"hello"), "no traceEvents"),
        (lambda data: gzip.compress(b'{"traceEvents": []}'), "traceEvents is empty"),
        (lambda data: gzip.compress(gzip.decompress(data)[:-400]), "not valid JSON"),
    ],
)
def test_a_damaged_file_is_named_and_the_other_ranks_are_analysed(tmp_path, damage, says, capsys):
    write_ring(tmp_path)
    broken = tmp_path / "CASE-TP-0-PP-1.trace.json.gz"
    broken.write_bytes(damage(broken.read_bytes()))
    assert analyze([str(tmp_path), "--json", str(tmp_path / "out")]) == 0
    facts = json.loads((tmp_path / "out").read_text())
    named = [text for text in facts["warnings"] if text.startswith(broken.name)]
    about = [text for text in named if says in text]
    assert len(about) == 1
    assert "0" in facts["ranks"]
    assert f"warning: {about[0]}" in " ".join(capsys.readouterr().out.split())


def test_events_before_a_broken_end_are_kept(tmp_path):
    makers = write_ring(tmp_path)
    text = makers[1].text()
    (tmp_path / "CASE-TP-0-PP-1.trace.json.gz").unlink()
    (tmp_path / "CASE-TP-0-PP-1.trace.json").write_text(text[: text.rindex('"ph": "X"')])
    rank = only_case(tmp_path).ranks[1]
    assert rank.events == len(makers[1].events) - 1


@pytest.mark.parametrize("unzipper", ["isal", "zlib"])
def test_a_gzip_stream_is_read_up_to_the_byte_it_breaks_off_at(tmp_path, monkeypatch, unzipper):
    if unzipper == "zlib":
        monkeypatch.setattr(events, "igzip", None)
    maker = ring(1)[0]
    path = tmp_path / "CASE-TP-0-PP-0.trace.json.gz"
    whole = gzip.compress(maker.text().encode())
    for broken in (whole[:-8], whole + b"no gzip"):
        path.write_bytes(broken)
        case = only_case(tmp_path)
        assert case.ranks[0].events == len(maker.document()["traceEvents"])
        assert [text for text in case.warnings if "cut short" in text] == case.warnings[:1]


def test_files_of_a_process_that_was_killed_are_read_by_this_one(tmp_path, monkeypatch):
    write_ring(tmp_path, 4)
    here, read_rank = os.getpid(), folder.read_rank
    monkeypatch.setattr(folder, "workers_for", lambda paths: 2)
    monkeypatch.setattr(
        folder, "read_rank", lambda *file: read_rank(*file) if os.getpid() == here else os._exit(9)
    )
    assert [rank.pp for rank in only_case(tmp_path).ranks] == [0, 1, 2, 3]


@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_read_what_one_reads(monkeypatch, processes):
    whole = analysed(only_case(DATA / "sglang052_pp4"))
    monkeypatch.setattr(folder, "workers_for", lambda paths: processes)
    assert analysed(only_case(DATA / "sglang052_pp4")) == whole


def test_more_text_than_starting_processes_costs_is_read_by_several(tmp_path, monkeypatch):
    monkeypatch.setattr(folder.os, "sched_getaffinity", lambda pid: range(8), raising=False)
    files = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    for path in files:
        path.touch()
    assert folder.workers_for(files) == 1
    os.truncate(files[0], folder.PARALLEL_FROM_BYTES)
    assert folder.workers_for(files) == 3
    zipped = tmp_path / "d.json.gz"
    zipped.touch()
    for size, processes in ((1000, 1), (folder.PARALLEL_FROM_BYTES // folder.TEXT_OF_GZIP, 2)):
        os.truncate(zipped, size)
        assert folder.workers_for([zipped, files[1]]) == processes


def test_a_header_that_is_no_json_is_told_and_its_events_are_read(tmp_path):
    maker = ring()[0]
    text = maker.text().replace("{", '{"host_name": oops, ', 1)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(text)
    case = only_case(tmp_path)
    assert case.ranks[0].events == len(maker.document()["traceEvents"])
    assert len([text for text in case.warnings if "header is not valid" in text]) == 1


def test_a_name_that_is_no_utf_8_costs_no_event(tmp_path):
    maker = ring()[0]
    text = maker.text().encode().replace(b'"name": "', b'"name": "\xff', 1)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_bytes(text)
    assert only_case(tmp_path).ranks[0].events == len(maker.document()["traceEvents"])


def test_words_that_would_be_no_numbers_stay_where_they_are_part_of_a_name(tmp_path):
    path = tmp_path / "CASE-TP-0-PP-0.trace.json"
    path.write_text('{"traceEvents":[{"ph":"X","name":"loss: nan, inf"}]}')
    assert [bytes(block) for block in events.TraceFile(path).blocks()] == [
        b'[{"ph":"X","name":"loss: nan, inf"}]'
    ]


def test_small_blocks_give_the_same_rank_as_one_piece(tmp_path, monkeypatch):
    write_ring(tmp_path, steps=30)
    whole = only_case(tmp_path).ranks
    monkeypatch.setattr(events, "BLOCK_BYTES", 777)
    pieces = only_case(tmp_path).ranks
    assert [(r.events, r.p2p, r.spans) for r in whole] == [
        (r.events, r.p2p, r.spans) for r in pieces
    ]


def test_json_of_another_layout_reads_the_same(tmp_path):
    kineto, compact = tmp_path / "kineto", tmp_path / "compact"
    for target in (kineto, compact):
        target.mkdir()
    for maker in write_ring(kineto):
        name = f"CASE-TP-0-PP-{maker.rank}.trace.json"
        (compact / name).write_text(json.dumps(maker.document(), separators=(",", ":")))
    ours, theirs = only_case(kineto).ranks, only_case(compact).ranks
    assert [rank.p2p for rank in ours] == [rank.p2p for rank in theirs]


def test_numbers_that_json_has_no_word_for_are_read_as_absent(tmp_path):
    maker = ring()[0]
    text = maker.text().replace('"External id": 1,', '"bandwidth": inf, "External id": 1,', 1)
    (tmp_path / "CASE-TP-0-PP-0.trace.json").write_text(text)
    assert only_case(tmp_path).ranks[0].events == len(maker.document()["traceEvents"])


@pytest.mark.parametrize("separators", [None, (",", ":")], ids=["spaced", "compact"])
def test_an_event_that_is_none_costs_only_itself(tmp_path, separators):
    document = ring()[0].document()
    count = len(document["traceEvents"])
    odd = {"ph": "X", "cat": "kernel", "name": "k", "pid": 0, "tid": 7, "dur": 1.0}
    document["traceEvents"] += [{**odd, "ts": float("nan")}, {**odd, "cat": None, "ts": 1.0}]
    path = tmp_path / "CASE-TP-0-PP-0.trace.json"
    path.write_text(json.dumps(document, separators=separators))
    case = only_case(tmp_path)
    assert case.ranks[0].events == count
    assert sum("1 event(s) with a name, category or id" in text for text in case.warnings) == 1
    assert sum("1 whose time is no number" in text for text in case.warnings) == 1
    assert merge([str(tmp_path), "-o", str(tmp_path / "merged" / "out.json")]) == 0
    kept = msgspec.json.decode((tmp_path / "merged" / "out.json").read_bytes())["traceEvents"]
    assert sum(event["ph"] == "X" for event in kept) >= sum(
        event["ph"] == "X" for event in document["traceEvents"][:count]
    )


def test_a_missing_rank_is_told_from_the_world_size(tmp_path):
    makers = ring(4)
    for maker in makers[:3]:
        maker.write(tmp_path)
    case = only_case(tmp_path)
    assert case.pp_size == 4
    assert any("no trace of PP3" in text for text in case.warnings)


def test_distributed_info_wins_over_the_name_and_the_disagreement_is_told(tmp_path):
    first, second = ring(2)
    first.write(tmp_path, "CASE-TP-0-PP-1.trace.json.gz")
    second.write(tmp_path, "CASE-TP-0-PP-0.trace.json.gz")
    case = only_case(tmp_path)
    assert {rank.pp: Path(rank.path).name for rank in case.ranks} == {
        0: "CASE-TP-0-PP-1.trace.json.gz",
        1: "CASE-TP-0-PP-0.trace.json.gz",
    }
    assert sum("used distributedInfo" in text for text in case.warnings) == 2


def test_without_distributed_info_the_name_tells_the_rank(tmp_path):
    for maker in ring(2):
        maker.header = {"distributedInfo": None}
        maker.write(tmp_path)
    assert [rank.rank for rank in only_case(tmp_path).ranks] == [0, 1]


def test_without_ranks_in_the_names_distributed_info_tells_them(tmp_path):
    for number, maker in enumerate(reversed(ring(2))):
        maker.write(tmp_path, f"trace_{number}.json.gz")
    assert [rank.pp for rank in only_case(tmp_path).ranks] == [0, 1]


def test_two_profiles_in_one_folder_are_two_cases(tmp_path):
    for case in ("1700000001.5", "1700000002.5"):
        for maker in ring(2):
            maker.write(tmp_path, f"{case}-TP-0-PP-{maker.rank}.trace.json.gz")
    assert list(cases_of([tmp_path])) == ["1700000001.5", "1700000002.5"]


def test_exit_status_1_when_nothing_can_be_read_and_2_when_there_is_no_such_path(tmp_path, capsys):
    (tmp_path / "a.trace.json").write_text("no json")
    assert analyze([str(tmp_path)]) == 1
    assert analyze([str(tmp_path / "nowhere")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "asked", "warned"),
    [
        ("client.json", b'{"schema": 1, "requests": []}', False, False),
        ("client.json.gz", gzip.compress(b"{}", mtime=0), False, False),
        ("client.json", b'{"schema": 1, "requests": [', False, True),  # cut short
        ("client.json", b"", False, True),
        ("7-TP-0-PP-2.trace.json", b"{}", False, True),  # named as a rank's
        ("client.json", b"{}", True, True),  # asked for
    ],
)
def test_json_of_another_kind_beside_traces_is_left_alone(tmp_path, name, text, asked, warned):
    write_ring(tmp_path)
    (tmp_path / name).write_bytes(text)
    out = tmp_path / "out"
    files = sorted(map(str, tmp_path.glob("*.json*"))) if asked else [str(tmp_path)]
    assert analyze([*files, "--json", str(out)]) == 0
    facts = json.loads(out.read_text())
    assert {"0", "1"} <= set(facts["ranks"])
    assert any(text.startswith(f"{name}: ") for text in facts["warnings"]) == warned


def test_the_made_up_layout_is_valid_json_and_has_kinetos_event_boundary():
    maker = ring()[0]
    assert json.loads(maker.text()) == maker.document()
    assert maker.text().count("},\n  {") == len(maker.document()["traceEvents"]) - 1
