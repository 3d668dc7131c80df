"""Figures of records: latencies, throughput over time, concurrency."""

from __future__ import annotations

import bisect
import itertools
import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence

from .record import Record

STATISTICS = ("mean", "median", "p90", "p95", "p99", "max", "std")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Linear interpolation between ranks, numpy's default."""
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def distribution(name: str, values: Iterable[float]) -> dict[str, float | None]:
    """{"mean_<name>": …} for each of STATISTICS (std: of the population); None without a value."""
    ordered = sorted(values)
    if not ordered:
        return {f"{key}_{name}": None for key in STATISTICS}
    mean = statistics.fmean(ordered)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    figures = (mean, *(percentile(ordered, p) for p in (50, 90, 95, 99, 100)), std)
    return {f"{key}_{name}": value for key, value in zip(STATISTICS, figures, strict=True)}


def e2e_ms(record: Record) -> float:
    """From the start of a completed prompt to its last token, ms."""
    return (record.events[-1][0] - record.start_ns) / 1e6


def ttft_ms(record: Record) -> float:
    """From the start of a prompt (at a request rate: when it was due) to its first token, ms."""
    return (record.events[0][0] - record.start_ns) / 1e6


def tpot_ms(record: Record) -> float:
    """Time per output token after the first, of a prompt with two tokens or more, ms."""
    return (record.events[-1][0] - record.events[0][0]) / 1e6 / (record.tokens - 1)


def itl_ms(record: Record) -> list[float]:
    """Gap between two arrivals divided by the new tokens of the later one, once a token; ms."""
    gaps: list[float] = []
    for (before_ns, before), (after_ns, after) in itertools.pairwise(record.events):
        new = after - before
        gaps += [(after_ns - before_ns) / 1e6 / new] * new
    return gaps


def token_arrivals(record: Record) -> list[int]:
    """When each token arrived, ns; those of one event together."""
    counts = itertools.pairwise([0, *(tokens for _, tokens in record.events)])
    news = (after - before for before, after in counts)
    return [ns for (ns, _), new in zip(record.events, news, strict=True) for _ in range(new)]


def tokens_at(record: Record, time_ns: int) -> float:
    """Cumulative tokens at `time_ns`; between two arrivals in proportion, before the first 0."""
    after = bisect.bisect_right(record.events, time_ns, key=lambda event: event[0])
    if after == 0 or after == len(record.events):
        return float(record.events[after - 1][1]) if after else 0.0
    (before_ns, tokens), (after_ns, more) = record.events[after - 1 : after + 1]
    return tokens + (more - tokens) * (time_ns - before_ns) / (after_ns - before_ns)


def steady_state(records: Sequence[Record]) -> dict[str, float] | None:
    """From the last lane's first token to the first lane's last: every lane streams. None if never.

    A lane is one place in the concurrency, whose prompts follow one another; so without --duration
    or a larger --num-prompts every prompt is a lane of its own.
    """
    lanes: dict[tuple[int, int], list[list[int]]] = {}
    position: Counter[tuple[int, int]] = Counter()
    for record in records:
        request = (record.lane, record.sent_ns)
        lanes.setdefault((record.lane, position[request]), []).extend(record.events)
        position[request] += 1
    if not lanes or not all(lanes.values()):
        return None
    start_ns = max(events[0][0] for events in lanes.values())
    end_ns = min(events[-1][0] for events in lanes.values())
    if end_ns <= start_ns:
        return None
    tokens = sum(tokens_at(r, end_ns) - tokens_at(r, start_ns) for r in records)
    duration_s = (end_ns - start_ns) / 1e9
    return {
        "start_ns": start_ns,
        "end_ns": end_ns,
        "duration_s": duration_s,
        "output_tokens": tokens,
        "output_throughput": tokens / duration_s,
    }


def itl_over_time(records: Iterable[Record], begin_ns: int, end_ns: int) -> list[dict[str, float]]:
    """Mean ITL in twenty equal parts of the run: [{"t_s", "mean_itl_ms", "tokens"}]."""
    width_ns = max(1, (end_ns - begin_ns) // 20 + 1)
    sums: dict[int, list[float]] = {}
    for record in records:
        for (before_ns, before), (after_ns, after) in itertools.pairwise(record.events):
            part = sums.setdefault((after_ns - begin_ns) // width_ns, [0.0, 0.0])
            part[0] += (after_ns - before_ns) / 1e6
            part[1] += after - before
    return [
        {"t_s": part * width_ns / 1e9, "mean_itl_ms": gaps / tokens, "tokens": tokens}
        for part, (gaps, tokens) in sorted(sums.items())
    ]


def peak_in_flight(spans: Iterable[tuple[int, int]]) -> int:
    """The most requests open at once."""
    changes = sorted([(s, 1) for s, _ in spans] + [(e, -1) for _, e in spans])
    return max(itertools.accumulate(step for _, step in changes), default=0)
