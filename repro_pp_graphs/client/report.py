"""The table for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .metrics import STATISTICS
from .record import Record
from .terminal import wrapped


def report_lines(summary: dict[str, Any], records: Sequence[Record]) -> list[str]:
    """The table for people, at most 80 columns."""

    def number(value: float | None, digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rate = f", {summary['request_rate']:g} requests/s" if summary["request_rate"] else ""
    limit = f", concurrency {summary['max_concurrency']}" if summary["max_concurrency"] else ""
    lines = [
        f"{summary['backend']} {summary['base_url']}  model {summary['model']}",
        f"batch {summary['batch']}{limit}{rate}, {summary['max_new_tokens']} new tokens a prompt, "
        f"{summary['warmup']} warm-up",
        "",
        f"{'':<10}" + "".join(f"{key:>10}" for key in STATISTICS),
    ]
    rows = {"TTFT ms": "ttft_ms", "ITL ms": "itl_ms", "TPOT ms": "tpot_ms"}
    rows["E2E ms"] = "e2e_latency_ms"
    if summary["request_rate"]:
        rows["queue ms"] = "queue_ms"
    for label, name in rows.items():
        cells = (number(summary[f"{key}_{name}"]) for key in STATISTICS)
        lines.append(f"{label:<10}" + "".join(f"{cell:>10}" for cell in cells))
    steady, check = summary["steady_state"], summary["self_check"]
    outcome = f"prompts        {summary['completed']} completed, {summary['failed']} failed"
    lines += [
        "",
        outcome,
        f"tokens         {summary['total_output_tokens']} out, {summary['total_input_tokens']} in "
        f"({summary['total_cached_tokens']} cached), {number(summary['duration'], 3)} s",
        f"throughput     {number(summary['output_throughput'])} output tokens/s, "
        f"{number(summary['request_throughput'])} prompts/s",
        "steady state   "
        + (
            f"{number(steady['output_throughput'])} output tokens/s over "
            f"{number(steady['duration_s'], 3)} s"
            if steady
            else "none (at no time did every stream run)"
        ),
        f"concurrency    {number(summary['concurrency'])} mean, "
        f"{summary['max_concurrent_requests']} peak",
        f"self-check     send lag p99 {number(check['p99_send_lag_ms'])} ms, reader lag p99 "
        f"{number(check['p99_reader_lag_ms'], 3)} ms, CPU {check['client_cpu_share']:.1%},",
        f"               {(check['read_together_share'] or 0):.1%} of arrivals read together, "
        f"{summary['kernel_timestamp_share']:.0%} kernel stamps",
    ]
    if not summary["total_output_tokens"]:
        lines = [*lines[:3], outcome]
    notes = [f"warning: {text}" for text in summary["warnings"]]
    for error, count in Counter(r.error for r in records if r.error).most_common(10):
        notes.append(f"failed: {count} x {error}")
    lines += map(wrapped, notes)
    if summary["interrupted"]:
        lines.append("interrupted: the figures cover what had arrived")
    return lines
