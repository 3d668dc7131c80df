"""Every figure of a run by its name in the JSON, and what makes them mean less."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .caveats import caveats
from .metrics import (
    distribution,
    e2e_ms,
    itl_ms,
    itl_over_time,
    peak_in_flight,
    steady_state,
    tpot_ms,
    ttft_ms,
)
from .options import Options
from .record import Record, of_load
from .run import Run
from .warm_up import is_steady


def self_check(records: Sequence[Record], run: Run, total_tokens: int) -> dict[str, Any]:
    """How far the client itself can have moved the numbers."""
    arrivals = sum(len(record.events) for record in records)
    together = sum(
        before[0] == after[0] for r in records for before, after in itertools.pairwise(r.events)
    )
    wall_s = max(1e-9, (run.end_ns - run.begin_ns) / 1e9)
    lags_ms = [(record.sent_ns - record.intended_ns) / 1e6 for record in records if record.sent_ns]
    reader_lags_ns = run.clock.lags_ns or run.clock.rounds_ns
    return {
        **distribution("send_lag_ms", lags_ms),
        **distribution("reader_lag_ms", (lag_ns / 1e6 for lag_ns in reader_lags_ns)),
        "read_together_share": together / arrivals if arrivals else None,
        "client_cpu_share": run.cpu_s / wall_s,
        "client_cpu_ms_per_1k_tokens": run.cpu_s * 1e6 / total_tokens if total_tokens else None,
    }


def load_settings(options: Options, model: str) -> dict[str, Any]:
    """What was sent, and where to."""
    return {
        "backend": options.backend,
        "base_url": options.base_url,
        "model": model,
        "batch": options.batch,
        "max_concurrency": options.concurrency,
        "request_rate": options.request_rate,
        "max_new_tokens": options.max_new_tokens,
        "ignore_eos": options.ignore_eos,
        "seed": options.seed,
        "warmup": options.warmup,
        "beside_input_len": options.beside_input_len,
        "beside_rate": options.beside_rate,
    }


def latencies(records: Sequence[Record], completed: Sequence[Record]) -> dict[str, Any]:
    """Distributions in ms. TTFT and ITL also take interrupted prompts, the others only completed
    ones."""
    streaming = [
        r for r in records if r.events and (r.error is None or r.error.startswith("interrupted"))
    ]
    long = [r for r in completed if r.tokens > 1]
    return {
        **distribution("ttft_ms", map(ttft_ms, streaming)),
        **distribution("tpot_ms", map(tpot_ms, long)),
        **distribution("itl_ms", itertools.chain.from_iterable(map(itl_ms, streaming))),
        **distribution("e2e_latency_ms", map(e2e_ms, completed)),
        **distribution("queue_ms", ((r.sent_ns - r.intended_ns) / 1e6 for r in completed)),
    }


def how_measured(records: Sequence[Record], run: Run) -> dict[str, Any]:
    """Where time stamps and token counts come from, and what was not understood."""
    ignored = [line for stream in run.streams for line in stream.answer.ignored_lines()]
    stamped_share = len(run.clock.lags_ns) / max(1, run.clock.reads)
    counted_late = any(record.counted_late for record in records)
    return {
        "timestamps": "kernel" if stamped_share > 0.5 else "user",
        "kernel_timestamp_share": stamped_share,
        "reader": run.reader,
        "token_counts": "final_usage" if counted_late else "per_event",
        "ignored_lines": len(ignored),
        "first_ignored_line": ignored[0][:60].decode("utf-8", "replace") if ignored else None,
    }


def around(run: Run) -> dict[str, Any]:
    """What came before and after the measured load: warm-up passes, and the control."""
    control_ms = run.control_ttft_ms
    return {
        "warmup_passes": len(run.warm_up_passes),
        "warmup_steady": is_steady(run.warm_up_passes),
        "warmup_figures": [vars(one) for one in run.warm_up_passes],
        "control_ttft_ms": statistics.median(control_ms) if control_ms else None,
        "control_requests": len(control_ms),
    }


def arrived_beside(records: Sequence[Record]) -> dict[str, Any]:
    """What arrived beside the load, which is in none of its other figures."""
    completed = [record for record in records if record.error is None]
    return {
        "beside_completed": len(completed),
        "beside_failed": len(records) - len(completed),
        "beside_input_tokens": sum(record.prompt_tokens for record in records),
        **distribution("beside_ttft_ms", (ttft_ms(r) for r in completed if r.events)),
    }


def summarize(
    records: Sequence[Record], run: Run, options: Options, model: str, prompts_in_file: int
) -> dict[str, Any]:
    """Every figure of the report: `_ms` in the name or seconds; throughput a second."""
    beside = [record for record in records if record.beside]
    records = of_load(records)
    completed = [record for record in records if record.error is None]
    begin_ns = min((record.start_ns for record in records), default=run.begin_ns)
    end_ns = max((r.events[-1][0] for r in records if r.events), default=run.end_ns)
    duration_s = max(1e-9, (end_ns - begin_ns) / 1e9)
    spans_ns = [(r.start_ns, r.events[-1][0]) for r in records if r.events]
    output_tokens = sum(record.tokens for record in records)
    input_tokens = sum(record.prompt_tokens for record in records)
    summary: dict[str, Any] = {
        **load_settings(options, model),
        "interrupted": run.interrupted,
        "completed": len(completed),
        "failed": len(records) - len(completed),
        "errors": Counter((r.error or "").split(":")[0] for r in records if r.error),
        "duration": duration_s,
        "total_input_tokens": input_tokens,
        "total_cached_tokens": sum(record.cached_tokens for record in records),
        "total_output_tokens": output_tokens,
        "request_throughput": len(completed) / duration_s,
        "input_throughput": input_tokens / duration_s,
        "output_throughput": output_tokens / duration_s,
        "total_throughput": (input_tokens + output_tokens) / duration_s,
        "concurrency": sum(map(e2e_ms, completed)) / 1e3 / duration_s,
        "max_concurrent_requests": peak_in_flight(spans_ns),
        **latencies(records, completed),
        "steady_state": steady_state(records),
        "itl_over_time": itl_over_time(records, begin_ns, end_ns),
        **how_measured(records, run),
        **around(run),
        **arrived_beside(beside),
        "self_check": self_check(records, run, output_tokens),
    }
    summary["warnings"] = caveats(summary, records, options, prompts_in_file, run.warm_up_passes)
    return summary
