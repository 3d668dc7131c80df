"""A rank's exchanges with both neighbours: metadata over the CPU group, tensors in one batch."""

from __future__ import annotations

import pickle
from collections import deque
from typing import Any, NamedTuple

Dict = dict[str, Any]


class _Shape(NamedTuple):
    """A tensor that follows: its size and dtype."""

    size: tuple[int, ...]
    dtype: Any


class Exchange:
    """A rank's exchanges with its neighbours over one pipeline group.

    Tensors on the group's device go in the batch; all else is pickled, over the CPU group.
    """

    def __init__(self, group: Any, torch: Any) -> None:  # noqa: ANN401
        self._group, self._torch = group, torch
        self._device = torch.device(group.device)
        at, size = group.rank_in_group, group.world_size
        self._next, self._previous = (group.ranks[(at + step) % size] for step in (1, -1))
        self._under_way: list[Any] = []  # works of what goes over the CPU group, and its tensors
        self.come: deque[Dict] = deque()  # received dicts that nobody has asked for yet

    def meet(self) -> None:
        """With all ranks: NCCL makes the communicator of batches in a first collective."""
        one = self._torch.zeros(1, device=self._device)
        self._torch.distributed.all_reduce(one, group=self._group.device_group)

    def run(self, sent: list[Dict]) -> None:
        """Send these dicts and receive the neighbour's; the device waits for the tensors, the host
        for the neighbour's metadata (and on gloo for the tensors)."""
        distributed, group = self._torch.distributed, self._group.device_group
        described, tensors = self._described(sent)
        self._post(described)
        expected = self._receive()
        received, spaces = self._spaces(expected)
        batch = [(distributed.isend, each, self._next) for each in tensors]
        batch += [(distributed.irecv, each, self._previous) for each in spaces]
        operations = [distributed.P2POp(op, tensor, peer, group) for op, tensor, peer in batch]
        for work in distributed.batch_isend_irecv(operations) if operations else ():
            work.wait()
        self.come.extend(received)

    def _described(self, sent: list[Dict]) -> tuple[bytes, list[Any]]:
        """The dicts with a _Shape for each tensor of the device, pickled; and these tensors."""
        tensors: list[Any] = []
        described = []
        for each in sent:
            plain: Dict = {}
            for key, value in each.items():
                if isinstance(value, self._torch.Tensor) and value.device.type == self._device.type:
                    plain[key] = _Shape(tuple(value.shape), value.dtype)
                    tensors += [value.contiguous()] if value.numel() else []
                else:
                    plain[key] = value
            described.append(plain)
        return (pickle.dumps(described) if described else b""), tensors

    def _spaces(self, described: bytes) -> tuple[list[Dict], list[Any]]:
        """The dicts that come, with room for each tensor; and what is to be received, in order."""
        dicts: list[Dict] = pickle.loads(described) if described else []
        spaces: list[Any] = []
        for each in dicts:
            for key, value in each.items():
                if isinstance(value, _Shape):
                    each[key] = self._torch.empty(
                        value.size, dtype=value.dtype, device=self._device
                    )
                    spaces += [each[key]] if each[key].numel() else []
        return dicts, spaces

    def _post(self, described: bytes) -> None:
        torch = self._torch
        for work, _ in self._under_way:  # of the exchange before
            work.wait()
        size = torch.tensor([len(described)], dtype=torch.long)
        parts = [size]
        if described:
            parts.append(torch.frombuffer(bytearray(described), dtype=torch.uint8))
        send = torch.distributed.isend
        cpu_group = self._group.cpu_group
        self._under_way = [(send(part, self._next, group=cpu_group), part) for part in parts]

    def _receive(self) -> bytes:
        torch, cpu_group = self._torch, self._group.cpu_group
        size = torch.zeros(1, dtype=torch.long)
        torch.distributed.recv(size, self._previous, group=cpu_group)
        if not size.item():
            return b""
        found = torch.empty(int(size.item()), dtype=torch.uint8)
        torch.distributed.recv(found, self._previous, group=cpu_group)
        return bytes(found.numpy().tobytes())
