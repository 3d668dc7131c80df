"""After a server has ended: its traces are those that it wrote, its port and memory are free."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from repro_pp_graphs.pp_clock import collect
from repro_pp_graphs.run import begin, record
from repro_pp_graphs.run.record import Launch, Plan
from repro_pp_graphs.server import gpu_counters, gpus, listener, shims
from repro_pp_graphs.terminal import wrapped
from repro_pp_graphs.traces.read.identity import is_trace

SLACK_MIB = 512  # other processes' memory moves a little
STRANGER_S = 5.0
POLL_S = 0.2


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


def wait_until_free(plan: Plan, launch: Launch, timeout_s: float) -> str:
    """Wait for GPU memory and port, which the next launch needs; what is still held at the end.

    A port that another process holds is not waited for as long: that one does not end by itself.
    """
    begin_s = time.monotonic()
    while True:
        held = held_memory(plan.gpu_used_mib) if plan.gpu_used_mib else []
        port_held = bool(launch.port) and not listener.is_free(launch.host, launch.port)
        if not held and not port_held:
            return ""
        who = ""
        if port_held and not held:
            who = listener.owner(launch.host, launch.port, os.getpid()).stranger
        past_s = time.monotonic() - begin_s
        if past_s > (min(STRANGER_S, timeout_s) if who else timeout_s):
            where = f", by {who}" if who else ""
            memory = f"{', '.join(held)} (see nvidia-smi)" if held else ""
            return (
                f"{past_s:.0f} s after the server's end: {memory or f'port {launch.port}{where}'}"
            )
        time.sleep(POLL_S)


def traces_of(out: Path, label: str) -> tuple[list[str], list[str]]:
    """Of a launch's trace folder: what came in beside the files that its profile saw whole, by
    name relative to `out`, and which of those are gone or changed; both empty unprofiled."""
    sizes = record.load_facts(out / "logs", label).get("trace_bytes") or {}
    folder = out / "trace" / label
    there = {path.name: path.stat().st_size for path in folder.glob("*") if is_trace(path)}
    more = [f"trace/{label}/{name}" for name in there if sizes and name not in sizes]
    return more, [name for name, size in sizes.items() if there.get(name) != size]


def claim_traces(out: Path, label: str) -> str:
    """Move aside what is not of the launch's profile; why the launch fails where some of that is
    gone or changed."""
    logs = out / "logs"
    more, lost = traces_of(out, label)
    if line := begin.clear(out, more):
        print("\n".join(wrapped(line, "  ")))
        record.warn(logs, label, line)
    return f"{out}/trace/{label}: {', '.join(lost)} changed after the profile" if lost else ""


def collect_clock(logs: Path, launch: Launch) -> None:
    """Keep what the ranks' clocks wrote, and warn of what they lack."""
    if "pp_clock" not in shims.names_in(launch.env):
        return
    try:
        found = collect.collect(logs, launch.label)
    except OSError as error:
        record.warn(logs, launch.label, f"pp_clock: {error}: its rows are kept, its facts are not")
        return
    if found is None:
        record.warn(logs, launch.label, "pp_clock: no rank left rows; see the server's log")
    else:
        record.warn(logs, launch.label, *(f"pp_clock: {text}" for text in found.warnings))


def count_gpus(plan: Plan, logs: Path, label: str) -> None:
    """Complete the launch's GPU counters, with warnings of what they say."""
    counters = record.load_facts(logs, label).get("gpu_counters")
    if counters:
        counters["after"] = gpu_counters.read(list(plan.gpu_used_mib))
        record.save_facts(logs, label, gpu_counters=counters)
        record.warn(logs, label, *gpu_counters.remarks(counters["before"], counters["after"]))


def main(argv: list[str]) -> int:
    """settle OUT LABEL: 0; 1 where the launch's traces are not what its profile saw."""
    parser = argparse.ArgumentParser(prog="repro_pp_graphs settle", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("label")
    parser.add_argument("--timeout-s", type=float, default=60)
    options = parser.parse_args(argv)
    out, label, logs = options.out, options.label, options.out / "logs"
    plan = record.load(logs)
    count_gpus(plan, logs, label)
    collect_clock(logs, plan.launch(label))
    reason = claim_traces(out, label)
    if reason:
        print("\n".join(wrapped(f"{label} failed: {reason}", "  ")))
        record.save_facts(logs, label, status="failed", reason=reason)
    if held := wait_until_free(plan, plan.launch(label), options.timeout_s):
        print("\n".join(wrapped(f"not free {held}", "  ")))
    return int(bool(reason))
