"""A rank's process of the stand-in, and what it shares with its parent: log, fault, graphs."""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from sglang.srt import distributed

if "REPRO_PP_CLOCK" in os.environ:  # a plain launch has no such path
    from repro_pp_graphs.pp_clock import rows

MENDED = Path(os.environ.get("FAKE_MENDED", "/never")).exists()
FAULT, _, CAUSE = ("" if MENDED else os.environ.get("FAKE_FAULT", "")).partition(":")
# importlib.metadata says the same, and takes as long to import as all else here
VERSION = next(
    path.name.removeprefix("sglang-").removesuffix(".dist-info")
    for folder in sys.path
    for path in Path(folder).glob("sglang-*.dist-info")
)
NUMBERS = tuple(int(part) for part in VERSION.split(".")[:3])
OLD_NAMES = NUMBERS < (0, 5, 4)
CHOOSES_ID = NUMBERS < (0, 5, 11)  # of a profile: the client cannot


def log(text: str, rank: int | None = None) -> None:
    if os.environ.get("FAKE_QUIET"):
        return
    where = "" if rank is None else f" PP{rank}"
    # one write a line: the ranks share the file; on a full disk logging goes on without it
    with contextlib.suppress(OSError):
        os.write(1, f"[{time.strftime('%Y-%m-%d %H:%M:%S')}{where}] {text}\n".encode())


def graphs_run(args: argparse.Namespace) -> bool:
    said = os.environ.get("FAKE_GRAPHS")
    asked = not args.disable_cuda_graph and args.device != "cpu"
    return said == "True" if said else asked


def trace(rank: int, ranks: int, steps: int, graphs: bool) -> dict[str, Any]:
    """A rank's Chrome trace: a compute kernel a step, launched by a graph or on its own."""
    launch = "cudaGraphLaunch" if graphs else "cudaLaunchKernel"
    events = []
    for step in range(steps):
        at, pid = 1000.0 * step, 500 + rank
        here, gpu = {"ph": "X", "pid": pid, "tid": pid}, {"ph": "X", "pid": 0, "tid": 7}
        tie = {"args": {"correlation": step + 1, "External id": step + 1}}
        span = {"cat": "user_annotation", "name": "step[DECODE bs=2]", "ts": at, "dur": 60.0}
        events += [
            {**here, **span, "args": {}},
            {**here, "cat": "cuda_runtime", "name": launch, "ts": at + 5, "dur": 4.0, **tie},
            {**gpu, "cat": "kernel", "name": "compute", "ts": at + 10, "dur": 40.0, **tie},
        ]
    info = {"backend": "nccl", "rank": rank, "world_size": ranks}
    return {
        "schemaVersion": 1,
        "distributedInfo": info,
        "baseTimeNanoseconds": 1_790_857_026_000_000_000,
        "traceEvents": events,
    }


def _here(folder: str) -> str:
    """A folder as this node has it: FAKE_NODE_OUT is `what the head calls it:its path here`."""
    theirs, _, ours = os.environ.get("FAKE_NODE_OUT", ":").partition(":")
    return folder.replace(theirs, ours) if theirs else folder


def export(rank: int, args: argparse.Namespace, request: dict[str, Any]) -> None:
    document = trace(rank, args.pp_size, request["num_steps"], graphs_run(args))
    suffix = "" if OLD_NAMES else f"-PP-{rank}"
    path = Path(_here(request["output_dir"]), f"{request['id']}-TP-0{suffix}.trace.json.gz")
    log("Stop profiling...", rank)
    last = rank == args.pp_size - 1
    if not (last and FAULT == "missing_rank"):
        profiler = torch.profiler.profile(document)
        profiler.start()
        try:
            profiler.export_chrome_trace(str(path))
        except OSError as error:  # the scheduler dies of it, and takes the server along
            log(f"Scheduler hit an exception: {error!r}", rank)
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(1)
    if last and FAULT == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    log(f"Profiling done. Traces are saved to: {path.parent}", rank)


def write_rows(rank: int, args: argparse.Namespace) -> None:
    """The file that the shim pp_clock would write: a turn, where the shim is asked for."""
    if prefix := os.environ.get("REPRO_PP_CLOCK"):
        with contextlib.suppress(OSError):
            file = rows.RowFile(rows.path_of(prefix, rank, 0), rows.LEAST_CAPACITY)
            file.describe(pp_rank=rank, pp_size=args.pp_size, tp_rank=0, loop_size=args.pp_size)
            file.write(1, 2, 0, rows.CODES["turn"], rows.DECODE, 2)


def run_rank(rank: int, args: argparse.Namespace, pipe: Connection) -> None:
    """A rank's process: waits for profile requests, and outlives its parent as a real one may."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # as a real rank does: its name, and stacks where it is aborted
    Path("/proc/self/comm").write_text("sglang::schedul")
    faulthandler.enable()
    if FAULT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    group = distributed.get_pp_group()
    group.rank_in_group, group.world_size = rank, args.pp_size
    write_rows(rank, args)
    log("Load weight begin. avail mem=78.50 GB", rank)
    if FAULT != "never_ready":
        log("Load weight end. elapsed=0.01 s, type=LlamaForCausalLM, avail mem=78.0 GB", rank)
        pipe.send("loaded")
    try:
        while True:
            export(rank, args, pipe.recv())
            pipe.send("exported")
    except (EOFError, OSError):
        while True:
            time.sleep(3600)
