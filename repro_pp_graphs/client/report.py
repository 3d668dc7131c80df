"""The report for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .caveats import self_check_verdict, waits_for_a_place
from .metrics import STATISTICS
from .record import Record
from .terminal import wrapped


def load_line(summary: dict[str, Any]) -> str:
    """What was asked for: prompts a request, requests at a time or a second, tokens a prompt."""
    batch, limit = summary["batch"], summary["max_concurrency"]
    parts = [f"{batch} prompt{'s' * (batch > 1)} a request"]
    if summary["request_rate"]:
        parts.append(f"{summary['request_rate']:g} requests/s")
    if limit:
        most = "at most " if summary["request_rate"] else ""
        parts.append(f"{most}{limit} request{'s' * (limit > 1)} at a time")
    if summary["beside_rate"]:
        parts.append(
            f"beside them {summary['beside_rate']:g} prompts/s of {summary['beside_input_len']} "
            "tokens"
        )
    parts += [f"{summary['max_new_tokens']} new tokens a prompt", f"{summary['warmup']} warm-up"]
    return ", ".join(parts)


def report_lines(summary: dict[str, Any], records: Sequence[Record]) -> list[str]:
    """The report for people, at most 80 columns; without a token only what failed."""
    lines = [
        wrapped(f"{summary['backend']} {summary['base_url']}  model {summary['model']}"),
        wrapped(load_line(summary)),
        "",
    ]
    if summary["total_output_tokens"]:
        lines += [*latency_table(summary), ""]
    lines.append(row("prompts", f"{summary['completed']} completed, {summary['failed']} failed"))
    if summary["total_output_tokens"]:
        lines += throughput_lines(summary)
        lines.append(row("self-check", self_check_text(summary)))
    notes = [f"warning: {text}" for text in summary["warnings"]]
    for error, count in Counter(r.error for r in records if r.error).most_common(10):
        notes.append(f"failed: {count} x {error}")
    lines += map(wrapped, notes)
    if summary["interrupted"]:
        lines.append("interrupted: the figures cover what had arrived")
    return lines


def latency_table(summary: dict[str, Any]) -> list[str]:
    """A row a latency, a column for each of STATISTICS; ms."""
    rows = {"TTFT ms": "ttft_ms", "ITL ms": "itl_ms", "TPOT ms": "tpot_ms"}
    rows["E2E ms"] = "e2e_latency_ms"
    if summary["request_rate"]:
        rows["queue ms"] = "queue_ms"
    lines = [f"{'':<10}" + "".join(f"{key:>10}" for key in STATISTICS)]
    for label, name in rows.items():
        cells = (number(summary[f"{key}_{name}"]) for key in STATISTICS)
        lines.append(f"{label:<10}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def throughput_lines(summary: dict[str, Any]) -> list[str]:
    """Tokens, tokens a second, and how many prompts were served at a time."""
    steady = summary["steady_state"]
    return [
        row(
            "tokens",
            f"{summary['total_output_tokens']} out, {summary['total_input_tokens']} in "
            f"({summary['total_cached_tokens']} cached), {number(summary['duration'], 3)} s",
        ),
        row(
            "throughput",
            f"{number(summary['output_throughput'])} output tokens/s, "
            f"{number(summary['request_throughput'])} prompts/s",
        ),
        row(
            "steady state",
            f"{number(steady['output_throughput'])} output tokens/s over "
            f"{number(steady['duration_s'], 3)} s"
            if steady
            else "none (at no time did every stream run)",
        ),
        row(
            "in flight",
            f"{number(summary['concurrency'])} prompts on average, "
            f"{summary['max_concurrent_requests']} at most"
            + (", with those that wait to be sent" if waits_for_a_place(summary) else ""),
        ),
        *beside_lines(summary),
        *around_lines(summary),
    ]


def beside_lines(summary: dict[str, Any]) -> list[str]:
    """What arrived beside the load, where that was asked for."""
    if not summary["beside_rate"]:
        return []
    text = (
        f"{summary['beside_completed']} completed, {summary['beside_failed']} failed, TTFT median "
        f"{number(summary['median_beside_ttft_ms'])} ms; in no figure above"
    )
    return [row("beside", text)]


def around_lines(summary: dict[str, Any]) -> list[str]:
    """The warm-up passes and the control, where there were any."""
    lines = []
    if passes := summary["warmup_passes"]:
        steady = {True: "the last two agree", False: "not steady", None: "too few to compare"}
        said = steady[summary["warmup_steady"]]
        lines.append(row("warm-up", f"{passes} pass{'es' * (passes > 1)} of the load: {said}"))
    if summary["control_ttft_ms"] is not None:
        times = summary["control_requests"]
        text = f"TTFT of one short prompt alone {number(summary['control_ttft_ms'])} ms"
        lines.append(row("control", f"{text}, median of {times}"))
    return lines


def self_check_text(summary: dict[str, Any]) -> str:
    """The figures of the client's own check, and the verdict."""
    check = summary["self_check"]
    return (
        f"send lag p99 {number(check['p99_send_lag_ms'])} ms, "
        f"reader lag p99 {number(check['p99_reader_lag_ms'], 3)} ms, "
        f"{max(check['client_cpu_share'], 0.001):.1%} of a core used, "
        f"{(check['read_together_share'] or 0):.1%} of arrivals read together, "
        f"{summary['kernel_timestamp_share']:.0%} kernel stamps: {self_check_verdict(summary)}"
    )


def row(label: str, text: str) -> str:
    """A label and its text, which goes on below itself."""
    return wrapped(text, f"{label:<15}", " " * 15)


def number(value: float | None, digits: int = 2) -> str:
    """At a fixed number of digits; "-" for what was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"
