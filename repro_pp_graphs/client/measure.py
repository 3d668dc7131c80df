"""A measurement from the warm-up to the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bench_serving import bench_serving_line
from .clock import clock_ns
from .driver import Driver
from .load import control_options, control_streams, streams_beside, streams_to_send
from .metrics import ttft_ms
from .options import Options
from .prompts import Prompts, prompts_in_all
from .record import Record, of_load
from .report import report_lines
from .result import check_writable, part_of, result_document, write_json
from .run import Run
from .server import NO_SERVER, Server
from .signals import ignore_signals
from .stream import parse_stream
from .summary import summarize
from .terminal import complain, say, wrapped
from .warm_up import WarmUpPass, is_steady, pass_of

PASS_STRIDE = 10**9  # between the numbers of two passes' prompts


class Measurement:
    """Warm-up, the run that counts, and the control; what was reached when a signal ends one."""

    def __init__(self, options: Options, prompts: Prompts) -> None:
        self.run = Run(begin_ns=clock_ns(), interrupted=True)
        self.model = options.model or "default"
        self.why_not_measured = ""
        self._options, self._prompts = options, prompts
        self._server = Server(options)

    def take(self) -> None:
        """Send everything and wait for it. Where no server answers the warm-up, or it falls silent
        in it, that is all: `run` is what was sent last, its failures are the report."""
        try:
            self.model = self._server.model()
            if self._warm_up() and (passes := self._warm_up_passes()) is not None:
                self.run = self._load(0, "measuring")
                self.run.warm_up_passes = passes
                self._control()
        except KeyboardInterrupt:
            self.run.interrupted = True
            self.run.end_ns = self.run.end_ns or clock_ns()

    def _load(self, first: int, label: str) -> Run:
        """The measured load, once; its prompts are numbered from `first`."""
        total = prompts_in_all(self._options, self._prompts)
        ahead = streams_to_send(self._options, self.model, self._prompts, first, total)
        beside = streams_beside(self._options, self.model, first)
        return Driver(ahead, self._server, self._options, label, beside).run()

    def _warm_up_passes(self) -> list[WarmUpPass] | None:
        """Repeat the load until two passes agree, prompts fail or --warmup-passes are sent; None
        when a signal ended it, or the server fell silent. Lines of a file are the same in every
        pass, synthetic prompts not.
        """
        passes: list[WarmUpPass] = []
        for number in range(1, self._options.warmup_passes + 1):
            first = 0 if len(self._prompts) else -number * PASS_STRIDE
            run = self._load(first, f"warm-up pass {number}")
            if run.interrupted:
                return None
            passes.append(pass_of(of_load(records_of(run, self._options))))
            if self._ends_here(run, f"warm-up pass {number}"):
                self.run.warm_up_passes = passes
                return None
            if passes[-1].failed or is_steady(passes):
                break
        return passes

    def _control(self) -> None:
        """Send the control requests that were asked for; a signal ends them and the run."""
        if self.run.interrupted or not self._options.control:
            return
        if fell_silent(self.run, self._options):
            return  # each would be waited for in vain
        options = control_options(self._options)
        run = Driver(control_streams(options, self.model), self._server, options, "control").run()
        self.run.interrupted = run.interrupted
        records = records_of(run, options)[1:]
        self.run.control_ttft_ms = [ttft_ms(record) for record in records if record.error is None]

    def _warm_up(self) -> bool:
        """Send the --warmup requests; whether there is anything to measure."""
        options = self._options
        closed = {"request_rate": None, "duration_s": None, "concurrency": options.concurrency or 1}
        warm_options = Options(**(vars(options) | closed))
        total = options.warmup * options.batch
        ahead = streams_to_send(warm_options, self.model, self._prompts, -total, total)
        warm = Driver(ahead, self._server, warm_options, "warm-up").run()
        if warm.interrupted or self._ends_here(warm, "the warm-up"):
            return False
        errors = {record.error or "" for record in records_of(warm, options)}
        for error in sorted(errors - {""}):
            print(wrapped(f"warning: warm-up failed: {error}"), file=sys.stderr)
        return True

    def _ends_here(self, run: Run, label: str) -> bool:
        """Whether nothing would come of measuring after this part of the warm-up; it is `run`
        then, and `why_not_measured` says why."""
        errors = [record.error or "" for record in records_of(run, self._options)]
        if errors and all(error.startswith(NO_SERVER) for error in errors):
            self.why_not_measured = f"no server answered {label}: nothing was measured"
        elif fell_silent(run, self._options):
            self.why_not_measured = (
                f"the server fell silent in {label}: nothing was measured, what is here is of "
                f"{label}; see the server's log, or raise --stall-timeout if it needs longer"
            )
        if self.why_not_measured:
            self.run = run
        return bool(self.why_not_measured)


def records_of(run: Run, options: Options) -> list[Record]:
    """One record a prompt, in the order of sending."""
    return [record for stream in run.streams for record in parse_stream(stream, options, run.clock)]


def fell_silent(run: Run, options: Options) -> bool:
    """Whether nothing came of any stream after one that stalled: the server hangs, where
    otherwise one stream was lost."""
    last = max(run.streams, key=lambda one: max(one.sent_ns, one.last_ns), default=None)
    if last is None:
        return False
    errors = [record.error or "" for record in parse_stream(last, options, run.clock)]
    return any(error.startswith("stalled:") for error in errors)


def check_outputs(options: Options) -> None:
    """Raises UsageError where a result could not be written."""
    if options.output is not None:
        check_writable("--output", options.output, part_of)
    if options.bench_serving_json is not None:
        check_writable("--bench-serving-json", options.bench_serving_json, Path)


def write_outputs(
    summary: dict[str, Any], records: Sequence[Record], options: Options, measured: bool
) -> None:
    """Write the files that were asked for; no line of bench_serving, which has no word for it,
    where nothing was `measured`. Raises OSError."""
    if options.output is not None:
        write_json(options.output, result_document(summary, records))
    if options.bench_serving_json is not None and measured:
        line = bench_serving_line(summary, records, options)
        with options.bench_serving_json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def measure(options: Options) -> int:
    """Warm up, run, parse, write, report; the exit status. Raises UsageError."""
    prompts = Prompts(options)
    check_outputs(options)
    measurement = Measurement(options, prompts)
    measurement.take()
    ignore_signals()
    run = measurement.run
    records = records_of(run, options)
    summary = summarize(records, run, options, measurement.model, len(prompts))
    measured = not measurement.why_not_measured
    if not measured:
        summary["warnings"] = [measurement.why_not_measured]
    failures = (summary["failed"] + summary["beside_failed"]) / max(1, len(records))
    failed = not records or not measured or failures > options.max_error_rate
    try:
        write_outputs(summary, records, options, measured)
    except OSError as exc:
        complain(f"the result cannot be written: {exc}")
        failed = True
    try:
        say(report_lines(summary, records))
    except OSError as exc:
        complain(f"the report cannot be printed: {exc.strerror}")
        failed = True
    return 130 if run.interrupted else int(failed)
