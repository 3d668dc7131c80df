"""Warm-up passes: the measured load itself, repeated until two passes in a row agree in TPOT, and
TTFT agrees as well or lies among those of the passes before.

What warms up gets faster. TTFT of a whole load also varies from pass to pass, with the order in
which its prompts are prefilled: on four H100s by tens of percent in both directions.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .metrics import tpot_ms, ttft_ms
from .record import Record

AGREE_SHARE = 0.05  # two passes agree when their figures differ by at most this share
FAR_LONGER = 2.0  # times the warm-up passes': more than passes vary by themselves
FIGURES = {"TTFT": "median_ttft_ms", "TPOT": "mean_tpot_ms"}


@dataclass(frozen=True)
class WarmUpPass:
    """What one pass came to; None where no prompt gave such a figure (TPOT needs two tokens)."""

    prompts: int
    failed: int
    median_ttft_ms: float | None
    mean_tpot_ms: float | None


def pass_of(records: Sequence[Record]) -> WarmUpPass:
    """The figures of a pass, over its completed prompts."""
    completed = [record for record in records if record.error is None]
    tpots = [tpot_ms(record) for record in completed if record.tokens > 1]
    return WarmUpPass(
        prompts=len(records),
        failed=len(records) - len(completed),
        median_ttft_ms=statistics.median(map(ttft_ms, completed)) if completed else None,
        mean_tpot_ms=statistics.fmean(tpots) if tpots else None,
    )


def agree(one: WarmUpPass, other: WarmUpPass) -> bool:
    """Whether both passes completed, and TTFT and TPOT differ by at most AGREE_SHARE."""
    if one.failed or other.failed:
        return False
    return _alike(one.median_ttft_ms, other.median_ttft_ms) is True and _tpot_agrees(one, other)


def is_steady(passes: Sequence[WarmUpPass]) -> bool | None:
    """Whether the last two passes agree, or from the third on agree in TPOT while the last one's
    TTFT lies among those before; None where there were fewer than two to compare."""
    if len(passes) < 2:
        return None
    return agree(*passes[-2:]) or (len(passes) > 2 and _ttft_only_varies(passes))


def _ttft_only_varies(passes: Sequence[WarmUpPass]) -> bool:
    ttfts = [one.median_ttft_ms for one in passes if one.median_ttft_ms is not None]
    if passes[-1].failed or passes[-2].failed or len(ttfts) < len(passes):
        return False
    *before, last = ttfts
    among = (1 - AGREE_SHARE) * min(before) <= last <= (1 + AGREE_SHARE) * max(before)
    return among and _tpot_agrees(*passes[-2:])


def _tpot_agrees(one: WarmUpPass, other: WarmUpPass) -> bool:
    """Also true where a pass has none: prompts of single tokens."""
    return _alike(one.mean_tpot_ms, other.mean_tpot_ms) is not False


def _alike(a: float | None, b: float | None) -> bool | None:
    return None if a is None or b is None else abs(a - b) <= AGREE_SHARE * min(a, b)


def not_steady_caveat(passes: Sequence[WarmUpPass]) -> str | None:
    """The sentence for a warm-up whose last pass failed or that is not steady; else None. Of the
    last two passes one figure then differs by more than AGREE_SHARE."""
    if passes and passes[-1].failed:
        return (
            f"prompts failed in warm-up pass {len(passes)}: whether the server had reached its "
            "usual speed is not known"
        )
    if is_steady(passes) is not False:
        return None
    figures = []
    for label, name in FIGURES.items():
        values = [getattr(one, name) for one in passes]
        if None not in values:
            figures.append(f"{label} {', '.join(f'{value:.1f}' for value in values)} ms")
    return (
        f"the server had not settled after {len(passes)} warm-up passes ({'; '.join(figures)}; one "
        f"of them still changes by more than {AGREE_SHARE:.0%}): "
        "what is measured may still hold compilation or the load of other processes"
    )


def measured_longer_caveat(
    passes: Sequence[WarmUpPass], median_ttft_ms: float | None, mean_tpot_ms: float | None
) -> str | None:
    """The sentence for a measured pass with these figures that took far longer than the warm-up
    passes after the first (or both, where two agree); None where it did not, or fewer than two of
    them tell."""
    both_agree = len(passes) == 2 and is_steady(passes)
    settled = passes if both_agree else passes[1:]
    longer, figures, before = [], [], []
    for label, now in (("TTFT", median_ttft_ms), ("TPOT", mean_tpot_ms)):
        values = [value for one in settled if (value := getattr(one, FIGURES[label])) is not None]
        if len(values) > 1 and now is not None and now > FAR_LONGER * max(values):
            longer.append(label)
            figures.append(f"{FIGURES[label].partition('_')[0]} {label} {now:.1f} ms")
            before.append(f"{max(values):.1f}")
    if not longer:
        return None
    which = "warm-up passes" if both_agree else "warm-up passes after the first"
    return (
        f"the measured pass took far longer than the {which}: {', '.join(figures)} against at most "
        f"{' and '.join(before)} ms; its {', '.join(longer)} and throughput hold a compilation, or "
        "the load of other processes, that those passes did not have"
    )
