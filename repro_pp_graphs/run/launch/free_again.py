"""After a server has ended: are its port and its GPU memory free for the next launch?"""

from __future__ import annotations

import os
import time
from pathlib import Path

from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import gpus, listener

SLACK_MIB = 512  # other processes' memory moves a little
LIMIT_S, STRANGER_S = 60.0, 5.0
POLL_S = 0.2
SQUEUE_S = 1.0  # between questions to Slurm


def held_memory(before_mib: dict[str, int]) -> list[str]:
    """The GPUs whose used memory is above what it was before the run, or why none can tell."""
    try:
        return [
            f"GPU {gpu.index}: {gpu.used_mib - before_mib[gpu.uuid]} MiB"
            for gpu in gpus.listed()
            if gpu.used_mib > before_mib.get(gpu.uuid, gpu.used_mib) + SLACK_MIB
        ]
    except gpus.GpuError as error:
        return [str(error)]


def _steps_left(out: Path, launch: Launch) -> list[str]:
    """The steps of a launch's servers that have not ended."""
    from repro_pp_graphs.run.folder import node_results  # noqa: PLC0415 - for such a run alone

    return node_results.steps_left(out, launch)


def wait_until_free(plan: Plan, launch: Launch, out: Path) -> str:
    """Wait for GPU memory, port and the nodes' Slurm steps, which the next launch needs; what is
    still held at the end.

    A port that another process holds is not waited for as long: that one does not end by itself.
    """
    begin_s = time.monotonic()
    while True:
        held = held_memory(plan.gpu_used_mib) if plan.gpu_used_mib else []
        port_held = bool(launch.port) and not listener.is_free(launch.host, launch.port)
        steps = _steps_left(out, launch) if launch.started_nodes > 1 else []
        if not held and not port_held and not steps:
            return ""
        who = ""
        if port_held and not held:
            who = listener.owner(launch.host, launch.port, os.getpid()).stranger
        past_s = time.monotonic() - begin_s
        if past_s > (STRANGER_S if who else LIMIT_S):
            where = f", by {who}" if who else ""
            said = [f"{', '.join(held)} (see nvidia-smi)"] if held else []
            said += [f"port {launch.port}{where}"] if port_held and not held else []
            said += [f"step {', '.join(steps)} (end it with scancel)"] if steps else []
            return f"{past_s:.0f} s after the server's end: {'; '.join(said)}"
        time.sleep(POLL_S if launch.started_nodes == 1 else SQUEUE_S)
