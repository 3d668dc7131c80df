"""The shim pp_clock in a small PP loop: what it times, numbers, leaves alone; and when it fails."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from programs import ran

from repro_pp_graphs.pp_clock import device, rows
from repro_pp_graphs.pp_clock.rows import CODES, KINDS
from repro_pp_graphs.server.shims import pp_clock
from repro_pp_graphs.server.shims.pp_clock import clock as clock_module
from repro_pp_graphs.server.shims.pp_clock import message_numbers, owners
from repro_pp_graphs.server.shims.pp_clock.clock import MOST_NOTED, Clock

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


def test_every_call_of_a_turn_has_a_row_and_the_turn_tells_its_batch(made):
    scheduler, found = go(made, Batch(False, 2), Batch(True, 3), Batch(True, 3))
    assert scheduler.ran == [2, 3, 3] and scheduler.event.waited == 3
    assert kinds(found) == {
        **dict.fromkeys(("turn", "recv_hidden", "launch", "send_tokens", "wait_results"), 3),
        **{"process": 3, "wait_sent_tokens": 2},  # nothing had been sent before the first
    }
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert [(row.turn, row.flags, row.batch_size) for row in turns] == [
        (0, rows.PREFILL, 2),
        (1, rows.DECODE | rows.GRAPH, 3),
        (2, rows.DECODE | rows.GRAPH, 3),
    ]
    for row in found.rows:
        turn = next(each for each in turns if each.turn == row.turn)
        assert turn.begin_ns <= row.begin_ns <= row.end_ns <= turn.end_ns
    assert found.header["loop_size"] == 2 and "failed" not in found.header


def test_an_exchange_is_timed_in_place_of_the_sends_and_receives_in_it(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    group, send = scheduler.pp_group, scheduler.pp_group.send_tensor_dict
    type(group).exchange_tensor_dicts = lambda self, tensor_dicts: send(tensor_dicts[0])
    try:
        commit = "_pp_commit_send_output_work_and_preprocess_output_tensors"
        exchange = lambda *_: (group.exchange_tensor_dicts([{"next_token_ids": 1}]), Event())  # noqa: E731
        setattr(scheduler, commit, exchange)
        _, found = go(made, Batch(True, 1), Batch(True, 1), scheduler=scheduler)
    finally:
        del type(group).exchange_tensor_dicts
    kinds = Counter(KINDS[row.kind] for row in found.rows)
    assert kinds["exchange"] == 2 and not kinds.keys() & {"send_tokens", "recv_hidden"}
    assert found.header["found"]["exchange"] == "GroupCoordinator.exchange_tensor_dicts"
    assert "send_tensors" not in found.header["found"]
    assert not {"exchange", "send_tensors", "recv_tensors"} & found.header["lacks"].keys()


def test_what_the_release_lacks_is_in_the_header(made):
    kind, _, _ = made
    _, found = go(made, Batch(True, 1))
    assert found.header["lacks"] == {
        "own_batch": "no CUDA here: how long a batch runs is not known"
    }
    del Scheduler.process_batch_result
    try:
        scheduler = kind(made[1])
        scheduler.process_batch_result = lambda output, batch: None
        _, found = go(made, Batch(True, 1), scheduler=scheduler)
    finally:
        Scheduler.process_batch_result = lambda self, batch, result: None
    assert "not in this release" in found.header["lacks"]["process"]
    assert kinds(found)["launch"] == 1


def test_what_was_noted_is_written_as_soon_as_the_next_batch_is_launched(made):
    kind, torch, path = made
    scheduler = kind(torch)
    seen: list[list[int]] = []

    def process(batch: Batch, result: Any) -> None:  # of a turn whose batch has been launched
        found = kinds(rows.read(path))
        seen.append([found.get(name, 0) for name in ("turn", "launch", "process")])

    scheduler.process_batch_result = process
    go(made, *[Batch(True, 1)] * 3, scheduler=scheduler)
    assert seen == [[0, 1, 0], [1, 2, 1], [2, 3, 2]]


def test_a_clock_that_sees_no_launch_and_no_turn_writes_all_the_same(made):
    kind, torch, path = made
    scheduler = kind(torch)
    go(made, scheduler=scheduler)
    for _ in range(MOST_NOTED + 1):
        scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
    assert kinds(rows.read(path))["send_tokens"] == MOST_NOTED + 1


def test_a_clock_that_has_stopped_keeps_nothing_of_what_goes_on(made, monkeypatch):
    kind, torch, _ = made
    messages: list[Any] = []
    begun = message_numbers.Messages.__init__

    def remember(self: Any, *args: Any) -> None:
        begun(self, *args)
        messages.append(self)

    monkeypatch.setattr(message_numbers.Messages, "__init__", remember)
    scheduler = kind(torch)
    monkeypatch.setattr(rows.RowFile, "write", lambda *_: 1 / 0)
    _, found = go(made, *[Batch(True, 1)] * 2, scheduler=scheduler)
    assert "failed" in found.header
    for _ in range(3 * message_numbers.MOST_UNCOUNTED):
        torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    assert len(messages[0]._uncounted) <= message_numbers.MOST_UNCOUNTED
    Profile.on = True
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    sent = 3 * message_numbers.MOST_UNCOUNTED + 2 + 1  # those of the two turns too
    assert SPANS[-1] == f"pp_clock:send 1->0 pp #{sent}"


def test_a_row_that_cannot_be_written_has_none_before_it_written_twice(made, monkeypatch):
    own, broken = rows.RowFile.write, []

    def write(self: Any, *row: int) -> None:
        if row[3] == CODES["launch"]:
            broken.append(row)
            raise ValueError("no")
        own(self, *row)

    monkeypatch.setattr(rows.RowFile, "write", write)
    _, found = go(made, *[Batch(True, 1)] * 2)
    assert broken and "failed" in found.header
    assert len({(row.kind, row.begin_ns) for row in found.rows}) == len(found.rows)


def test_turns_without_work_leave_no_rows_but_are_counted(made):
    _, found = go(made, Batch(True, 1), *[None] * 500, Batch(True, 1))
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert [(row.turn, row.value) for row in turns] == [(0, 0), (501, 500)]


def test_messages_are_numbered_from_the_loops_begin_and_annotated_in_a_profile_only(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    go(made, Batch(True, 1), Batch(True, 1), scheduler=scheduler)
    assert SPANS == []
    Profile.on = True
    scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    torch.distributed.recv(None, src=0, group=scheduler.world_group.cpu_group)
    torch.distributed.send(None, dst=0, group=scheduler.pp_group.cpu_group, tag=7)
    torch.distributed.isend(None, 0)
    # two by the loop before; send and isend are one channel
    assert SPANS == [
        "pp_clock:send 1->0 pp #3",
        "pp_clock:send 1->0 pp #4",
        "pp_clock:recv 0->1 world_cpu #1",
        "pp_clock:send 1->0 pp_cpu/7 #1",
        "pp_clock:send 1->0 world #1",
    ]


def test_a_wait_for_sends_is_annotated_with_their_numbers_while_profiled(made):
    Profile.on = True  # that nothing is annotated without: above
    _, found = go(made, Batch(True, 1), Batch(True, 1), Batch(True, 1))
    assert kinds(found)["wait_sent_tokens"] == 2
    assert [span for span in SPANS if "recv" not in span] == [
        "pp_clock:send 1->0 pp #1",
        "pp_clock:wait send 1->0 pp #1",
        "pp_clock:send 1->0 pp #2",
        "pp_clock:wait send 1->0 pp #2",
        "pp_clock:send 1->0 pp #3",
    ]


A_REAL_BATCH = """
import threading
from types import SimpleNamespace
import torch
from torch import distributed
from repro_pp_graphs.server.shims.pp_clock.message_numbers import number_messages

distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
own = distributed.isend, distributed.irecv
clock = SimpleNamespace(
    thread=threading.get_ident(),
    profiled=lambda: False,
    alternates=False,
    later=[],
    take=lambda owner, name, wrapped, always: setattr(owner, name, wrapped),
)
number_messages(SimpleNamespace(), clock, torch)
assert distributed.isend is not own[0]
tensor = torch.zeros(1)
made = [
    distributed.P2POp(distributed.isend, tensor, 0),
    distributed.P2POp(op=distributed.irecv, tensor=tensor, peer=0),
    distributed.P2POp(own[0], tensor, peer=0),
]
assert [each.op for each in made] == [*own, own[0]], made
"""


@pytest.mark.slow
def test_torch_takes_what_is_numbered_into_a_batch():
    done = ran([sys.executable, "-c", A_REAL_BATCH])
    assert done.returncode == 0, done.stderr


def test_other_threads_are_neither_timed_nor_counted(made):
    kind, torch, path = made
    scheduler = kind(torch)
    _, before = go(made, Batch(True, 1), scheduler=scheduler)

    def elsewhere() -> None:
        scheduler.pp_group.send_tensor_dict({"next_token_ids": 1})
        torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert rows.read(path).rows == before.rows
    Profile.on = True
    torch.distributed.send(None, 0, group=scheduler.pp_group.device_group)
    assert SPANS == ["pp_clock:send 1->0 pp #2"]


@pytest.mark.parametrize("fault", ["write", "batch", "folder"])
def test_a_fault_of_the_clock_stops_the_clock_and_not_the_server(made, monkeypatch, fault):
    if fault == "folder":
        monkeypatch.setenv(pp_clock.PREFIX_ENV, "/nowhere/x")
    if fault == "write":
        monkeypatch.setattr(rows.RowFile, "write", lambda *_: 1 / 0)
    batch = Batch(True, 1)
    if fault == "batch":
        del batch.forward_mode
        batch.forward_mode = None
    kind, torch, path = made
    scheduler = kind(torch)
    scheduler.batches = [batch] * 3
    scheduler.run_batch = lambda batch: SimpleNamespace(can_run_cuda_graph=False)
    scheduler.event_loop_pp()
    assert scheduler.event.waited == 3
    if fault != "folder":
        assert "turn 0" in rows.read(path).header["failed"]


def test_an_error_of_sglang_goes_through_unchanged(made):
    kind, torch, _ = made
    scheduler = kind(torch)
    scheduler.pp_group.send_tensor_dict = lambda tensor_dict: (_ for _ in ()).throw(OSError("gone"))
    scheduler.batches = [Batch(True, 1)]
    with pytest.raises(OSError, match="gone"):
        scheduler.event_loop_pp()


@dataclass(kw_only=True, slots=True, frozen=True)
class Receiver:
    """As of 0.5.13 to 0.5.23."""

    asked: list[int]

    def recv_requests(self) -> list[Any]:
        self.asked.append(1)
        return []


class Closed(type):
    """A class that takes nothing new either."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise TypeError("closed")


class ClosedReceiver(metaclass=Closed):
    __slots__ = ("asked",)

    def recv_requests(self) -> list[Any]:
        return []


def with_receiver(made: Any, receiver: Any) -> tuple[Any, rows.Rows]:
    """Three turns of a scheduler that asks a request receiver for its requests, as from 0.5.13."""
    _, torch, path = made

    class Receiving(Scheduler):
        recv_requests = None

        def event_loop_pp(self) -> None:
            for batch in self.batches:
                self.request_receiver.recv_requests()
                result = self.run_batch(batch)
                self._pp_commit_send_output_work_and_preprocess_output_tensors(0, 1)
                self.process_batch_result(batch, result)
            self.request_receiver.recv_requests()
            self.request_receiver.recv_requests()

    pp_clock.patch(SimpleNamespace(Scheduler=Receiving))
    scheduler = Receiving(torch)
    scheduler.request_receiver = receiver
    scheduler.batches = [Batch(True, 2)] * 3
    scheduler.event_loop_pp()
    return scheduler, rows.read(path)


def test_the_request_receiver_takes_no_attributes_and_is_timed(made):
    asked: list[int] = []
    _, found = with_receiver(made, Receiver(asked=asked))
    assert found.header["found"]["turn"] == "SchedulerRequestReceiver.recv_requests"
    assert list(found.header["lacks"]) == ["own_batch"] and "failed" not in found.header
    assert kinds(found)["turn"] == 3 and len(asked) == 5


def test_a_hook_that_cannot_be_put_is_named_and_the_others_go_on(made):
    scheduler, found = with_receiver(made, ClosedReceiver())
    assert found.header["lacks"]["turn"].startswith("could not be put in place: ClosedReceiver")
    assert "turn" not in found.header["found"] and "failed" not in found.header
    assert kinds(found)["launch"] == 3 == len(scheduler.ran)


@pytest.mark.parametrize("where", ["torch", "wrap"])
def test_what_breaks_at_the_start_is_in_the_header(made, monkeypatch, where):
    kind, torch, path = made
    if where == "torch":
        del torch.distributed.irecv  # the numbers of messages alone are lost
    else:
        monkeypatch.setattr(owners, "_owners", lambda scheduler: 1 / 0)
    scheduler = kind(torch)
    scheduler.pp_group.recv_tensor_dict = lambda: {"hidden_states": 1}
    _, found = go(made, *[Batch(True, 1)] * 2, scheduler=scheduler)
    assert scheduler.event.waited == 2
    if where == "torch":
        assert found.header["lacks"]["messages"].startswith("could not be put in place")
        assert kinds(found)["turn"] == 2
    else:
        assert found.header["failed"].startswith("not started: ZeroDivisionError")
        assert found.rows == [] and path.exists()


def test_windows_alternate(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    _, found = go(made, *[Batch(True, 1)] * 8)
    turns = {
        row.turn: bool(row.flags & rows.OFF) for row in found.rows if row.kind == CODES["turn"]
    }
    assert turns == {turn: turn // 2 in (1, 2) for turn in range(8)}
    assert {row.turn for row in found.rows if row.kind == CODES["launch"]} == {0, 1, 6, 7}


def test_while_the_clock_is_off_sglangs_and_torchs_own_functions_are_back(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    kind, torch, _ = made
    scheduler = kind(torch)
    own = {
        "process": scheduler.process_batch_result,
        "commit": scheduler._pp_commit_comm_work,
        "send": scheduler.pp_group.send_tensor_dict,
        "isend": torch.distributed.isend,
    }
    seen: list[set[str]] = []

    def forward(forward_batch: Any) -> None:
        now = {
            "process": scheduler.process_batch_result,
            "commit": scheduler._pp_commit_comm_work,
            "send": scheduler.pp_group.send_tensor_dict,
            "isend": torch.distributed.isend,
        }
        seen.append({name for name, function in now.items() if function == own[name]})

    scheduler.tp_worker.model_runner.forward = forward
    _, found = go(made, *[Batch(True, 3)] * 8, scheduler=scheduler)
    everything = set(own)
    assert seen == [set(), set(), *[everything] * 4, set(), set()]
    # the turns without it still say what they were
    turns = [row for row in found.rows if row.kind == CODES["turn"]]
    assert all(row.flags & rows.DECODE and row.flags & rows.GRAPH for row in turns)
    assert [row.batch_size for row in turns] == [3] * 8


def test_what_another_shim_put_over_the_clock_stays_there(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    kind, torch, _ = made
    scheduler = kind(torch)
    sent: list[Any] = []

    class Over(Batch):
        """A batch whose launch has another shim take hold of the sends."""

    def send(message: Any) -> list[str]:
        sent.append(message)
        return []

    def forward(forward_batch: Any) -> None:
        if isinstance(forward_batch, Over):
            scheduler.pp_group.send_tensor_dict = send

    scheduler.tp_worker.model_runner.forward = forward
    go(made, Over(True, 1), *[Batch(True, 1)] * 7, scheduler=scheduler)
    assert len(sent) == 8


def test_a_clock_that_alternates_numbers_no_messages_and_says_so(made, monkeypatch):
    monkeypatch.setenv(pp_clock.ALTERNATE_ENV, "2")
    Profile.on = True
    _, found = go(made, *[Batch(True, 1)] * 8)
    assert SPANS == []
    assert found.header["lacks"]["messages"] == "not numbered: the clock alternates"


def test_where_no_profile_is_to_be_taken_torchs_own_sends_stay(made, monkeypatch):
    monkeypatch.setenv(rows.NUMBERS_ENV, "0")
    _, torch, _ = made
    own = {name: getattr(torch.distributed, name) for name in ("send", "recv", "isend", "irecv")}
    _, found = go(made, *[Batch(True, 1)] * 3)
    assert {name: getattr(torch.distributed, name) for name in own} == own
    assert found.header["lacks"]["messages"] == "not numbered: no profile is to be taken"
    assert kinds(found)["send_tokens"] == 3


class FakeEvent:
    """A CUDA event on a made-up GPU, whose clock runs from `CUDA.begin_ns` of the host's."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at_ms: float | None = None

    def record(self, stream: Any = None) -> None:
        self.at_ms = CUDA.passes_ms(stream)

    def query(self) -> bool:
        assert self.at_ms is not None
        return CUDA.now_ms() >= self.at_ms

    def elapsed_time(self, later: FakeEvent) -> float:
        assert self.query() and later.query() and self.at_ms is not None
        return later.at_ms - self.at_ms  # type: ignore[operator]


class CUDA:
    """A GPU with a queue of work and an idle stream."""

    begin_ns = 0
    queued_ms = 0.0
    capturing = False
    stuck = False
    Event = FakeEvent

    @staticmethod
    def Stream(priority: int) -> str:
        return "idle"

    @staticmethod
    def is_current_stream_capturing() -> bool:
        return CUDA.capturing

    @staticmethod
    def now_ms() -> float:
        return (time.monotonic_ns() - CUDA.begin_ns) / 1e6

    @staticmethod
    def passes_ms(stream: Any) -> float:
        if stream == "idle":
            return CUDA.now_ms() + (1e9 if CUDA.stuck else 0)
        return max(CUDA.now_ms(), CUDA.queued_ms)


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    for name, value in (("queued_ms", 0.0), ("capturing", False), ("stuck", False)):
        monkeypatch.setattr(CUDA, name, value)
    written: list[tuple[int, ...]] = []
    clock = device.DeviceClock(CUDA, lambda *row: written.append(row))
    return clock, written


def find_a_base(clock: device.DeviceClock) -> None:
    """Until the host was not preempted between its two looks."""
    while clock._base is None:
        clock.renew(time.monotonic_ns())
        time.sleep(0.01)


def batch(clock: device.DeviceClock, turn: int) -> None:
    """One batch that is launched and whose end is noted."""
    clock.expect()
    clock.begin()
    clock.end(turn)


def test_a_batch_is_written_once_it_has_ended_on_the_hosts_clock(gpu):
    clock, written = gpu
    find_a_base(clock)
    still_runs, length_ms = False, 10
    while not still_runs:  # when it was looked at: this process may have been preempted until later
        length_ms *= 2
        clock.read()  # that of the try before
        written.clear()
        before_ns = time.monotonic_ns()
        clock.expect()
        clock.begin()
        after_ns = time.monotonic_ns()
        CUDA.queued_ms = CUDA.now_ms() + length_ms  # the graph that has been launched
        clock.end(7)
        clock.read()
        still_runs = CUDA.now_ms() < CUDA.queued_ms
    assert written == []  # nothing is waited for
    while CUDA.now_ms() < CUDA.queued_ms:
        time.sleep(0.001)
    clock.read()
    ((turn, begin_ns, end_ns, width_ns),) = written
    assert turn == 7
    assert before_ns - width_ns <= begin_ns <= after_ns + width_ns
    assert abs(end_ns - (CUDA.begin_ns + CUDA.queued_ms * 1e6)) <= width_ns + 1000


@pytest.mark.parametrize("in_c", [False, True])
def test_nothing_is_recorded_while_a_stream_captures(gpu, in_c):
    clock, written = gpu
    if in_c:  # torch's own function, without the one in Python around it
        native = SimpleNamespace(_cuda_isCurrentStreamCapturing=lambda: CUDA.capturing)
        clock = device.DeviceClock(CUDA, lambda *row: written.append(row), native)
    find_a_base(clock)
    CUDA.capturing = True
    batch(clock, 1)
    CUDA.capturing = False
    clock.end(2)  # no begin of its own
    clock.read()
    assert written == [] and clock.missed["captured"] == 1


def test_a_forward_outside_a_batch_is_no_batch(gpu):
    clock, written = gpu
    find_a_base(clock)
    clock.begin()  # of a warm-up, say
    early_ns = time.monotonic_ns()
    clock.expect()
    clock.begin()
    clock.begin()  # a draft model's in the same batch: the first counts
    clock.end(3)
    clock.begin()
    clock.read()
    ((turn, begin_ns, _, width_ns),) = written
    assert turn == 3 and begin_ns >= early_ns - width_ns


def test_without_a_base_that_passes_there_are_no_times(gpu):
    clock, written = gpu
    CUDA.stuck = True
    for turn in range(3):
        clock.renew(time.monotonic_ns())
        batch(clock, turn)
    clock.read()
    assert written == []


def test_a_gpu_that_is_stuck_costs_no_memory(gpu):
    clock, written = gpu
    find_a_base(clock)
    CUDA.queued_ms = 1e9
    for turn in range(1000):
        batch(clock, turn)
    clock.read()
    assert written == []
    assert clock.missed == {"untied": 0, "unread": 1000 - device.MOST_PENDING, "captured": 0}


def run_batches(clock: device.DeviceClock, turns: int) -> None:
    """Batches that end at once, each read after the launch of the next."""
    for turn in range(turns):
        batch(clock, turn)
        clock.read()


def test_events_are_used_again_and_not_made_anew(gpu, monkeypatch):
    clock, written = gpu
    find_a_base(clock)
    made: list[FakeEvent] = []
    monkeypatch.setattr(CUDA, "Event", lambda enable_timing: made.append(FakeEvent(True)))
    run_batches(clock, 50)
    assert [row[0] for row in written] == list(range(50)) and made == []


def test_an_event_goes_to_the_stream_that_is_current_then(monkeypatch):
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    current, recorded, asked = ["a"], [], []
    monkeypatch.setattr(CUDA, "current_device", lambda: 3, raising=False)
    monkeypatch.setattr(
        CUDA, "current_stream", lambda: asked.append(current[0]) or current[0], raising=False
    )
    monkeypatch.setattr(CUDA, "passes_ms", lambda stream: recorded.append(stream) or CUDA.now_ms())

    def raw_stream(index: int) -> int:
        assert index == 3
        return {"a": 0, "b": 77}[current[0]]  # 0: the default stream

    native = SimpleNamespace(_cuda_getCurrentRawStream=raw_stream)
    clock = device.DeviceClock(CUDA, lambda *_: None, native)
    find_a_base(clock)
    recorded.clear()
    for stream in "aabba":
        current[0] = stream
        run_batches(clock, 1)
    assert recorded == [stream for stream in "aabba" for _ in range(2)]
    assert asked == ["a", "b", "a"]  # when it is another than before only


def test_a_batch_that_was_just_launched_is_not_asked_whether_it_has_ended(gpu, monkeypatch):
    clock, written = gpu
    find_a_base(clock)
    asked: list[FakeEvent] = []
    query = FakeEvent.query
    for turn in range(3):
        batch(clock, turn)
    monkeypatch.setattr(FakeEvent, "query", lambda event: asked.append(event) or query(event))
    clock.read(running=3)
    assert (written, asked) == ([], [])
    clock.read(running=1)
    assert [row[0] for row in written] == [0, 1]
    clock.read(running=1)
    assert len(written) == 2
    clock.read()
    assert [row[0] for row in written] == [0, 1, 2]


class Noted:
    """In place of a DeviceClock: when what of it was called."""

    def __init__(self, order: list[str]) -> None:
        self.order = order
        self.missed: dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self.order.append(name)


def test_what_the_gpu_did_is_read_after_a_launch_never_between_results_and_launch(
    made, monkeypatch
):
    order: list[str] = []
    kind, torch, _ = made

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = Noted(order)  # type: ignore[assignment]
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    scheduler = kind(torch)
    monkeypatch.setattr(scheduler.event, "synchronize", lambda: order.append("results"))
    runner = scheduler.tp_worker.model_runner
    monkeypatch.setattr(runner, "forward", lambda forward_batch: order.append("first kernel"))
    go(made, *[Batch(True, 1)] * 3, None, None, scheduler=scheduler)
    launch = ["expect", "begin", "first kernel", "end", "read", "renew", "results"]
    # the clocks are tied anew, rarely, after a launch; without one the turn after does what is left
    assert order == [
        *("read", "renew", *launch),
        *("renew", *launch) * 2,  # where none could be after a launch
        *("renew", *("read", "renew") * 3),
    ]


def test_a_gpu_whose_idle_stream_waits_for_its_batches_is_tied_where_it_is_idle(made, monkeypatch):
    for name in ("RENEW_NS", "TRY_AGAIN_NS", "OLDEST_NS"):  # always due, soon too old
        monkeypatch.setattr(device, name, 0)
    for name in ("RENEW_NS", "LATE_NS"):
        monkeypatch.setattr(clock_module, name, 0)
    monkeypatch.setattr(device.DeviceClock.renew, "__defaults__", (0,))
    monkeypatch.setattr(CUDA, "begin_ns", time.monotonic_ns())
    monkeypatch.setattr(CUDA, "stuck", False)

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = device.DeviceClock(CUDA, clock.own_batch)
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    kind, torch, _ = made
    scheduler = kind(torch)
    runner = scheduler.tp_worker.model_runner
    monkeypatch.setattr(runner, "forward", lambda forward_batch: setattr(CUDA, "stuck", True))
    monkeypatch.setattr(scheduler.event, "synchronize", lambda: setattr(CUDA, "stuck", False))
    ticks = itertools.count(1, 1000)  # of a host that is never held up
    monkeypatch.setattr(device, "time", SimpleNamespace(monotonic_ns=lambda: next(ticks)))
    _, found = go(made, *[Batch(True, 1)] * 3, None, None, scheduler=scheduler)
    assert kinds(found)["own_batch"] == 3


def test_batches_that_the_gpus_clock_missed_are_in_the_header_by_reason(made, monkeypatch):
    monkeypatch.setattr(CUDA, "stuck", True)  # no base passes

    def device_clock(clock: Clock, torch: Any) -> str:
        clock.device = device.DeviceClock(CUDA, clock.own_batch)
        return ""

    monkeypatch.setattr(pp_clock, "_device_clock", device_clock)
    _, found = go(made, *[Batch(True, 1)] * 3, None, None)
    assert found.header["missed"] == {"untied": 3, "unread": 0, "captured": 0}
    assert kinds(found)["launch"] == 3 and "own_batch" not in kinds(found)


class OldScheduler:
    """A rank of 0.5.2, as far as the clock sees it: its loop sends and receives by itself, and the
    hidden states come in inside run_batch."""

    def __init__(self, torch: Any, module: Any, rank: int) -> None:
        self.pp_group = Group(torch, rank)
        self.world_group = SimpleNamespace(device_group=object(), cpu_group=object())
        self.server_args = SimpleNamespace()
        self.module = module
        self.batches: list[Batch] = []
        runner = SimpleNamespace(forward=lambda forward_batch: None)
        self.tp_worker = SimpleNamespace(worker=SimpleNamespace(model_runner=runner))

    def recv_requests(self) -> list[Any]:
        if self.pp_group.rank_in_group:
            self.module.point_to_point_pyobj([], 1, None, 0, 1)
        return []

    def run_batch(self, batch: Batch) -> Any:
        if self.pp_group.rank_in_group:
            self.pp_group.incoming.append({"hidden_states": 1})
            self.pp_group.recv_tensor_dict()
        self.tp_worker.worker.model_runner.forward(batch)
        return SimpleNamespace(can_run_cuda_graph=True)

    def process_batch_result(self, batch: Batch, result: Any, launch_done: Any = None) -> None:
        pass

    def event_loop_pp(self) -> None:
        for batch in self.batches:
            self.recv_requests()
            result = self.run_batch(batch)
            if self.pp_group.rank_in_group:
                self.pp_group.send_tensor_dict({"next_token_ids": 1})
            self.pp_group.incoming.append({"next_token_ids": 1})
            self.pp_group.recv_tensor_dict()
            self.process_batch_result(batch, result)
            if not self.pp_group.rank_in_group:
                self.pp_group.send_tensor_dict({"next_token_ids": 1})
                self.module.point_to_point_pyobj([], 0, None, 0, 1)
                self.pp_group.send_tensor_dict({"hidden_states": 1})
        self.recv_requests()
        self.recv_requests()


@pytest.mark.parametrize("rank", [0, 1])
def test_the_calls_of_0_5_2_are_timed_too(tmp_path, monkeypatch, rank):
    torch = fake_torch(rank)
    module = SimpleNamespace(point_to_point_pyobj=lambda data, rank, group, src, dst: [])
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "sglang", SimpleNamespace(__version__="0.5.2"))
    monkeypatch.setitem(sys.modules, "sglang.srt.managers.scheduler", module)
    monkeypatch.setenv(pp_clock.PREFIX_ENV, str(tmp_path / "x"))
    monkeypatch.setenv(pp_clock.ROWS_ENV, "4096")
    kind = type("Scheduler", (OldScheduler,), {})
    pp_clock.patch(SimpleNamespace(Scheduler=kind))
    scheduler = kind(torch, module, rank)
    scheduler.batches = [Batch(True, 8)] * 4
    scheduler.event_loop_pp()
    found = rows.read(rows.path_of(str(tmp_path / "x"), rank, 0))
    both = ("turn", "launch", "send_tokens", "recv_tokens", "process")
    own = ("recv_hidden", "recv_requests") if rank else ("send_hidden", "send_requests")
    seen = kinds(found)
    assert set(seen) == {*both, *own}
    # the last rank asks for requests once more, in a turn that has not ended
    assert all(count == 4 for name, count in seen.items() if name != "recv_requests")
    lacks = found.header["lacks"]
    assert set(lacks) == {"wait_sent", "wait_results", "own_batch"}
    assert not any(why.startswith("not in this release") for why in lacks.values())
    assert found.header["found"]["own_batch"] == "ModelRunner.forward"
    launches = [row for row in found.rows if row.kind == CODES["launch"]]
    inside = [row for row in found.rows if row.kind == CODES["recv_hidden"]]
    for launch, receive in zip(launches, inside, strict=False):
        assert launch.begin_ns <= receive.begin_ns and receive.end_ns <= launch.end_ns
