"""What makes the figures of a run mean less than they seem to, in sentences."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from .options import Options
from .record import Record
from .warm_up import WarmUpPass, measured_longer_caveat, not_steady_caveat

BUSY_SHARE = 0.8  # of a core
READ_TOGETHER_SHARE = 0.05
SEVERAL = 1.5  # tokens an arrival, after the first
SEND_LAG_MS = 10.0  # or a tenth of the median TTFT, if that is more
STAMPED_SHARE = 0.99  # of the reads: below, late reads are late arrivals


def client_faults(summary: dict[str, Any]) -> list[str]:
    """How the client itself may have moved the numbers; empty if no check of it failed."""
    check, faults = summary["self_check"], []
    if summary["total_output_tokens"] and check["client_cpu_share"] > BUSY_SHARE:
        faults.append(
            f"the client used {check['client_cpu_share']:.0%} of a core: it, not the server, may "
            "limit the numbers; use fewer streams or another machine"
        )
    if (check["read_together_share"] or 0) > READ_TOGETHER_SHARE:
        faults.append(
            f"{check['read_together_share']:.0%} of arrivals were read together with the same "
            "prompt's previous one: single gaps are unreliable, TPOT and throughput hold"
        )
    if not waits_for_a_place(summary):
        faults += late_sends(summary)
    return faults


def waits_for_a_place(summary: dict[str, Any]) -> bool:
    """Whether requests that are due may wait because --concurrency allows no more at a time."""
    return bool(summary["request_rate"] and summary["max_concurrency"])


def late_sends(summary: dict[str, Any]) -> list[str]:
    """One sentence if requests left late."""
    lag_ms = summary["self_check"]["p99_send_lag_ms"] or 0
    if lag_ms <= max(SEND_LAG_MS, (summary["median_ttft_ms"] or 0) / 10):
        return []
    return [f"requests left up to {lag_ms:.1f} ms after they were due (p99 of send_lag_ms)"]


def self_check_verdict(summary: dict[str, Any]) -> str:
    """What the self-check comes to: "ok", or why it is not or cannot be known."""
    if client_faults(summary):
        return "not ok, see the warnings"
    unknown = []
    if summary["kernel_timestamp_share"] < STAMPED_SHARE:
        unknown.append("how late arrivals were read")
    if waits_for_a_place(summary) and late_sends(summary):
        unknown.append("how much of the send lag is not the wait for --concurrency")
    return f"no fault seen; unknown: {' and '.join(unknown)}" if unknown else "ok"


def length_caveat(records: Sequence[Record], asked: int) -> str | None:
    """That synthetic prompts of `asked` words are not as many tokens to this server."""
    lengths = [r.prompt_tokens for r in records if r.error is None and r.prompt_tokens]
    mean = statistics.fmean(lengths) if lengths else asked
    if abs(mean - asked) <= max(2, asked / 10):
        return None
    better = max(1, round(asked * asked / mean))
    hint = f"; --input-len {better} comes closer to {asked}" if better != asked else ""
    return f"--input-len {asked}: the server counts {mean:.1f} tokens a prompt{hint}"


def arrivals_caveat(records: Sequence[Record]) -> str | None:
    """That tokens came several at a time, which ITL does not show."""
    streams = [r.events for r in records if len(r.events) > 1]
    gaps = sum(len(events) - 1 for events in streams)
    tokens = sum(events[-1][1] - events[0][1] for events in streams)
    if not gaps or tokens < SEVERAL * gaps:
        return None
    return (
        f"tokens came {tokens / gaps:.1f} at a time: ITL, the gap between two arrivals per token, "
        "hides the wait for them; TPOT holds, and ITL against a load whose tokens come alike"
    )


def caveats(
    summary: dict[str, Any],
    records: Sequence[Record],
    options: Options,
    prompts_in_file: int,
    warm_up_passes: Sequence[WarmUpPass] = (),
) -> list[str]:
    """Every sentence for a run; `prompts_in_file` is 0 with synthetic prompts."""
    figures = (summary["median_ttft_ms"], summary["mean_tpot_ms"])
    longer = measured_longer_caveat(warm_up_passes, *figures)
    sentences = [text for text in (longer, not_steady_caveat(warm_up_passes)) if text]
    if summary["ignored_lines"]:
        sentences.append(
            f"{summary['ignored_lines']} lines of the answers are no field of an event stream and "
            f"were ignored; the first: {summary['first_ignored_line']!r}"
        )
    sentences += client_faults(summary)
    if waits_for_a_place(summary):
        sentences += late_sends(summary)
    if summary["token_counts"] == "final_usage":
        sentences.append(
            "the server counts tokens only at the end of a stream: ITL is exact only for streams "
            "with one token an event"
        )
    elif said := arrivals_caveat(records):
        sentences.append(said)
    sent = len(records) + options.warmup * options.batch
    sent += sum(one.prompts for one in warm_up_passes)
    # sglang always says how many tokens came from its cache; others may say nothing
    cached = summary["total_cached_tokens"] or options.backend != "sglang"
    if 0 < prompts_in_file < sent and summary["total_output_tokens"] and cached:
        sentences.append(
            f"{prompts_in_file} prompts in the file, {sent} sent (warm-up included): a prefix "
            f"cache may serve the repeats ({summary['total_cached_tokens']} cached tokens reported)"
        )
    if summary["control_requests"] < options.control and not summary["interrupted"]:
        sentences.append(
            f"only {summary['control_requests']} of {options.control} control requests brought a "
            "token: whether the machine changed is less sure"
        )
    if options.default_prompts:
        sentences.append(
            f"no prompts.txt beside client_benchmark.py: prompts of {options.input_len} random "
            "words were sent; --prompts FILE sends yours"
        )
    length = length_caveat(records, options.input_len) if options.input_len else None
    return [*sentences, length] if length else sentences
