"""A small PP loop that the clock is put into: its torch, group and batches, and its rows."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import KINDS
from repro_pp_graphs.server.shims import pp_clock

SPANS: list[str] = []


class Profile:
    on = False


@contextlib.contextmanager
def record_function(name: str) -> Iterator[None]:
    SPANS.append(name)
    yield


def fake_torch(rank: int) -> Any:
    def send(tensor: Any, dst: int | None = None, group: Any = None, tag: int = 0) -> object:
        return object()

    def recv(tensor: Any, src: int | None = None, group: Any = None, tag: int = 0) -> str:
        return "work"

    distributed = SimpleNamespace(
        **{"send": send, "isend": send, "recv": recv, "irecv": recv},
        group=SimpleNamespace(WORLD="the world"),
        is_initialized=lambda: True,
        get_rank=lambda: rank,
        get_world_size=lambda: 2,
    )
    return SimpleNamespace(
        distributed=distributed,
        cuda=SimpleNamespace(is_available=lambda: False),
        profiler=SimpleNamespace(record_function=record_function),
        autograd=SimpleNamespace(_profiler_enabled=lambda: Profile.on),
    )


class Group:
    """A pipeline group whose messages are one P2P call each."""

    def __init__(self, torch: Any, rank: int) -> None:
        self.torch, self.rank_in_group, self.world_size = torch, rank, 2
        self.device_group, self.cpu_group = object(), object()
        self.incoming: list[dict[str, Any]] = []

    def send_tensor_dict(self, tensor_dict: Any, all_gather_group: Any = None) -> list[str]:
        other = 1 - self.rank_in_group
        work = self.torch.distributed.isend(tensor_dict, other, group=self.device_group)
        return [SimpleNamespace(work=work)]

    def recv_tensor_dict(self, all_gather_group: Any = None) -> Any:
        self.torch.distributed.irecv(None, src=1 - self.rank_in_group, group=self.device_group)
        return self.incoming.pop(0)


class Batch:
    def __init__(self, decode: bool, size: int) -> None:
        self.forward_mode = SimpleNamespace(is_decode=lambda: decode)
        self.reqs = [None] * size


class Event:
    waited = 0

    def synchronize(self) -> None:
        self.waited += 1


class Scheduler:
    """The last rank of 0.5.7 and newer, as far as the clock sees it."""

    def __init__(self, torch: Any, rank: int = 1) -> None:
        self.pp_group = Group(torch, rank)
        self.world_group = SimpleNamespace(device_group=object(), cpu_group=object())
        self.server_args = SimpleNamespace(pp_async_batch_depth=0)
        self.send_output_work: list[str] = []
        self.send_proxy_work: list[str] = []
        self.send_req_work: list[str] = []
        self.event = Event()
        self.batches: list[Batch | None] = []
        self.ran: list[int] = []
        self.tp_worker = SimpleNamespace(model_runner=SimpleNamespace(forward=self.forward))

    def forward(self, forward_batch: Any) -> None:
        self.ran.append(len(forward_batch.reqs))

    def recv_requests(self) -> list[Any]:
        return []

    def run_batch(self, batch: Batch, pp_proxy_tensors: Any = None) -> Any:
        self.tp_worker.model_runner.forward(batch)
        return SimpleNamespace(can_run_cuda_graph=batch.forward_mode.is_decode())

    def process_batch_result(self, batch: Batch, result: Any) -> None:
        pass

    def _pp_commit_comm_work(self, work: list[str], fence: bool = False) -> None:
        work.clear()

    def _pp_commit_send_output_work_and_preprocess_output_tensors(self, a: int, b: int) -> Any:
        self._pp_commit_comm_work(work=self.send_output_work)
        self.send_output_work = self.pp_group.send_tensor_dict({"next_token_ids": 1})
        return None, None, self.event

    def event_loop_pp(self) -> None:
        for batch in self.batches:
            self.recv_requests()
            if batch is None:
                continue
            self.pp_group.incoming.append({"hidden_states": 1})
            self.pp_group.recv_tensor_dict()
            result = self.run_batch(batch)
            back = self._pp_commit_send_output_work_and_preprocess_output_tensors(0, 1)
            back[-1].synchronize()
            self.process_batch_result(batch, result)
        self.recv_requests()
        self.recv_requests()  # a turn without work, in which the clock writes what it has noted


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A scheduler class that is patched, its torch, where its rows go."""
    torch = fake_torch(1)
    module = SimpleNamespace(point_to_point_pyobj=lambda data, rank, group, src, dst: [])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "sglang", SimpleNamespace(__version__="0.5.16"))
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler_pp_mixin", module)
    monkeypatch.setenv(pp_clock.PREFIX_ENV, str(tmp_path / "x_pp_clock"))
    monkeypatch.setenv(pp_clock.ROWS_ENV, "4096")
    monkeypatch.setattr(Profile, "on", False)
    SPANS.clear()
    kind = type("Scheduler", (Scheduler,), {})
    pp_clock.patch(SimpleNamespace(Scheduler=kind))
    return kind, torch, tmp_path / "x_pp_clock_PP1_TP0.rows"


def go(made: Any, *batches: Batch | None, scheduler: Any = None) -> tuple[Any, rows.Rows]:
    """Run the patched loop over these batches, a turn each; the scheduler and its rows."""
    kind, torch, path = made
    scheduler = scheduler or kind(torch)
    scheduler.batches = list(batches)
    scheduler.event_loop_pp()
    return scheduler, rows.read(path)


def kinds(found: rows.Rows) -> Counter[str]:
    return Counter(KINDS[row.kind] for row in found.rows)
