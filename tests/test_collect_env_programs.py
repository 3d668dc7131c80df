"""The programs that collect_env.sh starts: given up when they hang, ended when it is."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from collect_env_harness import CLOSED_PORT, SCRIPT, bare, collect, run, tool
from fake_sglang.harness import wait_until

from repro_pp_graphs.environment import programs

pytestmark = pytest.mark.launches


HURRIED = {"REPRO_COLLECT_PATIENCE": "1"}  # for what never answers


def test_a_python_that_hangs_is_given_up(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    tool(tmp_path, "slow", "#!/bin/bash\nprintf 'software\\tearly\\tkept\\n'\nexec sleep 600\n")
    done = run("--json", "--python", str(slow), "--port", CLOSED_PORT, env=bare(**HURRIED))
    facts = json.loads(done.stdout)
    assert "no answer in" in facts["software"]["Python probe"]
    assert facts["software"]["early"] == "kept"


def test_nvidia_smi_that_hangs_is_given_up_and_asked_no_more(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    path = tool(tmp_path / "bin", "nvidia-smi", f"#!/bin/bash\necho x >>{calls}\nsleep 600\n")
    facts = collect(env=bare(path, **HURRIED))
    assert facts["gpus"]["nvidia-smi"] == "nvidia-smi: no answer in 5 s"
    assert facts["summary"]["GPUs"] == "nvidia-smi: no answer in 5 s"
    assert calls.read_text() == "x\n"


@pytest.mark.parametrize(
    ("text", "factor"), [("", 1), ("10", 10), ("0.1", 1), ("-1", 1), ("nan", 1), ("inf", 1000)]
)
def test_a_slow_machine_may_be_given_more_time(text: str, factor: int, monkeypatch) -> None:
    monkeypatch.setenv(programs.PATIENCE, text)
    assert programs.Programs(4).seconds == 4 * factor


def test_what_it_started_ends_with_it(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    path = tool(
        tmp_path / "bin",
        "nvidia-smi",
        f"#!/bin/bash\necho $$ >{pid}.new\nmv {pid}.new {pid}\nsleep 3600\n",
    )
    command = ["bash", str(SCRIPT), "--port", CLOSED_PORT]
    with subprocess.Popen(command, env=bare(path), stdout=subprocess.PIPE) as collector:
        while not pid.exists():
            assert collector.poll() is None
            time.sleep(0.01)
        collector.terminate()
        assert collector.wait() == 143
    stat = Path("/proc", pid.read_text().strip(), "stat")

    def ended() -> bool:
        try:
            return stat.read_text().rsplit(") ", 1)[1].startswith("Z")
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_until(ended)  # a signal takes effect when the process next runs


def test_a_signal_that_comes_while_a_program_begins_ends_it_too(monkeypatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []

    class Begun(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **how: Any) -> None:
            super().__init__(*args, **how)
            begun.append(self)
            # not to another thread, of which collect_env has none
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    monkeypatch.setattr(programs.subprocess, "Popen", Begun)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    found = programs.Programs(600)
    try:
        with pytest.raises(SystemExit):
            found.start(600, "sleep", "600")
    finally:
        signal.signal(signal.SIGTERM, before)
        found.stop()
    try:
        assert begun[0].wait(600) == -signal.SIGTERM
    finally:
        begun[0].kill()
