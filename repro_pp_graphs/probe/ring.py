"""The ranks' ring: process groups, neighbours, devices, clocks, and who died."""

from __future__ import annotations

import datetime
import os
import socket
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup, Work

from repro_pp_graphs.probe.journal import CLOCK
from repro_pp_graphs.probe.launcher import STORE

TIMEOUT = datetime.timedelta(seconds=120)
PINGS = 20


@dataclass(slots=True)
class Ring:
    """One rank's place. `device_group` carries tensors, `cpu_group` (gloo) sizes and objects,
    `request_group` (gloo) the requests of the asynchronous path: their order is not the others'.

    `shared`: several ranks use this rank's GPU. `clock_ns`: what to add to this rank's clock to get
    rank 0's (0 on one host).
    """

    rank: int
    size: int
    device: torch.device
    device_group: ProcessGroup
    cpu_group: ProcessGroup
    request_group: ProcessGroup
    shared: bool
    clock_ns: int = 0

    @property
    def next(self) -> int:
        return (self.rank + 1) % self.size

    @property
    def previous(self) -> int:
        return (self.rank - 1) % self.size

    @property
    def last(self) -> bool:
        return self.rank == self.size - 1

    @property
    def cuda(self) -> bool:
        return bool(self.device.type == "cuda")

    def post_send(self, tensor: Tensor, group: ProcessGroup) -> Work:
        """Hand a tensor for the next rank to the backend: what dist.isend does, and dist.send
        before it waits. Returns the work; a ring's group numbers ranks as the world does."""
        return group.send([tensor], self.next, 0)

    def post_recv(self, tensor: Tensor, group: ProcessGroup) -> Work:
        """The same for a receive from the previous rank."""
        return group.recv([tensor], self.previous, 0)

    def gather(self, mine: object) -> list[Any]:
        """Every rank's object, on every rank."""
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine, group=self.cpu_group)
        return found

    def barrier(self) -> None:
        """Wait for all ranks, device included."""
        if self.cuda:
            torch.cuda.synchronize()
        dist.barrier(group=self.cpu_group)


def join(device_kind: str) -> Ring:
    """Join the ring that RANK, WORLD_SIZE, LOCAL_RANK and MASTER_* name, as torchrun sets them.

    Several ranks on one GPU talk over NCCL's sockets on loopback, each with a host identity of its
    own (NCCL refuses two ranks of one host on one device).
    """
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    shared = False
    if device_kind == "cuda":
        count = torch.cuda.device_count()
        if not count:
            raise RuntimeError(f"torch {torch.__version__} sees no GPU: --device cpu runs without")
        shared = local_size > count
        if shared:
            os.environ["NCCL_HOSTID"] = f"probe-{os.getpid()}"
            os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
            os.environ.setdefault("NCCL_IB_DISABLE", "1")
        torch.cuda.set_device(local % count)
        device = torch.device("cuda", local % count)
    else:
        torch.set_num_threads(1)  # sums in one order, whoever computes them
        device = torch.device("cpu")
    dist.init_process_group(
        "nccl" if device_kind == "cuda" else "gloo",
        init_method=os.environ.get(STORE, "env://"),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    cpu_group, request_group = (dist.new_group(backend="gloo", timeout=TIMEOUT) for _ in "12")
    ring = Ring(rank, size, device, dist.group.WORLD, cpu_group, request_group, shared)
    if len(set(ring.gather(socket.gethostname()))) > 1:
        ring.clock_ns = _clock_offset(ring)
    # a first collective makes the communicator that batch_isend_irecv uses
    dist.all_reduce(torch.zeros(1, device=device), group=ring.device_group)
    return ring


def _clock_offset(ring: Ring) -> int:
    """Rank 0's clock minus this rank's: half-way through the shortest of PINGS round trips."""
    stamp = torch.zeros(1, dtype=torch.long)
    offset = 0
    for other in range(1, ring.size):
        best = None
        for _ in range(PINGS):
            if ring.rank == other:
                begin = CLOCK()
                dist.send(stamp, dst=0, group=ring.cpu_group)
                dist.recv(stamp, src=0, group=ring.cpu_group)
                end = CLOCK()
                if best is None or end - begin < best:
                    best, offset = end - begin, int(stamp.item()) - (begin + end) // 2
            elif ring.rank == 0:
                dist.recv(stamp, src=other, group=ring.cpu_group)
                stamp.fill_(CLOCK())
                dist.send(stamp, dst=other, group=ring.cpu_group)
    return offset
