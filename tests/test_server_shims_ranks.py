"""Ranks of torch in processes of their own: what they send by the shims arrives as it was sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

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
