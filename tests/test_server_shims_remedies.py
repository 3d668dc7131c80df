"""The shims that change how PP messages go: which releases they fit, what they change."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pp_ring import PATTERNS, Group, Hung, Scheduler, ring, turns
from release_sources import package

from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.server.case import argfile, needs
from repro_pp_graphs.server.patching import device_messages
from repro_pp_graphs.server.release import pp_loop
from repro_pp_graphs.server.release.installed import Release, version_numbers
from repro_pp_graphs.server.shims import batched_p2p, comm_stream, event_send, sync_send

__all__ = ["ring"]  # a fixture
ROOT = Path(__file__).resolve().parents[1]
DATA = json.loads((Path(__file__).parent / "data/pp_loop/loops.json").read_text(encoding="utf-8"))
LOCKED = environments.releases(ROOT)
RELEASES = {name: group for group in DATA for name in group["releases"]}
ASYNCHRONOUS = [name for name in RELEASES if version_numbers(name) >= (0, 5, 7)]


# every release's own loop, by its methods, their parameters and calls


def source(kind: str, methods: dict[str, Any], more: str = "") -> str:
    """A class with those methods, each of which calls what the release's own calls."""
    found = f"class {kind}:\n    {more!r}\n"
    for name, (parameters, calls) in methods.items():
        found += f"    def {name}({', '.join(['self', *parameters])}):\n"
        found += "".join(f"        self.{each}()\n" for each in calls) or "        pass\n"
    return found


def place_of(folder: Path, release: str, **changed: Any) -> Path:
    facts = {**RELEASES[release], **changed}
    stream = pp_loop.COMM_OVERLAP if facts["own_stream"] else ""
    loop = source("SchedulerPPMixin", facts["SchedulerPPMixin"], stream)
    return package(folder, loop, source("GroupCoordinator", facts["GroupCoordinator"]))


def test_all_releases_are_there():
    numbers = {version_numbers(name)[:3] for name in RELEASES}
    assert {each[2] for each in numbers if each[1] == 5} >= set(range(2, 24))
    assert len(ASYNCHRONOUS) == 22


@pytest.mark.parametrize("release", RELEASES)
def test_a_shim_fits_a_release_or_says_why_not(tmp_path, release):
    place = place_of(tmp_path, release)
    expected = "" if release in ASYNCHRONOUS else pp_loop.ALREADY_SYNCHRONOUS
    assert pp_loop.misfit(place) == expected
    if version_numbers(release) >= (0, 5, 21):
        assert "the case comm_overlap switches on" in comm_stream.misfit(place)
    else:
        assert comm_stream.misfit(place).startswith(expected)
        assert bool(comm_stream.misfit(place)) == bool(expected)


@pytest.mark.parametrize("version", RELEASES)
def test_what_is_known_of_a_release_by_its_number_is_what_its_sources_say(tmp_path, version):
    known = needs.looked_up(version)
    if version_numbers(version) < (0, 4, 10):  # nobody knows how it sends
        assert known is None
    else:
        assert known and known.version == version
        assert known.loop == pp_loop.read(place_of(tmp_path, version))


@pytest.mark.parametrize("version", ["", "0.5.24", "0.5.24.dev1", "0.6", "9.9", "main"])
def test_of_a_release_that_nobody_looked_up_nothing_is_known_by_its_number(version):
    assert needs.looked_up(version) is None


def test_every_release_that_is_installed_here_was_looked_up():
    assert set(LOCKED) <= RELEASES.keys()
    for version in LOCKED:
        known = needs.looked_up(version)
        assert known and known.depth == (needs.DEPTH in environments.arguments(ROOT, version))
    rehearsed = (ROOT / "requirements/cpu.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^sglang==(\S+)", rehearsed, re.M)) <= RELEASES.keys()


@pytest.mark.parametrize("version", LOCKED)
def test_a_case_is_judged_by_the_number_as_by_the_installed_release(tmp_path, version):
    names = environments.arguments(ROOT, version)
    there = needs.installed(Release(version, names, place_of(tmp_path, version)))
    known = needs.looked_up(version)
    cases = [argfile.load(path) for path in ROOT.glob("server_args_*.txt")]
    judged = {args.label: needs.unmet(args, there) for args in cases}
    assert known and judged == {args.label: needs.unmet(args, known) for args in cases}
    assert judged["CASE_A_decode_graphs"] == "" != judged["CASE_I_comm_stream"]


@pytest.mark.parametrize("release", ASYNCHRONOUS)
def test_requests_are_sent_by_the_function_that_sync_send_replaces(release):
    assert RELEASES[release]["requests"]


@pytest.mark.parametrize("method", ["_pp_launch_batch", "_pp_process_batch_result"])
def test_a_release_that_lacks_a_method_is_refused_by_its_name(tmp_path, method):
    loop = dict(RELEASES["0.5.23"]["SchedulerPPMixin"])
    loop.pop(method)
    reason = pp_loop.misfit(place_of(tmp_path, "0.5.23", SchedulerPPMixin=loop))
    assert reason == f"it does not know this release: {method}()"


# sync_send: the order of a turn


def recorded(scheduler: Scheduler, prepare: Any) -> None:
    """Note in the scheduler's log what it sends and receives, under what `prepare` puts there."""
    group, log = scheduler.pp_group, scheduler.log
    send, receive = group.send_tensor_dict, group.recv_tensor_dict
    requests = scheduler._pp_send_pyobj_to_next_stage

    def note_send(tensor_dict: dict, *args: Any, **more: Any) -> Any:
        log.append("send hidden" if "hidden" in tensor_dict else "send tokens")
        return send(tensor_dict, *args, **more)

    def note_receive(*args: Any, **more: Any) -> Any:
        found = receive(*args, **more)
        log.append("recv hidden" if "hidden" in found else "recv tokens")
        return found

    def note_requests(data: Any, async_send: bool = False) -> Any:
        log.append("send requests")
        return requests(data, async_send=async_send)

    group.send_tensor_dict, group.recv_tensor_dict = note_send, note_receive  # type: ignore[method-assign]
    scheduler._pp_send_pyobj_to_next_stage = note_requests  # type: ignore[method-assign]
    prepare(scheduler)


@pytest.mark.parametrize("size", [2, 4])
def test_a_turn_of_sync_send_has_the_order_of_0_5_2(ring, size):
    seen: dict[int, Scheduler] = {}

    def prepare(scheduler: Scheduler) -> None:
        seen[scheduler.rank] = scheduler
        recorded(scheduler, sync_send.send_synchronously)

    ring(size, turns(size, 0, "#" * 5 * size), prepare)
    # as event_loop_pp of 0.5.2 has it: results are processed before anything is sent on
    middle = ["recv tokens", "process", "send tokens", "send requests", "send hidden"]
    wanted = {0: ["launch", *middle], size - 1: ["recv hidden", "launch", "send tokens"]}
    for rank, scheduler in seen.items():
        turn = wanted.get(rank, ["recv hidden", "launch", *middle])
        if rank == size - 1:
            turn = [*turn, "recv tokens", "process"]
        log = scheduler.log
        starts = [n for n, what in enumerate(log) if what == turn[0]]
        steady = starts[size + 1]  # all micro-batches are under way
        assert log[steady : steady + 3 * len(turn)] == turn * 3, rank


# batched_p2p: one exchange a turn, all ranks in step


@pytest.fixture
def batched(monkeypatch):
    """Group's methods are those of an exchange where it has one; undone afterwards."""
    monkeypatch.setattr(Group, "recv_tensor_dict", Group.recv_tensor_dict)
    monkeypatch.setattr(Group, "exchange_tensor_dicts", None, raising=False)
    batched_p2p.patch_group(SimpleNamespace(GroupCoordinator=Group))  # type: ignore[arg-type]

    def prepare(scheduler: Scheduler) -> None:
        batched_p2p.exchange_in_batches(scheduler)
        group = scheduler.pp_group
        # a server never ends its loop; here rank r has to end as many exchanges later
        more = group.world_size - 1 - group.rank_in_group
        exchange = getattr(group, batched_p2p._EXCHANGE_OF)
        scheduler.drain = lambda: [exchange.run([]) for _ in range(more)]

    return prepare


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("even_first", [False, True])
@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_a_ring_of_batches_computes_the_same_and_does_not_hang(
    ring, batched, size, even_first, pattern
):
    busy = turns(size, 0, pattern)
    normal = ring(size, busy, lambda scheduler: None, even_first=even_first)
    found = ring(size, busy, batched, even_first=even_first)
    assert found == normal and len(found[0]) == sum(busy)


def test_without_the_first_exchanges_of_later_ranks_the_ring_would_fail(ring, batched, monkeypatch):
    # what the test above can see: rank r is in turn T - r while rank 0 is in turn T
    monkeypatch.setattr(batched_p2p.Turns, "begin", lambda self: None)
    with pytest.raises((Hung, RuntimeError, KeyError, AssertionError)):
        ring(2, turns(2, 0, "#" * 6), batched, limit_s=0.5)


def test_token_ids_and_hidden_states_of_a_turn_go_in_one_exchange(ring, batched, monkeypatch):
    sizes: list[int] = []
    run = batched_p2p.Exchange.run

    def count(self: Any, sent: list[dict]) -> None:
        sizes.append(len(sent))
        run(self, sent)

    monkeypatch.setattr(batched_p2p.Exchange, "run", count)
    busy = turns(2, 0, "#" * 10)
    ring(2, busy, batched)
    # rank 0 passes on and sends in all but the first turns and the last ones; rank 1 has tokens
    # alone, and one exchange more than turns
    assert sizes.count(2) == sum(busy) - 2
    assert len(sizes) == 2 * (len(busy) + 1)


@pytest.mark.parametrize("arguments", [{"depth": 1}, {"tp_size": 2}])
def test_what_batches_do_not_go_with_ends_the_rank(ring, batched, arguments):
    def prepare(scheduler: Scheduler) -> None:
        scheduler.server_args.tp_size = arguments.get("tp_size", 1)
        batched(scheduler)

    depth = arguments.get("depth", 0)
    with pytest.raises(RuntimeError, match="for --pp-async-batch-depth 0 and --tp-size 1 alone"):
        ring(2, turns(2, depth, "##"), prepare, depth=depth, limit_s=0.5)


# torch takes more than a second to import: all ranks are forks of one process that has
FORKS = """
import json, os, signal, sys, torch, torch.distributed, traceback
for line in sys.stdin:
    code, size, folder = json.loads(line)
    ranks = []
    for rank in range(size):
        ranks.append(os.fork())
        if not ranks[-1]:
            signal.alarm(600)
            for stream in (1, 2):
                os.dup2(os.open(folder + "/said", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
            sys.argv = ["-c", str(rank), str(size), folder + "/store"]
            try:
                exec(code, {})
            except BaseException:
                traceback.print_exc()
            sys.stdout.flush()
            os._exit(0)
    for pid in ranks:
        os.waitpid(pid, 0)
    print("over", flush=True)
"""


@pytest.fixture(scope="module")
def forks() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKS],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin
        process.stdin.close()


@pytest.fixture
def run_ranks(forks: subprocess.Popen[str], tmp_path: Path) -> Callable[[str, int], None]:
    """Runs a rank's program in so many processes, which are done when they say so."""

    def run(code: str, size: int) -> None:
        assert forks.stdin and forks.stdout
        print(json.dumps([code, size, str(tmp_path)]), file=forks.stdin, flush=True)
        assert forks.stdout.readline() == "over\n"
        said = (tmp_path / "said").read_text()
        assert all(f"rank {number} has all" in said for number in range(size)), said

    return run


EXCHANGE = """
import sys, torch, torch.distributed as dist
from types import SimpleNamespace
from repro_pp_graphs.server.shims.batched_p2p import Exchange
rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=size)
group = SimpleNamespace(
    ranks=list(range(size)), rank_in_group=rank, world_size=size, device="cpu",
    device_group=dist.group.WORLD, cpu_group=dist.new_group(backend="gloo"),
)
exchange = Exchange(group, torch)
exchange.meet()
def message(of, turn):
    made = torch.arange(turn + 1) + 100 * of
    return {"ids": made, "half": made[:, None].to(torch.bfloat16).expand(-1, 3), "turn": turn,
            "none": None, "empty": torch.empty(0, 4)}
for turn in range(5):
    exchange.run([message(rank, turn), {"turn": turn}] if turn != 2 else [])
    before = (rank - 1) % size
    if turn == 2:
        assert not exchange.come
        continue
    found, second = exchange.come.popleft(), exchange.come.popleft()
    wanted = message(before, turn)
    assert second == {"turn": turn} and found.keys() == wanted.keys()
    for key, value in wanted.items():
        if isinstance(value, torch.Tensor):
            assert found[key].dtype == value.dtype and torch.equal(found[key], value), key
        else:
            assert found[key] == value
dist.barrier()
dist.destroy_process_group()
sys.stdout.write(f"rank {rank} has all\\n")  # in one piece: the ranks share it
"""


NUMBERED = """
import contextlib, sys, threading, torch, torch.distributed as dist
from types import SimpleNamespace
from repro_pp_graphs.server.shims.pp_clock.message_numbers import number_messages
from repro_pp_graphs.server.shims.batched_p2p import Exchange
rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=size)
group = SimpleNamespace(
    ranks=list(range(size)), rank_in_group=rank, world_size=size, device="cpu",
    device_group=dist.new_group(backend="gloo"), cpu_group=dist.new_group(backend="gloo"),
)
scheduler = SimpleNamespace(
    pp_group=group, world_group=SimpleNamespace(device_group=None, cpu_group=object())
)
spans, state = [], SimpleNamespace(profiled=False)
torch.profiler.record_function = lambda name: spans.append(name) or contextlib.nullcontext()
clock = SimpleNamespace(
    thread=threading.get_ident(), later=[], profiled=lambda: state.profiled, fail=print,
    alternates=False, take=lambda owner, name, wrapped, always: setattr(owner, name, wrapped),
)
number_messages(scheduler, clock, torch)
exchange = Exchange(group, torch)
one, two = {"ids": torch.arange(3)}, {"ids": torch.arange(2), "more": torch.zeros(2)}
exchange.run([one])
assert spans == []
state.profiled = True
exchange.run([one, two] if rank == 0 else [one])
exchange.run([two])
before, after = (rank - 1) % size, (rank + 1) % size
def names(side, src, dst, numbers):
    return [f"{side} {src}->{dst} pp #{number}" for number in numbers]
def numbers(sender, turn):
    many = 3 if sender == 0 else 1
    return range(2, 2 + many) if turn == 0 else range(2 + many, 4 + many)
found = [name for name in spans if " pp #" in name]
wanted = [
    "pp_clock:" + ", ".join(
        names("send", rank, after, numbers(rank, turn))
        + names("recv", before, rank, numbers(before, turn))
    )
    for turn in (0, 1)
]
assert found == wanted, (found, wanted)
dist.barrier()
dist.destroy_process_group()
sys.stdout.write(f"rank {rank} has all\\n")
"""


@pytest.mark.launches
@pytest.mark.parametrize("size", [2, 3])
def test_in_a_profile_a_batch_has_the_numbers_of_its_messages_on_both_ends(run_ranks, size):
    run_ranks(NUMBERED, size)


@pytest.mark.launches
@pytest.mark.parametrize("size", [2, 4])
def test_tensors_of_any_kind_arrive_as_they_were_sent(run_ranks, size):
    run_ranks(EXCHANGE, size)


# comm_stream: what waits for what, on made-up streams


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_event(self, event: Any) -> None:
        event.wait(self)  # as torch's

    def wait_stream(self, other: Stream) -> None:
        self.cuda.log.append(f"{self.name} waits for {other.name}")


class Event:
    def __init__(self, cuda: Cuda, name: str = "") -> None:
        self.cuda, self.name = cuda, name

    def record(self, stream: Stream) -> None:
        self.name = f"what {stream.name} has"

    def wait(self, stream: Stream | None = None) -> None:
        stream = stream or self.cuda.current
        self.cuda.log.append(f"{stream.name} waits for {self.name}")


class Cuda:
    """As much of torch.cuda as the shim touches."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.current = Stream(self, "schedule")

    def Stream(self) -> Stream:
        return Stream(self, "comm")

    def Event(self) -> Event:
        return Event(self)

    def current_stream(self) -> Stream:
        return self.current

    def stream(self, stream: Stream) -> Any:
        cuda = self

        class Within:
            def __enter__(self) -> None:
                self.before, cuda.current = cuda.current, stream

            def __exit__(self, *_: object) -> None:
                cuda.current = self.before

        return Within()


class Tensor:
    is_cuda = True

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def record_stream(self, stream: Stream) -> None:
        self.cuda.log.append(f"kept for {stream.name}")


class OnCuda:
    """One rank's turn as 0.5.16 has it, on made-up streams."""

    def __init__(self, cuda: Cuda, last: bool, graph: bool) -> None:
        self.cuda, self.graph = cuda, graph
        self.pp_group = SimpleNamespace(
            device="cuda:0", rank_in_group=int(last), world_size=2, is_last_rank=last
        )
        self.forward_stream = Stream(cuda, "forward")
        self.launch_event: Any = None
        self.send_proxy_work: list[Any] = []

    def _pp_launch_batch(self, mb_id: int) -> tuple[Any, Event]:
        self.cuda.log.append("launch")
        return SimpleNamespace(can_run_cuda_graph=self.graph), Event(self.cuda, "batch")

    def _pp_send_output_to_next_stage(self, event: Event) -> list[str]:
        if self.pp_group.is_last_rank:
            self.cuda.current_stream().wait_event(event)
        return self._pp_send_dict_to_next_stage({"next_token_ids": Tensor(self.cuda)})

    def _pp_send_dict_to_next_stage(self, tensor_dict: dict, async_send: bool = True) -> list[str]:
        self.cuda.log.append(f"{self.cuda.current.name} sends {next(iter(tensor_dict))}")
        return ["work"]

    def _pp_commit_comm_work(self, work: list[str]) -> None:
        if work:
            self.cuda.log.append(f"{self.cuda.current.name} waits for what was sent")
        work.clear()

    def turn(self) -> list[str]:
        """One turn; what it did."""
        self.cuda.log.clear()
        self._pp_commit_comm_work(self.send_proxy_work)
        _, self.launch_event = self._pp_launch_batch(0)
        self._pp_send_output_to_next_stage(Event(self.cuda, "batch"))
        if not self.pp_group.is_last_rank:
            self.cuda.current_stream().wait_event(self.launch_event)
            self.send_proxy_work = self._pp_send_dict_to_next_stage({"hidden": Tensor(self.cuda)})
        return list(self.cuda.log)


def on_a_stream(monkeypatch: pytest.MonkeyPatch, last: bool, graph: bool) -> OnCuda:
    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    scheduler = OnCuda(cuda, last, graph)
    comm_stream.send_on_a_stream(scheduler)
    return scheduler


def test_the_last_ranks_token_ids_wait_for_the_batch_on_the_stream_of_the_sends(monkeypatch):
    scheduler = on_a_stream(monkeypatch, last=True, graph=True)
    assert scheduler.turn() == [
        "launch",
        "comm waits for batch",
        "comm sends next_token_ids",
        "kept for comm",
    ]


@pytest.mark.parametrize("graph", [True, False])
def test_hidden_states_leave_the_schedulers_stream_alone(monkeypatch, graph):
    scheduler = on_a_stream(monkeypatch, last=False, graph=graph)
    first = scheduler.turn()
    assert first == [
        "launch",
        "comm waits for schedule",  # the token ids that it passes on were received there
        "comm sends next_token_ids",
        "kept for comm",
        "comm waits for batch",
        "comm sends hidden",
        "kept for comm",
    ]
    # a graph's next replay overwrites what was sent: it must have left by then
    fence = ["forward waits for what comm has"] if graph else []
    assert scheduler.turn() == ["comm waits for what was sent", *fence, *first]


def test_without_the_shim_the_schedulers_stream_waits_for_the_batch():
    # what the tests above can see
    scheduler = OnCuda(Cuda(), last=False, graph=True)
    assert "schedule waits for batch" in scheduler.turn()


def test_on_a_cpu_comm_stream_changes_and_says_nothing(ring, caplog):
    with caplog.at_level("INFO"):
        busy = turns(2, 0, "#" * 6)
        normal = ring(2, busy, lambda scheduler: None)
        assert ring(2, busy, comm_stream.send_on_a_stream) == normal
    assert comm_stream.ACTIVE not in caplog.text


# event_send: copies


@pytest.mark.parametrize(
    ("device", "kind"),
    [("cpu", device_messages.PageableCopies), ("cuda:1", device_messages.EventCopies)],
)
def test_events_are_waited_for_where_there_are_some(monkeypatch, device, kind):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=Cuda()))
    found = event_send.copies(device)
    assert type(found) is kind and found.device == device


def test_event_send_is_sync_send_with_a_line_of_its_own(ring, caplog):
    with caplog.at_level("INFO"):
        busy = turns(3, 0, "#" * 9)
        normal = ring(3, busy, lambda scheduler: None)
        assert ring(3, busy, event_send.wait_on_events) == normal
    assert caplog.text.count(event_send.ACTIVE) == 3
    assert sync_send.ACTIVE not in caplog.text


# requests over the device, as in 0.5.2


def utils() -> Any:
    calls: list[tuple] = []

    def point_to_point_pyobj(*arguments: Any, **more: Any) -> str:
        calls.append((arguments, more))
        return "own"

    module = SimpleNamespace(point_to_point_pyobj=point_to_point_pyobj, calls=calls)
    device_messages.patch(module)  # type: ignore[arg-type]
    return module


class InPlaceOf:
    """Requests that note what they are asked for."""

    cpu_group = "world cpu"

    def __init__(self) -> None:
        self.sent: list[tuple] = []

    def send(self, data: list, dst: int) -> None:
        self.sent.append((data, dst))

    def receive(self, src: int) -> list:
        return [f"from {src}"]


def test_requests_go_over_the_device_once_the_loop_has_begun(monkeypatch):
    monkeypatch.setattr(device_messages, "_in_use", [])
    module, requests = utils(), InPlaceOf()
    send = module.point_to_point_pyobj
    assert send([1], 0, "world cpu", 0, 1, async_send=True) == "own"
    device_messages.use(requests)  # type: ignore[arg-type]
    assert send([1], 0, "world cpu", 0, 1, async_send=False) == []
    assert send([], 1, "world cpu", 0, 1) == ["from 0"]
    assert send([], 2, "world cpu", 0, 1) == []  # neither end
    assert send([2], 0, "another group", 0, 1) == "own"
    assert requests.sent == [([1], 1)] and len(module.calls) == 2


REQUESTS = """
import sys, torch, torch.distributed as dist
from types import SimpleNamespace
from repro_pp_graphs.server.patching.device_messages import Messages, PageableCopies, Requests
rank, store = int(sys.argv[1]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
cpu = dist.new_group(backend="gloo")
world = SimpleNamespace(cpu_group=cpu, device_group=dist.group.WORLD, ranks=[0, 1], device="cpu",
                        send_object=None, recv_object=None)
copies = PageableCopies(torch.device("cpu"))
requests, messages = Requests(world, copies), Messages(world, copies)
for data in ([], ["a", {"b": 1}], [], [list(range(5000))]):
    if rank == 0:
        requests.send(data, 1)
        messages.send({"metadata": data}, 1)
    else:
        assert requests.receive(0) == data
        assert messages.receive(0) == {"metadata": data}
dist.barrier()
dist.destroy_process_group()
sys.stdout.write(f"rank {rank} has all\\n")  # in one piece: the ranks share it
"""


@pytest.mark.launches
def test_requests_and_metadata_arrive_as_they_were_sent(run_ranks):
    run_ranks(REQUESTS, 2)
