"""Messages as sglang 0.5.2 sends them: pickled, copied to the GPU, over the device's own group.

Two ways to copy between host and device: that of 0.5.2, which waits for everything on the stream,
and pinned memory with CUDA events (the shim event_send).
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any


class PageableCopies:
    """As in 0.5.2: each copy waits for all work queued on the stream, the rank's own batch too."""

    def __init__(self, device: Any) -> None:  # noqa: ANN401 - torch is imported in servers only
        self.device = device

    def up(self, tensor: Any) -> Any:  # noqa: ANN401
        """A host tensor on the device."""
        return tensor.to(self.device)

    def down(self, tensor: Any) -> Any:  # noqa: ANN401
        """A device tensor on the host."""
        return tensor.cpu()


class EventCopies(PageableCopies):
    """From and to pinned memory: up waits for nothing on the host, down for one event."""

    def __init__(self, device: Any) -> None:  # noqa: ANN401
        super().__init__(device)
        import torch  # noqa: PLC0415

        self._stream = torch.cuda.Stream()

    def up(self, tensor: Any) -> Any:  # noqa: ANN401
        """A host tensor on the device, once the stream gets there."""
        # torch's pinned allocator keeps the source until the copy is over
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def down(self, tensor: Any) -> Any:  # noqa: ANN401
        """A device tensor on the host."""
        import torch  # noqa: PLC0415

        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            host.copy_(tensor, non_blocking=True)
            tensor.record_stream(self._stream)
            done = torch.cuda.Event()
            done.record()
        done.synchronize()
        return host


class Messages:
    """Pickled messages of a pipeline group: its send_object and recv_object of 0.5.2."""

    def __init__(self, group: Any, copies: PageableCopies) -> None:  # noqa: ANN401
        self._group, self._copies = group, copies
        self._send, self._receive = group.send_object, group.recv_object

    def send(self, obj: object, dst: int, async_send: bool = False, tag: int = 0) -> list[Any]:
        """Pickle, copy to the device, send the size over gloo, then the message."""
        if tag:  # not the PP loop's: the other end expects the release's own way
            works: list[Any] = self._send(obj, dst, async_send=async_send, tag=tag)
            return works
        import torch  # noqa: PLC0415

        group = self._group
        message = torch.frombuffer(bytearray(pickle.dumps(obj)), dtype=torch.uint8)
        message = self._copies.up(message)
        size = torch.tensor([message.numel()], dtype=torch.long)
        torch.distributed.send(size, group.ranks[dst], group=group.cpu_group)
        torch.distributed.send(message, group.ranks[dst], group=group.device_group)
        return []

    def receive(self, src: int, tag: int = 0) -> Any:  # noqa: ANN401
        """The mirror image of send."""
        if tag:
            return self._receive(src, tag=tag)
        import torch  # noqa: PLC0415

        group = self._group
        size = torch.empty(1, dtype=torch.long)
        torch.distributed.recv(size, group.ranks[src], group=group.cpu_group)
        message = torch.empty(int(size.item()), dtype=torch.uint8, device=group.device)
        torch.distributed.recv(message, group.ranks[src], group=group.device_group)
        return pickle.loads(self._copies.down(message).numpy().tobytes())


class Requests:
    """Requests on their way down the pipeline: point_to_point_pyobj of 0.5.2, over the device.

    `cpu_group`: the group over which the release itself would send them.
    """

    def __init__(self, world: Any, copies: PageableCopies) -> None:  # noqa: ANN401
        self.cpu_group = world.cpu_group
        self._group, self._copies = world.device_group, copies

    def send(self, data: list[Any], dst: int) -> None:
        """The size, 0 for no requests, then the pickled requests."""
        import torch  # noqa: PLC0415

        message = None
        if data:
            message = torch.frombuffer(bytearray(pickle.dumps(data)), dtype=torch.uint8)
            message = self._copies.up(message)
        length = message.numel() if message is not None else 0
        size = self._copies.up(torch.tensor([length], dtype=torch.long))
        torch.distributed.send(size, dst, group=self._group)
        if message is not None:
            torch.distributed.send(message, dst, group=self._group)

    def receive(self, src: int) -> Any:  # noqa: ANN401
        """The requests of the rank before; waits for them."""
        import torch  # noqa: PLC0415

        size = torch.zeros(1, dtype=torch.long, device=self._copies.device)
        torch.distributed.recv(size, src, group=self._group)
        length = int(self._copies.down(size).item())
        if not length:
            return []
        message = torch.empty(length, dtype=torch.uint8, device=self._copies.device)
        torch.distributed.recv(message, src, group=self._group)
        return pickle.loads(self._copies.down(message).numpy().tobytes())


_in_use: list[Requests] = []  # of this process, once its PP loop has begun


def use(requests: Requests) -> None:
    """From now on this process's requests go so."""
    _in_use[:] = [requests]


def patch(module: ModuleType) -> None:
    """Let point_to_point_pyobj of sglang.srt.utils.common send requests so, where they are used."""
    own: Callable[..., Any] = module.point_to_point_pyobj

    def point_to_point_pyobj(
        data: list[Any], rank: int, group: object = None, src: int = 0, dst: int = 1, **more: object
    ) -> Any:  # noqa: ANN401
        if not _in_use or group is not _in_use[0].cpu_group:
            return own(data, rank, group, src, dst, **more)
        if rank == src:
            _in_use[0].send(data, dst)
        return _in_use[0].receive(src) if rank == dst else []

    module.point_to_point_pyobj = point_to_point_pyobj  # type: ignore[attr-defined]
