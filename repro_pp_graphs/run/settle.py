"""After a server has ended: wait until its port and GPU memory are free again."""

from __future__ import annotations

import argparse
import socket
import time
from pathlib import Path

from repro_pp_graphs.run import record
from repro_pp_graphs.server import gpus

SLACK_MIB = 512  # other processes' memory moves a little
POLL_S = 0.2


def port_is_free(port: int) -> bool:
    """Can 127.0.0.1:`port` be bound? Connections in TIME_WAIT do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


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


def main(argv: list[str]) -> int:
    """settle LOGS LABEL: 0 once all is free, 1 where it is not after the limit."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs settle", description=__doc__)
    parser.add_argument("logs", type=Path)
    parser.add_argument("label")
    parser.add_argument("--timeout-s", type=float, default=60)
    options = parser.parse_args(argv)
    plan = record.load(options.logs)
    port = plan.launch(options.label).port
    end_s = time.monotonic() + options.timeout_s
    while True:
        held = held_memory(plan.gpu_used_mib) if plan.gpu_used_mib else []
        if not held and port_is_free(port):
            return 0
        if time.monotonic() > end_s:
            break
        time.sleep(POLL_S)
    what = ", ".join(held) or f"port {port}"
    print(f"  not free {options.timeout_s:.0f} s after the server's end: {what}; see nvidia-smi")
    return 1
