"""A measurement from the warm-up to the report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .bench_serving import bench_serving_line
from .clock import clock_ns
from .driver import Driver
from .load import plan
from .options import Options
from .prompts import Prompts, prompts_in_all
from .record import Record
from .report import report_lines, wrapped
from .result import check_writable, part_of, result_document, write_json
from .run import Run
from .server import NO_SERVER, Server
from .signals import ignore_signals
from .stream import parse_stream
from .summary import summarize


def measure(options: Options) -> int:
    """Warm up, run, parse, report; the exit status."""
    prompts = Prompts(options)
    lines_file = options.bench_serving_json
    if options.output is not None:
        check_writable("--output", options.output, part_of)
    if lines_file is not None:
        check_writable("--bench-serving-json", lines_file, Path)
    server = Server(options)
    run = Run(begin_ns=clock_ns(), interrupted=True)
    model, no_server = options.model or "default", False
    try:
        model = server.model()
        closed = {"request_rate": None, "duration_s": None, "concurrency": options.concurrency or 1}
        warm_options = Options(**(vars(options) | closed))
        prompts_before = options.warmup * options.batch
        ahead = plan(warm_options, model, prompts, -prompts_before, prompts_before)
        warm = Driver(ahead, server, warm_options, "warm-up").run()
        if not warm.interrupted:
            parsed = (parse_stream(stream, options, warm.clock) for stream in warm.streams)
            errors = {record.error or "" for records in parsed for record in records}
            no_server = bool(errors) and all(error.startswith(NO_SERVER) for error in errors)
            if no_server:
                run = warm  # its failures are the report: nothing else would come of measuring
            else:
                for error in sorted(errors - {""}):
                    print(wrapped(f"warning: warm-up failed: {error}"), file=sys.stderr)
                ahead = plan(options, model, prompts, 0, prompts_in_all(options, prompts))
                run = Driver(ahead, server, options, "measuring").run()
    except KeyboardInterrupt:
        run.end_ns = clock_ns()
    ignore_signals()
    records: list[Record] = []
    for stream in run.streams:
        records += parse_stream(stream, options, run.clock)
    summary = summarize(records, run, options, model, len(prompts))
    if no_server:
        summary["warnings"] = ["no server answered the warm-up: nothing was measured"]
    failures = summary["failed"] / max(1, len(records))
    status = int(not records or no_server or failures > options.max_error_rate)
    try:
        if options.output is not None:
            write_json(options.output, result_document(summary, records))
        if lines_file is not None:
            line = bench_serving_line(summary, records, options)
            with lines_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
    except OSError as exc:
        print(f"client_benchmark.py: the result cannot be written: {exc}", file=sys.stderr)
        status = 1
    print("\n".join(report_lines(summary, records)))
    return 130 if run.interrupted else status
