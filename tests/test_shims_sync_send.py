"""The shim that makes newer releases send as sglang 0.5.2 does: what it fits, what it changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pp_ring import PATTERNS, Group, Hung, Network, Scheduler, Work, ring, turns
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

from repro_pp_graphs.server import pp_loop, shims
from repro_pp_graphs.server.device_messages import Messages, PageableCopies
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
    assert sync_send.misfit(place) == "this release already sends synchronously"


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
    env = {**os.environ, shims.ENV_NAME: "sync_send", "PYTHONPATH": f"{ROOT}:{path}"}
    command = [sys.executable, *(["-c", code] if code else []), *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_loop_is_changed_when_sglang_imports_it_and_not_before(tmp_path):
    release_of(tmp_path, "0.5.16")
    code = """
import sys
from repro_pp_graphs.server import shims
from repro_pp_graphs.server.shims import sync_send
from repro_pp_graphs.server.device_messages import Messages, PageableCopies
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

<<<<<<< HEAD
LIMIT_S = 120.0  # a ring that hangs ends here


class Hung(Exception):
    """Nobody took or sent a message."""


class Network:
    """Channels between ranks; a send is over when its message has been taken."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self.limit_s = limit_s
        self.end_s = time.monotonic() + limit_s
        self.channels: dict[tuple[int, int, str], queue.Queue] = {}
        self.lock = threading.Lock()

    def channel(self, src: int, dst: int, group: str) -> queue.Queue:
        with self.lock:
            return self.channels.setdefault((src, dst, group), queue.Queue())

    def isend(self, message: Any, src: int, dst: int, group: str) -> Work:
        taken = threading.Event()
        self.channel(src, dst, group).put((message, taken))
        return Work(self, taken)

    def recv(self, src: int, dst: int, group: str) -> Any:
        try:
            left_s = max(0.01, self.end_s - time.monotonic())
            message, taken = self.channel(src, dst, group).get(timeout=left_s)
        except queue.Empty:
            raise Hung(f"rank {dst} waits for rank {src}") from None
        taken.set()
        return message


class Work:
    def __init__(self, network: Network, taken: threading.Event) -> None:
        self.network, self.taken = network, taken

    def wait(self) -> None:
        if not self.taken.wait(max(0.01, self.network.end_s - time.monotonic())):
            raise Hung("a send is not taken")


class Tensor:
    """As much of a tensor as the shim's messages touch."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def to(self, device: str) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    numpy = cpu

    def numel(self) -> int:
        return len(self.data)

    def item(self) -> int:
        return self.data[0]

    def tobytes(self) -> bytes:
        return bytes(self.data)


class Torch:
    """As much of torch as the shim's messages touch, on a Network."""

    uint8 = long = None

    def __init__(self, network: Network) -> None:
        self.network = network
        self.here = threading.local()
        self.distributed = self

    def frombuffer(self, data: Any, dtype: object) -> Tensor:
        return Tensor(data)

    tensor = frombuffer

    def empty(self, size: int, dtype: object, device: object = None) -> Tensor:
        return Tensor([0] * size)

    def send(self, tensor: Tensor, dst: int, group: str) -> None:
        self.network.isend(tensor.data, self.here.rank, dst, group).wait()

    def recv(self, tensor: Tensor, src: int, group: str) -> None:
        data = self.network.recv(src, self.here.rank, group)
        assert len(data) == len(tensor.data)  # the size came first
        tensor.data = data


class Group:
    """A pipeline group: messages as the releases send them, one object per dict."""

    cpu_group, device_group, device = "cpu", "device", "cpu"

    def __init__(self, network: Network, rank: int, size: int) -> None:
        self.network, self.rank_in_group, self.world_size = network, rank, size
        self.ranks = list(range(size))
        self.is_first_rank, self.is_last_rank = rank == 0, rank == size - 1

    def send_object(self, obj: Any, dst: int, async_send: bool = False, tag: int = 0) -> list[Work]:
        work = self.network.isend(obj, self.rank_in_group, dst, f"objects {tag}")
        if not async_send:
            work.wait()
        return [work] if async_send else []

    def recv_object(self, src: int, tag: int = 0) -> Any:
        return self.network.recv(src, self.rank_in_group, f"objects {tag}")

    def send_tensor_dict(self, tensor_dict: dict, async_send: bool = False) -> list[Work]:
        dst = (self.rank_in_group + 1) % self.world_size
        return self.send_object(dict(tensor_dict), dst, async_send=async_send)

    def recv_tensor_dict(self) -> dict:
        return self.recv_object((self.rank_in_group - 1) % self.world_size)


class LaunchEvent:
    """The end of a launched batch on its stream."""

    def __init__(self, turn: int) -> None:
        self.turn, self.waits = turn, 0

    def wait(self) -> None:
        self.waits += 1


class Scheduler:
    """The PP loop of 0.5.7 and newer, on words: `busy` says which turns rank 0 has a batch for.

    `even_first` is the order of sends and receives from 0.5.21: by the parity of the rank.
    """

    def __init__(
        self, network: Network, rank: int, size: int, busy: list[bool], **how: Any
    ) -> None:
        depth, even_first = how.get("depth", 0), how.get("even_first", False)
        self.pp_group = Group(network, rank, size)
        self.network, self.rank, self.size, self.busy = network, rank, size, busy
        self.depth, self.loop_size = depth, size + depth
        self.send_first = rank % 2 == 0 or not even_first
        self.processed: list[tuple[int, str]] = []
        self.queue: deque = deque()
        self.launch_event: LaunchEvent | None = None

    def _pp_send_pyobj_to_next_stage(self, data: Any, async_send: bool = False) -> list[Work]:
        work = self.network.isend(data, self.rank, self.rank + 1, "requests")
        if not async_send:
            work.wait()
        return [work] if async_send else []

    def _pp_send_dict_to_next_stage(
        self, tensor_dict: dict, async_send: bool = True, msg_type: str = "default"
    ) -> list[Work]:
        tensor_dict["__msg_type__"] = msg_type
        return self.pp_group.send_tensor_dict(tensor_dict, async_send=async_send)

    def _pp_send_output_to_next_stage(
        self, next_first_rank_mb_id: int, mbs: list, last_rank_comm_queue: deque, pp_outputs: Any
    ) -> list[Work]:
        sent = pp_outputs
        if self.pp_group.is_last_rank:
            sent = last_rank_comm_queue.popleft() if mbs[next_first_rank_mb_id] else None
        if not sent:
            return []
        return self._pp_send_dict_to_next_stage(sent, async_send=True, msg_type="output")

    def _pp_send_recv_and_preprocess_output_tensors(  # noqa: PLR0917 - as the releases have it
        self,
        next_first_rank_mb_id: int,
        next_mb_id: int,
        mbs: list,
        mb_metadata: list,
        last_rank_comm_queue: deque,
        pp_outputs: Any,
    ) -> tuple:
        received, work = None, []

        def send() -> None:
            work.extend(
                self._pp_send_output_to_next_stage(
                    next_first_rank_mb_id, mbs, last_rank_comm_queue, pp_outputs
                )
            )

        if self.send_first:
            send()
        if mbs[next_mb_id]:
            received = self.pp_group.recv_tensor_dict()
            assert received.pop("__msg_type__") == "output"
        if not self.send_first:
            send()
        return received, work

    def event_loop_pp(self) -> None:
        mbs: list = [None] * self.loop_size
        works: dict[str, list[Work]] = {"requests": [], "proxy": [], "output": []}
        outputs = None

        def commit(kind: str) -> None:
            for work in works[kind]:
                work.wait()
            works[kind].clear()

        def exchange(mb: int, next_mb: int) -> Any:
            commit("output")
            first = (mb + self.size) % self.loop_size
            received, works["output"] = self._pp_send_recv_and_preprocess_output_tensors(
                first, next_mb, mbs, [], self.queue, outputs
            )
            return received

        for turn, busy in enumerate(self.busy):
            mb, next_mb = turn % self.loop_size, (turn + 1) % self.loop_size
            request = busy
            if self.rank:
                request = self.network.recv(self.rank - 1, self.rank, "requests")
            if not self.pp_group.is_last_rank:
                commit("requests")
                works["requests"] = self._pp_send_pyobj_to_next_stage(request, async_send=True)
            mbs[mb] = request
            hidden = f"turn {turn} rank 0"
            if request and self.rank:
                hidden = self.pp_group.recv_tensor_dict()["hidden"] + f" {self.rank}"
            received = exchange(mb, next_mb) if self.depth else None
            commit("proxy")
            if request:
                self.launch_event = LaunchEvent(turn)
            if request and self.pp_group.is_last_rank:
                self.queue.append({"token": hidden})
            if not self.depth:
                received = exchange(mb, next_mb)
            if mbs[next_mb]:
                self.processed.append((turn, received["token"]))
            if request and not self.pp_group.is_last_rank:
                works["proxy"] = self._pp_send_dict_to_next_stage(
                    {"hidden": hidden}, async_send=True, msg_type="proxy"
                )
            outputs = received


@pytest.fixture
def ring(monkeypatch):
    """Run a ring of ranks as threads; returns what each rank processed. Raises Hung."""

    def run(size: int, busy: list[bool], prepare: Any, limit_s: float = LIMIT_S, **how: Any):
        network = Network(limit_s)
        torch = Torch(network)
        monkeypatch.setitem(sys.modules, "torch", torch)
        ranks = [Scheduler(network, rank, size, busy, **how) for rank in range(size)]
        failures: list[Exception] = []

        def go(scheduler: Scheduler) -> None:
            torch.here.rank = scheduler.rank
            try:
                prepare(scheduler)
                scheduler.event_loop_pp()
            except Exception as error:  # a thread's failure is the test's
                failures.append(error)

        threads = [threading.Thread(target=go, args=(rank,), daemon=True) for rank in ranks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(limit_s + 5)
        # whoever waits for a rank that failed fails too: the first one tells
        if failures:
            raise failures[0]
        return [rank.processed for rank in ranks]

    return run


def turns(size: int, depth: int, pattern: str) -> list[bool]:
    """A busy flag for each turn; idle turns at the end drain what is under way."""
    loop = size + depth
    pad = -len(pattern) % loop
    return [mark == "#" for mark in pattern] + [False] * (pad + 2 * loop)


PATTERNS = ["#" * 40, "#..#" * 10, "....####....########.#.#", "#" + "." * 11 + "#" * 12]

=======
>>>>>>> ad37c41 (Shims of PP sends: sync_send has 0.5.2's order (results processed before sends, requests over the device); event_send, comm_stream, batched_p2p; held against every release's loop)

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
