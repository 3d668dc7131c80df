"""Put several ranks on one GPU (or N ranks on fewer GPUs), sglang 0.5.7 and newer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def visible_devices(count: int) -> list[str]:
    """The devices that this process may use, as CUDA_VISIBLE_DEVICES spells them."""
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return listed or [str(index) for index in range(count)]


@contextlib.contextmanager
def share_device(gpu_id: int) -> Iterator[int]:
    """Show the process spawned inside only device `gpu_id` modulo the number of devices."""
    import torch  # noqa: PLC0415

    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible_devices(torch.cuda.device_count())
    os.environ["CUDA_VISIBLE_DEVICES"] = devices[gpu_id % len(devices)]
    try:
        yield 0
    finally:
        if before is None:
            del os.environ["CUDA_VISIBLE_DEVICES"]
        else:
            os.environ["CUDA_VISIBLE_DEVICES"] = before


def install() -> None:
    """Give this process a host identity of its own, before NCCL starts."""
    os.environ["NCCL_HOSTID"] = f"repro-{os.getpid()}"


def install_in_server() -> None:
    """In the process that spawns the ranks: hand out the devices round-robin."""
    from sglang.srt.entrypoints import engine  # noqa: PLC0415

    engine.maybe_reindex_device_id = share_device
