"""A trace is shown in Perfetto: served on loopback, with its ranks in order."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from programs import ran

pytest.importorskip("msgspec")

from merged_traces import in_order, merged
from trace_maker import ring

from repro_pp_graphs.traces.commands.open import LOOPBACK, VIEWER, TraceServer, first_view, view_of
from repro_pp_graphs.traces.commands.open import main as open_trace


def test_the_helper_serves_one_file_on_loopback_for_the_viewers_deep_link(tmp_path):
    file = tmp_path / "a b.json"
    file.write_text('{"traceEvents": []}')
    with TraceServer(file, 0) as server:
        assert server.server_address[0] == LOOPBACK
        assert server.link.startswith(f"{VIEWER}/#!/?url=http://127.0.0.1:")
        serving = threading.Thread(target=server.serve_until_fetched, args=(10,))
        serving.start()
        url = server.link.partition("url=")[2]
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url.replace("a%20b", "other"))
        stranger = urllib.request.Request(
            url, headers={"Host": f"evil.example:{server.server_port}"}
        )
        with pytest.raises(
            urllib.error.HTTPError
        ):  # DNS rebinding: a page that named itself 127.0.0.1
            urllib.request.urlopen(stranger)
        with pytest.raises(urllib.error.HTTPError):  # the path has a part that nobody can guess
            urllib.request.urlopen(f"http://{LOOPBACK}:{server.server_port}/a%20b.json")
        silent = socket.create_connection((LOOPBACK, server.server_port))  # keeps nobody waiting
        with silent, urllib.request.urlopen(url) as reply:
            assert reply.headers["Access-Control-Allow-Origin"] == VIEWER
            assert reply.read() == file.read_bytes()
        serving.join(10)
        assert server.fetched


def test_the_viewer_is_told_to_show_ranks_in_order_and_the_time_all_were_recorded(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        folder.mkdir()
        for maker in ring(2):
            maker.write(folder)
    document = merged(tmp_path / "out.json.gz", a, b)
    link = urllib.parse.parse_qs(first_view(view_of(tmp_path / "out.json.gz")))
    commands = json.loads(link["startupCommands"][0])
    # whatever the page's own order of them is
    for names in (in_order(document), in_order(document)[::-1]):
        shown = [
            name
            for command in commands
            for name in names
            if command["id"].endswith("CopyTracksToWorkspaceByRegex")
            and re.match(command["args"][0], name)
        ]
        assert shown == in_order(document)
    # from rank 1's first recv to rank 0's last
    assert (link["visStart"], link["visEnd"]) == (["980000"], ["5130000"])


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"traceEvents": []}', b'{"view": 1, "traceEvents": [', b"\x1f\x8b\x08"]
)
def test_a_file_that_says_nothing_of_its_view_is_opened_plainly(tmp_path, data):
    file = tmp_path / ("a.json.gz" if data[:1] == b"\x1f" else "a.json")
    file.write_bytes(data)
    assert first_view(view_of(file)) == ""


def test_without_a_browser_the_helper_says_what_to_click(tmp_path, capsys):
    file = tmp_path / "a.json"
    file.write_text("{}")
    assert open_trace([str(file), "--no-browser"]) == 0
    told = capsys.readouterr().out
    assert "Open trace file" in told
    assert max(map(len, told.splitlines()[1:])) <= 80
    assert open_trace([str(tmp_path / "none.json")]) == 2


def test_by_hand_a_merged_trace_is_opened_with_its_ranks_in_order(tmp_path, capsys):
    for maker in ring(2):
        maker.write(tmp_path)
    file = tmp_path / "merged.json"
    document = merged(file, tmp_path)
    capsys.readouterr()
    assert open_trace([str(file), "--no-browser"]) == 0
    (link,) = re.findall(r"https:\S+", capsys.readouterr().out)
    assert link.removeprefix(f"{VIEWER}/#!/?") == first_view(view_of(file))[1:]
    # so many ranks that the link could not be copied: the page alone
    document["view"]["ranks"] *= 50
    file.write_text(json.dumps(document))
    assert open_trace([str(file), "--no-browser"]) == 0
    assert re.findall(r"https:\S+", capsys.readouterr().out) == [VIEWER]


@pytest.mark.parametrize(
    ("text_browser", "says"),
    [
        ("", "there is no browser on this machine; by hand:"),
        ("w3m", "the only browser on this machine is w3m, without scripts; by hand:"),
    ],
)
def test_where_there_is_no_browser_the_helper_says_so(tmp_path, text_browser, says):
    file, programs = tmp_path / "a.json", tmp_path / "bin"
    file.write_text("{}")
    programs.mkdir()
    if text_browser:
        (programs / text_browser).write_text("#!/bin/sh\n")
        (programs / text_browser).chmod(0o755)
    words = [sys.executable, "-m", "repro_pp_graphs", "open", str(file)]
    root = str(Path(__file__).parents[1])
    done = ran(words, env={"PATH": str(programs), "TERM": "xterm", "PYTHONPATH": root}, check=True)
    first, *steps = done.stdout.splitlines()
    assert first == says and steps[0].startswith("1. copy")


def test_a_browser_that_does_not_start_is_waited_for_by_nobody(tmp_path, capsys, monkeypatch):
    file = tmp_path / "a.json"
    file.write_text("{}")
    helper = sys.modules[open_trace.__module__]
    monkeypatch.setattr(helper, "PORT", 0)
    monkeypatch.setattr(helper, "_lacking_browser", lambda: "")
    monkeypatch.setattr("webbrowser.open", lambda link: False)
    assert open_trace([str(file)]) == 1
    printed = capsys.readouterr()
    assert "no browser could be started; by hand:" in printed.err
    assert "1. copy" in printed.out
