"""The PP loop of sglang 0.5.7 and newer with ranks as threads, on words in place of tensors.

Messages hold their sender until they are taken; a ring that hangs raises Hung.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

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
    Tensor = Tensor

    def __init__(self, network: Network) -> None:
        self.network = network
        self.here = threading.local()
        self.distributed = self
        self.batches = 0

    def device(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(type=name)

    def frombuffer(self, data: Any, dtype: object) -> Tensor:
        return Tensor(data)

    tensor = frombuffer

    def empty(self, size: int, dtype: object, device: object = None) -> Tensor:
        return Tensor([0] * size)

    def zeros(self, size: int, dtype: object = None, device: object = None) -> Tensor:
        return Tensor([0] * size)

    def all_reduce(self, tensor: Tensor, group: str) -> None:
        pass

    def isend(self, tensor: Tensor, dst: int, group: str) -> Work:
        return self.network.isend(tensor.data, self.here.rank, dst, group)

    def send(self, tensor: Tensor, dst: int, group: str) -> None:
        self.isend(tensor, dst, group).wait()

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

    def send_tensor_dict(
        self,
        tensor_dict: dict,
        dst: int | None = None,
        all_gather_group: object = None,
        async_send: bool = False,
    ) -> list[Work]:
        dst = (self.rank_in_group + 1) % self.world_size
        return self.send_object(dict(tensor_dict), dst, async_send=async_send)

    def recv_tensor_dict(self, src: int | None = None, all_gather_group: object = None) -> dict:
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
        self.pp_group = self.world_group = Group(network, rank, size)
        self.network, self.rank, self.size, self.busy = network, rank, size, busy
        self.depth, self.pp_loop_size = depth, size + depth
        self.send_first = rank % 2 == 0 or not even_first
        self.processed: list[tuple[int, str]] = []
        self.queue: deque = deque()
        self.launch_event: LaunchEvent | None = None
        self.server_args = SimpleNamespace(pp_async_batch_depth=depth, tp_size=1)
        self.log: list[str] = []  # what this rank did, in order
        self.drain = lambda: None  # after its last turn: what others still wait for

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

    def _pp_process_batch_result(self, batch: int, output_result: dict) -> None:
        self.log.append("process")
        self.processed.append((batch, output_result["token"]))

    def _pp_commit_comm_work(self, work: list[Work]) -> None:
        for each in work:
            each.wait()
        work.clear()

    def _pp_launch_batch(self, mb_id: int, turn: int, hidden: str) -> tuple:
        self.log.append("launch")
        proxy = SimpleNamespace(tensors={"hidden": hidden})
        if self.pp_group.is_last_rank:
            self.queue.append({"token": hidden})
        return SimpleNamespace(pp_hidden_states_proxy_tensors=proxy), LaunchEvent(turn)

    def event_loop_pp(self) -> None:
        mbs: list = [None] * self.pp_loop_size
        works: dict[str, list[Work]] = {"requests": [], "proxy": [], "output": []}
        outputs = None

        def commit(kind: str) -> None:
            self._pp_commit_comm_work(works[kind])

        def exchange(mb: int, next_mb: int) -> Any:
            commit("output")
            first = (mb + self.size) % self.pp_loop_size
            received, works["output"] = self._pp_send_recv_and_preprocess_output_tensors(
                first, next_mb, mbs, [], self.queue, outputs
            )
            return received

        for turn, busy in enumerate(self.busy):
            mb, next_mb = turn % self.pp_loop_size, (turn + 1) % self.pp_loop_size
            request = busy
            if self.rank:
                request = self.network.recv(self.rank - 1, self.rank, "requests")
            if not self.pp_group.is_last_rank:
                commit("requests")
                works["requests"] = self._pp_send_pyobj_to_next_stage(request, async_send=True)
            mbs[mb] = request or None
            hidden = f"turn {turn} rank 0"
            if request and self.rank:
                hidden = self.pp_group.recv_tensor_dict()["hidden"] + f" {self.rank}"
            received = exchange(mb, next_mb) if self.depth else None
            commit("proxy")
            if request:
                result, self.launch_event = self._pp_launch_batch(mb, turn, hidden)
            if not self.depth:
                received = exchange(mb, next_mb)
            if mbs[next_mb] is not None:
                self._pp_process_batch_result(turn, received)
            if request and not self.pp_group.is_last_rank:
                works["proxy"] = self._pp_send_dict_to_next_stage(
                    result.pp_hidden_states_proxy_tensors.tensors, async_send=True, msg_type="proxy"
                )
            outputs = received


Prepare = Callable[[Scheduler], None]


@pytest.fixture
def ring(monkeypatch):
    """Run a ring of ranks as threads; returns what each rank processed. Raises Hung."""

    def run(size: int, busy: list[bool], prepare: Prepare, limit_s: float = LIMIT_S, **how: Any):
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
                scheduler.drain()
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
