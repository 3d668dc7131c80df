"""A run as the line that sglang's bench_serving appends to its --output-file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from .metrics import token_arrivals
from .options import Options
from .record import Record

BENCH_SERVING_SAME = (
    *("request_rate", "max_concurrency", "duration", "completed", "request_throughput"),
    *("concurrency", "max_concurrent_requests"),
)


def bench_serving_line(
    summary: dict[str, Any], records: Sequence[Record], options: Options
) -> dict[str, Any]:
    """What sglang 0.5.21's bench_serving appends to --output-file; its totals leave failures out.

    Source of the names: sglang/benchmark/serving.py, `result` in benchmark().
    """
    done = [record for record in records if record.error is None]
    tokens_in, tokens_out = (sum(r.prompt_tokens for r in done), sum(r.tokens for r in done))
    a_second = Counter(
        (arrival_ns - min(r.start_ns for r in done)) // 1_000_000_000
        for record in done
        for arrival_ns in token_arrivals(record)
    )
    rate = {"input": tokens_in, "output": tokens_out, "total": tokens_in + tokens_out}
    return {
        "tag": None,
        "backend": "sglang" if options.backend == "sglang" else "sglang-oai",
        "dataset_name": "custom" if options.input_len is None else "random",
        "sharegpt_output_len": None,
        "random_input_len": options.input_len,
        "random_output_len": options.max_new_tokens,
        "random_range_ratio": None,
        "server_info": None,
        **{name: summary[name] for name in BENCH_SERVING_SAME},
        "request_rate": summary["request_rate"] or math.inf,
        "total_input_tokens": tokens_in,
        "total_input_text_tokens": tokens_in,
        "total_input_vision_tokens": 0,
        "total_output_tokens": tokens_out,
        "total_output_tokens_retokenized": None,
        **{f"{name}_throughput": rate[name] / summary["duration"] for name in rate},
        **{
            f"{statistic}_{name}": summary[f"{statistic}_{name}"]
            for name in ("e2e_latency_ms", "ttft_ms", "tpot_ms", "itl_ms")
            for statistic in ("mean", "median", "std", "p90", "p95", "p99")
        },
        "accept_length": None,
        "max_output_tokens_per_s": max(a_second.values(), default=0),
    }
