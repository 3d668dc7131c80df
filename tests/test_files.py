"""Files that are whole or not there, and JSON that is what its reader expects."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from repro_pp_graphs import files
from repro_pp_graphs.conform import misfit
from repro_pp_graphs.files import BadFile, read_object, write_whole

FULL = OSError(errno.ENOSPC, "No space left on device")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def failing(times: int):
    """An fsync that fails so many times."""
    left = [times]

    def fsync(_: int) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise FULL

    return fsync


@pytest.mark.parametrize(
    ("earlier", "umask", "then"),
    [(0o600, 0o022, 0o600), (0o644, 0o077, 0o600), (0o640, 0o022, 0o640), (None, 0o022, 0o644)],
)
def test_a_file_is_never_more_open_than_the_one_it_replaces(tmp_path, earlier, umask, then):
    path = tmp_path / "a.json"
    if earlier is not None:
        path.write_text("before")
        path.chmod(earlier)
    mask = os.umask(umask)
    try:
        write_whole(path, "after")
    finally:
        os.umask(mask)
    assert (path.stat().st_mode & 0o777, path.read_text()) == (then, "after")


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone gives files away")
def test_what_root_writes_anew_stays_its_owners(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    os.chown(path, 1234, 1235)
    write_whole(path, "after")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path):
    path = tmp_path / "a.json"
    for text in ("first\n", "", "词\n" * 1000):
        write_whole(path, text)
        assert path.read_text(encoding="utf-8") == text
    assert names(tmp_path) == ["a.json"]


def test_where_it_cannot_be_written_the_earlier_file_stays(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "first\n")
    monkeypatch.setattr(os, "fsync", failing(99))
    with pytest.raises(OSError, match=r"No space left.*a\.json"):
        write_whole(path, "second\n")
    assert path.read_text(encoding="utf-8") == "first\n"
    assert names(tmp_path) == ["a.json"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: seen.append((os.fstat(fd).st_size, names(tmp_path)))
    )
    write_whole(tmp_path / "a.json", "12345")
    ((size, there),) = seen
    assert size == 5 and "a.json" not in there


def test_a_link_keeps_pointing_and_a_pipe_is_written_to(tmp_path):
    (tmp_path / "to").mkdir()
    link = tmp_path / "a.json"
    link.symlink_to(tmp_path / "to" / "b.json")
    write_whole(link, "x")
    assert link.is_symlink() and (tmp_path / "to" / "b.json").read_text() == "x"
    write_whole(Path(os.devnull), "x")
    assert Path(os.devnull).is_char_device()


def test_a_full_disk_takes_what_the_reserve_makes_room_for(tmp_path, monkeypatch, capsys):
    files.hold_reserve(tmp_path)
    reserve = tmp_path / files.RESERVE
    assert reserve.stat().st_size == files.RESERVE_BYTES
    monkeypatch.setattr(os, "fsync", failing(1))
    write_whole(tmp_path / "a.json", "x" * 1000)
    assert (tmp_path / "a.json").stat().st_size == 1000
    left = files.RESERVE_BYTES - reserve.stat().st_size
    assert 1000 < left < 20000, "more was freed than is needed"
    assert "free some space" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(os, "fsync", failing(10**9))
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "a.json", "y")
    assert reserve.stat().st_size == 0
    files.hold_reserve(tmp_path)
    assert reserve.stat().st_size == files.RESERVE_BYTES


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\0" * 4096, "is empty"),  # as a crash of the machine may leave it
        (b'{"status": "o', "is cut off"),
        (b'{"status": "ok",', "is cut off"),
        (b'{"status": "ok", "warnings": [', "is cut off"),
        (b"{", "is cut off"),
        (b"[]", "not what this harness writes (not an object)"),
        (b"null", "(not an object)"),
        (b"3", "(not an object)"),
        (b"<html>", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[" * 100000, "is "),
        (b'{"status": 5}', "(status: not text)"),
        (b'{"status": "ok", "warnings": "one"}', "(warnings: not a list)"),
        (b'{"status": "ok", "warnings": [null]}', "(warnings[0]: not text)"),
    ],
)
def test_a_file_of_something_else_is_told_by_its_name(tmp_path, content, told):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(BadFile) as refused:
        read_object(path, {"status": str, "warnings": list[str]})
    assert str(refused.value).startswith(f"{path} ") and told in str(refused.value)


def test_every_cut_of_a_file_is_told_and_never_read(tmp_path):
    text = json.dumps({"status": "ok", "warnings": ["a 词", 'q"\\'], "n": [1.5, -2e3, True, None]})
    path = tmp_path / "a.json"
    for end in range(len(text.encode())):
        path.write_bytes(text.encode()[:end])
        with pytest.raises(BadFile):
            read_object(path)


@dataclass
class Item:
    name: str
    size: int = 0


@dataclass
class Box:
    items: list[Item]
    kind: Literal["a", "b"]
    note: str | None = None
    sizes: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("value", "hint", "fault"),
    [
        ({"items": [], "kind": "a"}, Box, ""),
        ({"items": [{"name": "x", "size": 1}], "kind": "b", "note": None}, Box, ""),
        ({"items": [{"name": "x"}], "kind": "b", "sizes": {"a": 1, "b": 1.5}}, Box, ""),
        ({"kind": "a"}, Box, "no 'items'"),
        ({"items": [], "kind": "a", "extra": 1}, Box, ""),
        ({"items": [{"name": 1}], "kind": "a"}, Box, "items[0].name: not text"),
        ({"items": [], "kind": "c"}, Box, "kind: none of a, b"),
        ({"items": [], "kind": []}, Box, "kind: none of a, b"),
        ({"items": [], "kind": "a", "note": 1}, Box, "note: not text"),
        ({"items": [], "kind": "a", "sizes": {"a": "1"}}, Box, "sizes.a: not a number"),
        ([], Box, "not an object"),
        (True, int, "not a whole number"),
        (1.0, int, "not a whole number"),
        (1, bool, "not true or false"),
        (1, float, ""),
        (None, None, ""),
        (0, None, "not null"),
        ({"a": object()}, dict[str, Any], ""),
        ({"b": 1}, {"a": str}, ""),
        ({"a": {"median": 1}}, {"a": ({"median": float}, None)}, ""),
        ({"a": None}, {"a": ({"median": float}, None)}, ""),
        ({"a": 3}, {"a": ({"median": float}, None)}, "a: not an object"),
    ],
)
def test_a_value_fits_its_hint_or_the_first_misfit_is_named(value, hint, fault):
    assert misfit(value, hint) == fault


def test_low_space_names_the_folder_whose_disk_it_is(tmp_path, monkeypatch):
    blocks = {tmp_path: 5, Path("/big"): 10**6}
    disk = partial(SimpleNamespace, f_frsize=10**6)
    monkeypatch.setattr(os, "statvfs", lambda path: disk(f_bavail=blocks[path]))
    assert files.low_space(Path("/big")) == ""
    assert files.low_space(Path("/big"), tmp_path) == f"the disk of {tmp_path} has 5.0 MB free"
