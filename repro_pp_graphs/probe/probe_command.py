"""python -m repro_pp_graphs probe: measure the ring's token send without sglang."""

from __future__ import annotations

import importlib.util
import os

from repro_pp_graphs.probe import launcher, options, places
from repro_pp_graphs.server.machine import gpus
from repro_pp_graphs.terminal import complain


def main(argv: list[str]) -> int:
    """probe OPTIONS: 0 measured and right, 1 a rank failed, 2 usage, 130 interrupted.

    Raises ModuleNotFoundError without torch or numpy.
    """
    rank = launcher.is_rank()
    world_size = int(os.environ["WORLD_SIZE"]) if rank else None
    try:
        have_gpu = options.device_asked(argv) != "cpu" and bool(gpus.find().gpus)
    except gpus.GpuError as error:
        complain("probe", f"{error}, or --device cpu")
        return 2
    found = options.parse(argv, have_gpu, world_size)
    for name in ("torch", "numpy"):
        if not importlib.util.find_spec(name):
            raise ModuleNotFoundError(name=name)
    if not rank or (os.environ.get("LOCAL_RANK") == "0" and launcher.under_torchrun()):
        try:
            places.prepare(found)
        except OSError as error:
            complain("probe", str(error))
            return 2
    if not rank:
        return launcher.run_ranks(argv, found.ranks)
    from repro_pp_graphs.probe import worker  # noqa: PLC0415 - imports torch

    return worker.main(found)
