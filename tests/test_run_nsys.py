"""--nsys: the server runs under nsys, and its report is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_sglang.harness import Harness

pytestmark = pytest.mark.launches

# like nsys: passes SIGINT on, and writes its report only after the application has ended
NSYS = """#!/usr/bin/env bash
for word in "$@"; do [[ $word != --output=* ]] || report=${word#*=}.nsys-rep; done
printf '%s\\n' "$@" >"${0%/*}/nsys_words"
while [[ $1 == -* || $1 == profile ]]; do shift; done
"$@" & child=$!
trap 'kill -INT $child' INT
wait $child
wait $child
sleep 1
WRITE
"""


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with Harness(tmp_path / "r") as made:
        made.case("plain")
        yield made


def nsys(harness: Harness, write: str) -> Path:
    """Put the made-up nsys on the harness's PATH; returns where it lists its arguments."""
    tool = harness.root / "fake_tools" / "nsys"
    tool.write_text(NSYS.replace("WRITE", write))
    tool.chmod(0o755)
    return tool.parent / "nsys_words"


def test_the_report_is_there_and_the_launch_is_ok(harness: Harness):
    words = nsys(harness, 'echo report >"$report"')
    done = harness.run("--cases", "plain", "--nsys")
    assert done.status == 0, done.out
    assert (harness.out / "trace/plain.nsys-rep").read_text() == "report\n"
    assert harness.statuses() == {"plain": "ok"}
    given = words.read_text().split()
    assert "--cuda-graph-trace=node" in given
    assert any(word.startswith("--trace=") and "nvtx" in word for word in given)
    assert "sglang.launch_server" in given or "repro_pp_graphs.server.launch" in given
    assert "Under nsys" in done.out, "its times are comparable with no others"
    assert not (harness.out / "trace/plain_chrome_trace.json").exists()


def test_without_a_report_the_launch_has_failed(harness: Harness):
    nsys(harness, "true")
    done = harness.run("--cases", "plain", "--nsys")
    assert done.status == 1
    assert "plain.nsys-rep" in done.out
    assert harness.statuses() == {"plain": "failed"}
