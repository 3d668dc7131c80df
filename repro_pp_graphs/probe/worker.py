"""One rank of the probe, from joining the ring to the last repetition; rank 0 reports."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from repro_pp_graphs.probe import places, result, ring, tracing
from repro_pp_graphs.probe.cells import Cell, balanced
from repro_pp_graphs.probe.journal import Journal
from repro_pp_graphs.probe.loops import Loop
from repro_pp_graphs.probe.model_stage import Shape, Stage, reference_tokens
from repro_pp_graphs.probe.options import SETTLING_STEPS, ProbeOptions
from repro_pp_graphs.probe.ring import Ring
from repro_pp_graphs.probe.runner import Runner


class WrongTokens(RuntimeError):
    """The ring computed something else than a single process does."""


def shape_of(options: ProbeOptions) -> Shape:
    return Shape(
        hidden=options.hidden,
        layers=options.layers,
        batch=options.batch,
        micro_batches=options.micro_batches,
        steps=options.steps,
        dtype=options.dtype,
    )


def check_tokens(loop: Loop, expected: list[list[list[int]]], cell: Cell) -> None:
    """Compare every turn's token ids with the single process's. Raises WrongTokens."""
    slots = loop.schedule.slots
    for turn, ids in sorted(loop.outputs.items()):
        wanted = expected[turn % slots][turn // slots]
        if ids != wanted:
            raise WrongTokens(
                f"rank {loop.ring.rank}, {cell.name}, step {turn // slots}, micro-batch "
                f"{turn % slots}: token ids {ids}, a single process gives {wanted}"
            )
    due = sum(loop.schedule.runs(turn) for turn in range(loop.schedule.turns))
    if len(loop.outputs) != due:
        raise WrongTokens(f"rank {loop.ring.rank}, {cell.name}: {len(loop.outputs)} of {due} turns")


class Worker:
    """A rank's stage and graph, kept over all repetitions."""

    def __init__(self, options: ProbeOptions, place: Ring) -> None:
        self.options, self.ring = options, place
        shape = shape_of(options)
        with torch.inference_mode():
            found = reference_tokens(shape, place.size, place.device) if place.rank == 0 else None
            if place.cuda:
                torch.cuda.empty_cache()
            self.expected = place.gather(found)[0]
            self.runner = Runner(Stage(shape, place.rank, place.size, place.device))
            if True in options.graphs:
                self.runner.capture()
        self.clocks = place.gather(place.clock_ns)
        self.report = result.Report(options, place) if place.rank == 0 else None

    def run(self) -> None:
        """All repetitions, then a profiled run of each combination where traces are wanted."""
        options = self.options
        cells = balanced(options.graphs, options.sends, options.repetitions)
        for send in options.sends:  # communicators and buffers are made at their first use
            self._measure(Cell(options.graphs[0], send, 0), steps=SETTLING_STEPS)
        for number, cell in enumerate(cells, 1):
            journals = self.ring.gather(self._measure(cell))
            if self.report:
                self.report.add(cell, journals, self.clocks, number, len(cells))
        if options.trace:
            self._trace(options.trace, [cell for cell in cells if cell.repetition == 1])
        if self.report:
            self.report.finish()

    def _measure(self, cell: Cell, steps: int | None = None) -> Journal:
        with torch.inference_mode():
            return self._run(Loop(self.ring, self.runner, cell, self.options.host_us, steps))

    def _run(self, loop: Loop) -> Journal:
        try:
            journal = loop.run()
        except RuntimeError as error:
            raise RuntimeError(f"{loop.cell.name}: {error}") from error
        check_tokens(loop, self.expected, loop.cell)
        return journal

    def _trace(self, root: Path, cells: list[Cell]) -> None:
        """Profile each combination once; the analyser's reading is then held against the truth."""
        tracing.warm_up(self.ring)
        for cell in cells:
            folder = places.trace_folder(root, cell, len(cells))
            trace_steps = min(self.options.steps - SETTLING_STEPS, self.options.trace_steps)
            steps = trace_steps + SETTLING_STEPS
            with torch.inference_mode():
                loop = Loop(self.ring, self.runner, cell, self.options.host_us, steps)
                window = tracing.Window(self.ring, loop.schedule, trace_steps, folder)
                loop.each_turn = window.before_turn
                self._run(loop)
            window.save_truth(loop.journal)
            self.ring.barrier()
            if self.report:
                self.report.add_trace(cell, folder)
            self.ring.barrier()


def main(options: ProbeOptions) -> int:
    """Run as the rank that the environment names. Ends the process: 0, or 1 with the reason."""
    status = 0
    try:
        place = ring.join(options.device)
        Worker(options, place).run()
        place.barrier()
        dist.destroy_process_group()
    except BaseException as error:  # whatever it is, the launcher must hear of it
        status = 1
        _tell(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # NCCL's threads must not hold up the end


def _tell(error: BaseException) -> None:
    """Leave the reason where the launcher looks, else on stderr."""
    place = os.environ.get("REPRO_PROBE_ERRORS")
    text = f"{type(error).__name__}: {error}"
    if place:
        name = f"rank{os.environ['RANK']}.txt"
        Path(place, name).write_text(f"{text}\n{traceback.format_exc()}", encoding="utf-8")
    else:
        print(f"probe rank {os.environ.get('RANK')}: {text}", file=sys.stderr)
