"""Put several ranks on one GPU, or N ranks on fewer GPUs; sglang 0.5.2 and newer.

Ranks get the devices in turn: 0 1 0 1. NCCL refuses two ranks of one host on one device, so every
such round of ranks is a host of its own to it: ranks 0 and 1 talk over NVLink where there is some,
1 and 2 over sockets. From 0.5.4 on sglang asks which device a rank's process shall see; before, the
rank is given another number as it begins.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from repro_pp_graphs.server.patching.after_import import after_import

SCHEDULER = "sglang.srt.managers.scheduler"
GPUS_ENV = "REPRO_GPUS"  # how many devices the ranks share; unset: all that are visible
BY_RANK_ENV = "REPRO_SHARE_BY_RANK"  # set by the server where its release does not ask
HOST_ENV = "NCCL_HOSTID"


def visible_devices(count: int) -> list[str]:
    """The devices that ranks may use, as CUDA_VISIBLE_DEVICES spells them; `count` are there."""
    listed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    devices = listed or [str(index) for index in range(count)]
    return devices[: int(os.environ.get(GPUS_ENV) or 0) or None]


def host_of(gpu_id: int, devices: int, server: int) -> str:
    """NCCL's name for the host of a rank: of each only one is on a device."""
    return f"repro-{server}-{gpu_id // devices}"


@contextlib.contextmanager
def share_device(gpu_id: int) -> Iterator[int]:
    """Show the process spawned inside only device `gpu_id` modulo the number of devices."""
    import torch  # noqa: PLC0415

    devices = visible_devices(torch.cuda.device_count())
    shown = {
        "CUDA_VISIBLE_DEVICES": devices[gpu_id % len(devices)],
        HOST_ENV: host_of(gpu_id, len(devices), os.getpid()),
    }
    before = {name: os.environ.get(name) for name in shown}
    os.environ.update(shown)
    try:
        yield 0
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def on_its_device(run: Callable[..., Any]) -> Callable[..., Any]:
    """A rank's main function that takes the device of its turn in place of the one it is given."""
    names = inspect.signature(run)

    @functools.wraps(run)  # it is pickled by its name
    def shared(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if not os.environ.get(BY_RANK_ENV):
            return run(*args, **kwargs)
        import torch  # noqa: PLC0415

        given = names.bind(*args, **kwargs)
        gpu_id = given.arguments["gpu_id"]
        devices = len(visible_devices(torch.cuda.device_count()))
        os.environ[HOST_ENV] = host_of(gpu_id, devices, os.getppid())
        given.arguments["gpu_id"] = gpu_id % devices
        return run(*given.args, **given.kwargs)

    return shared


def patch(module: ModuleType) -> None:
    """Have the ranks of a release that does not ask find their device themselves."""
    module.run_scheduler_process = on_its_device(module.run_scheduler_process)  # type: ignore[attr-defined]


def install() -> None:
    """In every process, a rank's too: before the scheduler is imported."""
    after_import(SCHEDULER, patch)


def install_in_server() -> None:
    """In the process that spawns the ranks: hand out the devices in turn."""
    from sglang.srt.entrypoints import engine  # noqa: PLC0415

    if hasattr(engine, "maybe_reindex_device_id"):
        engine.maybe_reindex_device_id = share_device
    else:
        os.environ[BY_RANK_ENV] = "1"
