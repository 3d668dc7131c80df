"""The clock's facts as lines of at most 80 columns."""

from __future__ import annotations

from repro_pp_graphs.pp_clock.clock_record import EDGES, ClockFacts, Spread, Turns
from repro_pp_graphs.pp_clock.on_off import line
from repro_pp_graphs.terminal import wrapped

_KIND_WIDTH = 22
_ENOUGH = 20  # values, for a p99
INTRODUCTION = (
    "What each rank's host does in a turn, one round of its scheduler's loop, timed",
    "by the rank itself (docs/pp_clock.md). measured: the pass whose latencies are",
    "reported; profiled: the one under torch's profiler. waits: all sends, receives",
    "and waits for them together. A call counts in turns cut off at either end too,",
    "so that its mean may differ a little from that in a report.",
)


def _cells(found: Spread) -> list[str]:
    """Mean, median and p99, ms; of few values the largest is no p99."""
    values = [f"{value:.3f}" for value in (found.mean, found.median, found.p99)]
    return values if found.count >= _ENOUGH else [*values[:2], "-"]


def _row(name: str, found: Spread) -> str:
    numbers = "".join(f"{value:>11}" for value in _cells(found))
    return f"  {name:<{_KIND_WIDTH}}{found.count:>9}{numbers}"


def turn_lines(turns: Turns) -> list[str]:
    """A rank's turns of one mode: the turn, its waits, its calls."""
    named = {"turn": turns.turn, "waits of a turn": turns.waits}
    if turns.waits_in_own_batch and turns.waits_outside:
        named |= {
            "  in its own batch": turns.waits_in_own_batch,
            "  outside it": turns.waits_outside,
        }
    if turns.own_batch:
        named["own batch on the GPU"] = turns.own_batch
    named |= turns.calls
    if turns.untimed:
        named["in no timed call"] = turns.untimed
    return [_row(name, found) for name, found in named.items()]


def lines(facts: ClockFacts) -> list[str]:
    """Every rank's turns, ms; then what the profile and the clock cost, and what is missing."""
    head = f"{'ms':<{_KIND_WIDTH + 2}}{'count':>9}{'mean':>11}{'median':>11}{'p99':>11}"
    found = [*INTRODUCTION, ""]
    for key, rank in facts.ranks.items():
        for when, modes in (("measured", rank.measured), ("profiled", rank.profiled)):
            for mode, turns in modes.items():
                graphs = f", {turns.graphs} as graphs" if turns.graphs else ""
                found += [
                    f"{key} {mode.replace('_', ' ')}, {when} ({turns.turn.count} turns{graphs})",
                    head,
                ]
                found += [*turn_lines(turns), ""]
    if facts.distortion is not None:
        found += wrapped(
            f"A profiled decode turn of {facts.last} is {facts.distortion:.3f} times a measured "
            f"one (means; {facts.distortion_median:.3f} medians), {EDGES}."
        )
    if both := facts.on_off:
        found += wrapped(line(both))
    return found + [line for text in facts.warnings for line in wrapped(text, "! ")]
