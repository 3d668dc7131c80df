"""A profiled stretch of a run: a trace a rank, and beside it what the rank itself noted."""

from __future__ import annotations

import gzip
import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist

from repro_pp_graphs.probe.journal import CLOCK, Journal
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.schedule import Schedule

TRUTH = "truth_rank{}.jsonl"  # a suffix that no reader takes for a trace
SETTLED_AFTER = 2  # steps; each rank then begins one turn after the one before it

_kept: list[
    torch.profiler.profile
] = []  # a finished profiler that is freed while another records can crash


def _profiler(ring: Ring) -> torch.profiler.profile:
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if ring.cuda:
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    else:
        # torch 2.13 asks its compiler whether it makes CUDA graphs, and imports it to: a second
        getattr(torch, "_lazy_modules", set()).discard("_inductor")
    # without shapes a gloo message has no size
    warnings.filterwarnings("ignore", message=".*Profiler clears events")  # of cycles: we have one
    made = torch.profiler.profile(activities=kinds, record_shapes=True)
    _kept.append(made)
    return made


def warm_up(ring: Ring) -> None:
    """Start and stop a profiler once: its first start takes seconds."""
    with _profiler(ring):
        torch.zeros(1, device=ring.device).add_(1)
    ring.barrier()


class Window:
    """Profiles `steps` steps of one run, from a turn that differs from rank to rank, as sglang's
    ranks do."""

    def __init__(self, ring: Ring, schedule: Schedule, steps: int, folder: Path) -> None:
        self.ring, self.folder = ring, folder
        self.begin = SETTLED_AFTER * schedule.slots + ring.rank
        self.end = self.begin + steps * schedule.slots
        self.profiler = _profiler(ring)
        self.begin_ns = self.end_ns = 0

    def before_turn(self, turn: int) -> None:
        if turn == self.begin:
            if self.ring.cuda:
                torch.cuda.synchronize()  # a kernel launched before the start has no launch call
            self.profiler.start()
            self.begin_ns = CLOCK()
        elif turn == self.end:
            self.end_ns = CLOCK()
            if self.ring.cuda:
                torch.cuda.synchronize()
            self.profiler.stop()
            # at once: torch 2.13 crashes here once a gloo send that was under way has ended
            self.folder.mkdir(parents=True, exist_ok=True)
            made = self.folder / f"probe-TP-0-PP-{self.ring.rank}.trace.json"  # as sglang names it
            self.profiler.export_chrome_trace(str(made))
            # torch would compress it line by line, at eight times the CPU
            made.with_name(f"{made.name}.gz").write_bytes(gzip.compress(made.read_bytes(), 6))
            made.unlink()

    def save_truth(self, journal: Journal) -> None:
        """The calls within the trace, as this rank noted them."""
        rank = self.ring.rank
        head = {
            "rank": rank,
            "backend": dist.get_backend(self.ring.device_group),
            "clock_ns": self.ring.clock_ns,
        }
        rows = [head]
        rows += [
            asdict(call)
            for call in journal.calls
            if self.begin_ns <= call.entered_ns and call.left_ns <= self.end_ns
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / TRUTH.format(rank)).write_text(text, encoding="utf-8")
