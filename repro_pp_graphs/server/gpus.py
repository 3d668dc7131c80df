"""The NVIDIA GPUs of this machine, as nvidia-smi and CUDA_VISIBLE_DEVICES show them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """One visible GPU: memory in MiB as nvidia-smi counts it."""

    index: str
    uuid: str
    name: str
    total_mib: int
    used_mib: int


def visible(gpus: list[Gpu], wanted: str | None) -> list[Gpu]:
    """The GPUs that CUDA_VISIBLE_DEVICES=`wanted` leaves, in its order; None means all."""
    if wanted is None:
        return gpus
    by_name = {gpu.index: gpu for gpu in gpus}
    chosen = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        match = by_name.get(name) or next((g for g in gpus if g.uuid.startswith(name)), None)
        if match is None:
            break  # CUDA itself ignores everything after the first name it does not know
        chosen.append(match)
    return chosen


def parse(csv: str) -> list[Gpu]:
    """Read `nvidia-smi --query-gpu=index,uuid,name,memory.total,memory.used` (csv, no units)."""
    gpus = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[0].isdigit():
            # a GPU that shares the host's memory reports [N/A]
            total_mib, used_mib = (int(cell) if cell.isdigit() else 0 for cell in cells[3:])
            gpus.append(Gpu(cells[0], cells[1], cells[2], total_mib, used_mib))
    return gpus


def find() -> list[Gpu]:
    """The visible GPUs now; empty where there is no working nvidia-smi."""
    query = "--query-gpu=index,uuid,name,memory.total,memory.used"
    try:
        done = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return visible(parse(done.stdout), os.environ.get("CUDA_VISIBLE_DEVICES"))
