"""The rows of pp_clock: what a rank writes outlives kill -9, and a torn row is recognised."""

from __future__ import annotations

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro_pp_graphs.pp_clock import collect, kept, rows

ROOT = Path(__file__).resolve().parents[1]
WRITER = """
import sys
from pathlib import Path
from repro_pp_graphs.pp_clock import rows
file = rows.RowFile(Path(sys.argv[1]), 1 << 12)
file.describe(pp_rank=1, pp_size=2, loop_size=2)
while True:
    at = file.count
    file.write(at, at + 7, at // 10, 2, 0, 4, 5)
    if at == 1000:
        print("some", flush=True)
"""


def test_rows_are_read_after_the_writer_was_killed(tmp_path):
    path = tmp_path / "x.rows"
    command = [sys.executable, "-c", WRITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == b"some\n"
        writer.send_signal(signal.SIGKILL)
    assert writer.returncode == -signal.SIGKILL
    found = rows.read(path)
    assert found.header["pp_rank"] == 1 and found.torn <= 1
    assert len(found.rows) > 1000 or found.lost
    for row in found.rows:
        at = row.number - 1
        assert row == (at + 1, at, at + 7, at // 10, 2, 0, 4, 0, 5)
    numbers = [row.number for row in found.rows]
    assert numbers[0] == found.lost + 1
    # one may be torn, where the kill came
    assert numbers[-1] - numbers[0] + 1 - len(numbers) <= found.torn


def written(path: Path, count: int, capacity: int = 8) -> rows.RowFile:
    file = rows.RowFile(path, capacity)
    file.describe(pp_rank=0)
    for at in range(count):
        file.write(at, at + 1, at, 2)
    return file


@pytest.mark.parametrize(("count", "lost"), [(0, 0), (1, 0), (8, 0), (9, 1), (27, 19)])
def test_when_full_the_newest_stay_and_the_lost_are_counted(tmp_path, count, lost):
    written(tmp_path / "x.rows", count)
    found = rows.read(tmp_path / "x.rows")
    assert found.lost == lost and found.torn == 0
    assert [row.number for row in found.rows] == list(range(lost + 1, count + 1))


@pytest.mark.parametrize("cut", range(1, rows.ROW_BYTES))
def test_a_row_of_which_a_part_was_written_is_torn(tmp_path, cut):
    # a row's bytes come from the front: its number is new, the one at its end is still the old
    path = tmp_path / "x.rows"
    file = written(path, 11)
    third = rows.HEADER_BYTES + 2 * rows.ROW_BYTES
    whole = bytes(file.map[third : third + rows.ROW_BYTES])
    before = rows.LAYOUT.pack(3, 2, 3, 2, 2, 0, 0, 0, 0, 3)
    file.map[third : third + rows.ROW_BYTES] = whole[:cut] + before[cut:]
    found = rows.read(path)
    numbers = [row.number for row in found.rows]
    seen = 11 in numbers
    # complete only where what is missing is equal in both rows
    assert seen == (whole[:cut] + before[cut:] == whole)
    assert seen or found.torn == 1


def test_the_room_is_taken_at_the_start(tmp_path):
    path = tmp_path / "x.rows"
    written(path, 0, 1 << 12)
    assert path.stat().st_blocks * 512 >= rows.HEADER_BYTES + (1 << 12) * rows.ROW_BYTES


def test_a_disk_that_is_nearly_full_gives_fewer_rows(tmp_path, monkeypatch):
    def capacity(free: int, wanted: int) -> int:
        monkeypatch.setattr(rows.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        return rows.capacity_for(tmp_path, wanted)

    enough = 20_000 * rows.DISK_SHARE * rows.ROW_BYTES
    assert capacity(enough, 20_000) == 20_000
    assert capacity(enough // 2, 20_000) == 10_000
    assert capacity(1 << 20, 1 << 20) == rows.LEAST_CAPACITY


def test_the_kept_copy_says_the_same_and_takes_little_room(tmp_path):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    written(path, 300, 1 << 16)
    before = rows.read(path)
    copy = rows.keep(path)
    assert rows.read(copy) == before and not path.exists()
    assert copy.stat().st_size < 20_000
    assert kept.row_files(tmp_path, "x") == [copy]


def test_rows_of_a_server_by_hand_take_the_place_of_none_that_a_run_kept(tmp_path):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    written(path, 7)
    copy = rows.keep(path)
    written(path, 5)
    assert kept.keep_all(tmp_path) == [] and kept.row_files(tmp_path, "x") == [path, copy]
    assert (len(rows.read(path).rows), len(rows.read(copy).rows)) == (5, 7)


def test_where_the_disk_is_full_the_file_stays_whole_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    written(path, 300)
    before = rows.read(path)

    def full(draft: Path, data: bytes) -> None:
        draft.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    (said,) = kept.keep_all(tmp_path)
    assert said == f"{path} stays uncompressed (No space left on device)"
    assert list(tmp_path.iterdir()) == [path] and rows.read(path) == before


@pytest.mark.parametrize("data", [b"", b"\0" * 9000, b'{"format": 2}' + b"\0" * 9000, b"[1]"])
def test_what_holds_no_rows_is_refused_by_name(tmp_path, data):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    path.write_bytes(data)
    with pytest.raises(rows.RowsError, match=path.name):
        rows.read(path)
    assert collect.collect(tmp_path, "x", {}) is None and not list(tmp_path.iterdir())


def test_a_copy_that_breaks_off_costs_its_rank_and_says_so(tmp_path):
    written(tmp_path / "x_pp_clock_PP0_TP0.rows", 5)
    broken = tmp_path / "x_pp_clock_PP1_TP0.rows.gz"
    broken.write_bytes(gzip.compress(b"\0" * 9000)[:-9])
    found = collect.read(tmp_path, "x", {})
    assert found is not None and list(found.ranks) == ["PP0"] and len(found.warnings) >= 1


def test_a_header_that_does_not_fit_leaves_the_rows_readable(tmp_path):
    file = written(tmp_path / "x.rows", 3)
    file.describe(failed="x" * rows.HEADER_BYTES)
    found = rows.read(tmp_path / "x.rows")
    assert found.header["cut"] and len(found.rows) == 3


def test_rows_whose_header_is_torn_are_kept_if_not_read(tmp_path):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    file = written(path, 5)
    file.map[:4] = b"torn"
    assert collect.collect(tmp_path, "x", {}) is None
    (copy,) = kept.row_files(tmp_path, "x")
    assert copy.suffix == ".gz" and len(gzip.decompress(copy.read_bytes())) > rows.HEADER_BYTES


def headed(path, **facts):
    """A file with one row and this header."""
    rows.RowFile(path, 8).describe(**facts)
    return path


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"pp_rank": "1"}, "pp_rank: not a whole number"),
        ({"tp_rank": -1}, "tp_rank: not from 0 to 65536"),
        ({"pp_size": 1 << 40}, "pp_size: not from 0"),
        ({"loop_size": 1e300}, "loop_size: not a whole number"),
        ({"alternate": None}, "alternate: not a whole number"),
        ({"lacks": True}, "lacks: not an object"),
        ({"found": {"turn": ["a"]}}, "found.turn: not text"),
        ({"failed": 5}, "failed: not text"),
        ({"capacity": 1 << 60}, "capacity: not from 0"),
    ],
)
def test_a_header_that_says_what_cannot_be_costs_its_rank_and_is_named(tmp_path, facts, says):
    written(tmp_path / "x_pp_clock_PP0_TP0.rows", 5)
    headed(tmp_path / "x_pp_clock_PP1_TP0.rows", **facts)
    found = collect.read(tmp_path, "x", {})
    assert found is not None and list(found.ranks) == ["PP0"]
    (told,) = [text for text in found.warnings if "damaged header" in text]
    assert "x_pp_clock_PP1_TP0.rows" in told and says in told


def test_a_header_that_nests_deeper_than_json_may_is_none(tmp_path):
    path = tmp_path / "x_pp_clock_PP0_TP0.rows"
    path.write_bytes((b'{"format": 1, "a": ' + b"[" * 8000).ljust(9000, b"\0"))
    with pytest.raises(rows.RowsError, match="no header"):
        rows.read(path)


@pytest.mark.parametrize("change", ["cut", "flip", "header"])
def test_a_damaged_copy_costs_its_rank_and_is_named(tmp_path, change):
    written(tmp_path / "x_pp_clock_PP0_TP0.rows", 5)
    copy = rows.keep(headed(tmp_path / "x_pp_clock_PP1_TP0.rows", pp_rank=1))
    data = bytearray(copy.read_bytes())
    if change == "flip":
        data[12] ^= 0xFF
    copy.write_bytes({"cut": data[:-9], "flip": data, "header": b"x" + data}[change])
    found = collect.read(tmp_path, "x", {})
    assert found is not None and list(found.ranks) == ["PP0"]
    assert any(f"{copy} is cut short or damaged" in text for text in found.warnings)


def test_a_copy_that_unpacks_to_more_than_its_header_says_is_read_up_to_there(tmp_path):
    path = headed(tmp_path / "x_pp_clock_PP0_TP0.rows", pp_rank=0)
    row = rows.LAYOUT.pack(1, 2, 3, 0, rows.CODES["turn"], 0, 0, 0, 0, 1)
    bomb = path.with_name(path.name + ".gz")
    head = path.read_bytes()[: rows.HEADER_BYTES]
    bomb.write_bytes(gzip.compress(head + row * 1_000_000, 9))
    assert len(rows.read(bomb).rows) == 8  # its capacity


@pytest.mark.parametrize(("kind", "begin", "end"), [(0, 1, 2), (255, 1, 2), (13, 2, 1)])
def test_a_row_that_says_what_cannot_be_is_counted_and_left_out(tmp_path, kind, begin, end):
    file = written(tmp_path / "x.rows", 3)
    file.write(begin, end, 0, kind)
    found = rows.read(tmp_path / "x.rows")
    assert (len(found.rows), found.torn) == (3, 1)


@pytest.mark.parametrize(
    "requests",
    [
        *({"a": 1}, [1], [{"events": 5}], [{"events": [[1]]}]),
        [{"start_ns": "x", "events": [["y"]]}],
        [{"start_ns": 1, "events": [[float("nan"), 1]]}],
    ],
)
def test_a_clients_result_that_is_damaged_is_no_window(tmp_path, requests):
    written(tmp_path / "x_pp_clock_PP0_TP0.rows", 5)
    (tmp_path / "x_client.json").write_text(json.dumps({"requests": requests}), encoding="utf-8")
    found = collect.read(tmp_path, "x", {})
    assert found is not None and found.window_s is None
