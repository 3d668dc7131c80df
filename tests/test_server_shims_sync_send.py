"""The shim that makes newer releases send as sglang 0.5.2 does: what it fits, what it changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pp_ring import PATTERNS, Group, Hung, Network, Scheduler, Work, ring, turns
from programs import ran
from release_sources import (
    GROUP_57,
    GROUP_516,
    SEND_DICT,
    group_source,
    loop_source,
    method,
    package,
    release_of,
)

from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.patching.device_messages import Messages, PageableCopies
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.shims import sync_send

ROOT = Path(__file__).resolve().parents[1]

NEW = list(SEND_DICT)
__all__ = ["ring"]  # a fixture


@pytest.mark.parametrize("release", NEW)
def test_every_asynchronous_release_fits(tmp_path, release):
    assert sync_send.misfit(release_of(tmp_path, release)) == ""


@pytest.mark.parametrize(
    "loop",
    [
        "",  # 0.5.2: no such file, the loop is the scheduler's
        "class SchedulerPPMixin:\n" + method("event_loop_pp", ""),  # 0.5.6
    ],
)
def test_a_release_that_sends_synchronously_says_so(tmp_path, loop):
    place = package(tmp_path, loop, group_source(GROUP_57))
    if not loop:
        (place / pp_loop.LOOP_FILE).unlink()
    assert sync_send.misfit(place) == "this release's PP sends block as they are"


def test_a_folder_without_sglang_is_no_release_that_sends_synchronously(tmp_path):
    assert pp_loop.GROUP_FILE in sync_send.misfit(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("self, data, async_send", "self, reqs, async_send", "_pp_send_pyobj_to_next_stage"),
        ("mbs, last_rank_comm_queue", "mbs, work, last_rank_comm_queue", "_pp_send_output"),
        ("async_send=True, msg", "async_send=True, compress=False, msg", "compress"),
        ("self._pp_recv_proxy_tensors()", "pass", "another order"),
        (
            "_do_send():\n            self._pp_send_output",
            "_do_send():\n            self.x",
            "call",
        ),
        ("_pp_send_output_to_next_stage(self", "_pp_send(self", "_pp_send_output_to_next_stage()"),
    ],
)
def test_a_release_with_another_loop_is_refused_by_what_differs(tmp_path, old, new, told):
    loop = loop_source("0.5.16")
    assert loop.count(old) == 1
    place = package(tmp_path, loop.replace(old, new), group_source(GROUP_516))
    reason = sync_send.misfit(place)
    assert reason.startswith("it does not know this release") and told in reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self, obj, dst", "self, obj, group, dst"),
        ("self.send_object()", "self.send_bytes()"),
        ("def recv_object", "def recv_message"),
    ],
)
def test_a_release_with_other_messages_is_refused(tmp_path, old, new):
    place = package(tmp_path, loop_source("0.5.16"), group_source(GROUP_516).replace(old, new))
    assert sync_send.misfit(place).startswith("it does not know this release")


# installing it: in a process of its own, over a made-up sglang


def run_python(code: str, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, shim_names.ENV_NAME: "sync_send", "PYTHONPATH": f"{ROOT}:{path}"}
    command = [sys.executable, *(["-c", code] if code else []), *arguments]
    return ran(command, env=env)


def test_the_loop_is_changed_when_sglang_imports_it_and_not_before(tmp_path):
    release_of(tmp_path, "0.5.16")
    code = """
import sys
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server import shims
from repro_pp_graphs.server.shims import sync_send
from repro_pp_graphs.server.patching.device_messages import Messages, PageableCopies
shims.install_all()
assert not [name for name in sys.modules if name.startswith("sglang")]
sync_send.send_synchronously = lambda scheduler: print("synchronous")
from sglang.srt.managers.scheduler_pp_mixin import SchedulerPPMixin
class Scheduler(SchedulerPPMixin):
    def __getattr__(self, name):
        return lambda: print(name)
    def _pp_send_pyobj_to_next_stage(self): print("requests")
    def _pp_send_dict_to_next_stage(self): print("hidden states")
    def _pp_commit_comm_work(self): print("commit")
    def _pp_launch_batch(self): print("launch")
    def _pp_process_batch_result(self): print("process")
Scheduler().event_loop_pp()
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "synchronous" and lines.count("synchronous") == 1
    assert lines[-1] == "hidden states"


def test_a_server_of_a_release_that_does_not_fit_ends_with_one_line(tmp_path):
    place = package(tmp_path, loop_source("0.5.16"), group_source({"send": "obj, dst"}))
    (place / "launch_server.py").write_text("print('started')\n", encoding="utf-8")
    done = run_python("", tmp_path, "-m", "repro_pp_graphs.server.launch")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("shim sync_send: it does not know this release: send_object()")


# what it does: ranks as threads, messages that hold the sender until they are taken


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("even_first", [False, True])
@pytest.mark.parametrize(("size", "depth"), [(2, 0), (3, 0), (4, 0), (5, 0), (2, 1), (4, 1)])
def test_a_ring_of_blocking_sends_computes_the_same_and_does_not_hang(
    ring, size, depth, even_first, pattern
):
    busy = turns(size, depth, pattern)
    normal = ring(size, busy, lambda scheduler: None, depth=depth, even_first=even_first)
    blocking = ring(size, busy, sync_send.send_synchronously, depth=depth, even_first=even_first)
    assert blocking == normal
    everything = [text for _, text in blocking[0]]
    assert len(everything) == sum(busy)
    path = "".join(f" {rank}" for rank in range(1, size))
    assert everything == [f"turn {n} rank 0{path}" for n, is_busy in enumerate(busy) if is_busy]


@pytest.mark.parametrize("even_first", [False, True])
def test_blocking_sends_in_the_newer_order_would_hang(ring, even_first):
    # why the shim moves the sends of requests and tokens, and what the test above can see
    def only_block(scheduler: Scheduler) -> None:
        send, requests = scheduler._pp_send_dict_to_next_stage, scheduler.__dict__
        keep = scheduler._pp_send_pyobj_to_next_stage
        requests["_pp_send_dict_to_next_stage"] = lambda tensors, async_send, msg_type: send(
            tensors, async_send=False, msg_type=msg_type
        )
        requests["_pp_send_pyobj_to_next_stage"] = lambda data, async_send: keep(data)

    with pytest.raises(Hung):
        ring(2, [True] * 12, only_block, limit_s=0.5, even_first=even_first)


def test_no_send_is_left_to_wait_for(ring):
    left = []

    def watch(scheduler: Scheduler) -> None:
        sync_send.send_synchronously(scheduler)
        for name in ("_pp_send_dict_to_next_stage", "_pp_send_pyobj_to_next_stage"):
            send = getattr(scheduler, name)

            def record(*args: Any, send: Any = send, **more: Any) -> Any:
                works = send(*args, **more)
                left.extend(works)
                return works

            setattr(scheduler, name, record)

    ring(3, turns(3, 0, "#" * 6), watch)
    assert left == []


@pytest.mark.parametrize("depth", [0, 1])
def test_token_messages_queue_behind_the_ranks_own_batch(ring, depth):
    seen = []

    def watch(scheduler: Scheduler) -> None:
        send = scheduler._pp_send_dict_to_next_stage

        def record(tensors: dict, async_send: bool, msg_type: str) -> list[Work]:
            if msg_type == "output" and scheduler.launch_event:
                seen.append(scheduler.launch_event.waits)
            return send(tensors, async_send=async_send, msg_type=msg_type)

        scheduler.__dict__["_pp_send_dict_to_next_stage"] = record
        sync_send.send_synchronously(scheduler)

    ring(3, turns(3, depth, "#" * 9), watch, depth=depth)
    assert len(seen) == 9 * 3 and min(seen) > 0


def test_messages_of_another_tag_keep_the_releases_own_way():
    network = Network(1.0)
    sender, receiver = Group(network, 0, 2), Group(network, 1, 2)
    ours, theirs = (Messages(each, PageableCopies("cpu")) for each in (sender, receiver))
    (work,) = ours.send({"ready": 1}, 1, async_send=True, tag=7)
    assert theirs.receive(0, tag=7) == {"ready": 1}
    work.wait()


def test_each_rank_says_in_the_log_that_it_is_active(ring, caplog):
    with caplog.at_level("INFO"):
        ring(3, turns(3, 0, "#"), sync_send.send_synchronously)
    said = [record.getMessage() for record in caplog.records]
    assert sum(sync_send.ACTIVE in text for text in said) == 3
    assert any("rank 2 of 3" in text for text in said)
