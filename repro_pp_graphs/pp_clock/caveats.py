"""What makes a launch's clock say less than it seems to, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from repro_pp_graphs.pp_clock import absent
from repro_pp_graphs.pp_clock.clock_record import EDGES, ENOUGH_TURNS, Rank
from repro_pp_graphs.pp_clock.device import MISSED
from repro_pp_graphs.pp_clock.hooks import EXCHANGE, REFUSED
from repro_pp_graphs.pp_clock.rank_facts import Seen
from repro_pp_graphs.pp_clock.window import Window

OTHER_HOST = "its host is not the client's: which of its turns were measured is by Unix time there"
LONGER, SHORTER = 1.10, 0.90  # a profiled turn, over a measured one
MOST_LACKING = 0.02  # share of turns without the GPU's times that is not worth a word


def never_called(rank: Rank, pp_size: int) -> list[str]:
    """Kinds that a rank in its place must have had in its decode turns, and has not."""
    decode = rank.measured.get("decode")
    if decode is None or decode.turn.count < ENOUGH_TURNS:
        return []
    batched = EXCHANGE in rank.found
    wanted = ["launch", "process", *([EXCHANGE] if batched else ["send_tokens", "recv_tokens"])]
    if rank.pp_rank < pp_size - 1:
        wanted += ["send_hidden"] * (not batched) + ["send_requests"] * (rank.tp_rank == 0)
    if rank.pp_rank > 0:
        wanted += ["recv_hidden"] * (not batched) + ["recv_requests"] * (rank.tp_rank == 0)
    wanted += [name for name in ("wait_results",) if name in rank.found]
    return [name for name in wanted if name not in decode.calls]


def _missed(header: dict[str, Any]) -> str:
    """Why batches were not timed on the GPU, as the rank counted them from its start on."""
    missed: dict[str, int] = header.get("missed", {})
    whys = [f"{missed[name]} while {why}" for name, why in MISSED.items() if missed.get(name)]
    return f" (batches launched since the start: {', '.join(whys)})" if whys else ""


def of_rank(key: str, seen: Seen, pp_size: int, window: Window | None) -> list[str]:
    """Of one rank, `key`; `window`: when the client measured, by the clock of the rank's host."""
    rank = seen.rank
    why = absent.of_rank(rank, "lacks" in seen.header, window is not None)
    found = [f"{key}: {why}"] if why else []
    found += [
        f"{key}: {name}: {why}"
        for name, why in rank.lacks.items()
        if why.startswith(("not in this release", "no CUDA events", REFUSED))
    ]
    decode = rank.measured.get("decode")
    # what is called in the turns of places in the loop that are empty is in none of these
    in_part = decode is not None and 0 < decode.in_flight < seen.loop_size
    if (lost := never_called(rank, pp_size)) and not in_part:
        found.append(
            f"{key}: no call of {', '.join(lost)} was seen: this release, or a shim of the case, "
            "does it in another call, which is not timed or stands under that one's name"
        )
    if rank.lost and window and seen.first_ns is not None and seen.first_ns > window[0]:
        found.append(
            f"{key}: {rank.lost} of its rows were overwritten, some of the measured window: a "
            "larger REPRO_PP_CLOCK_ROWS keeps them"
        )
    if decode and in_part:
        found.append(
            f"{key}: {decode.in_flight} of {seen.loop_size} micro-batches were in flight: turns "
            "without a batch, and the waits in them, are in none of the figures (turn, waits, "
            "token send), so a step may wait longer than they say"
        )
    if decode and "own_batch" in rank.found and "own_batch" not in rank.lacks:
        unsplit = decode.turn.count - decode.split
        if unsplit > MOST_LACKING * decode.turn.count:
            found.append(
                f"{key}: {unsplit} of {decode.turn.count} decode turns lack the GPU's times: their "
                f"waits are not split{_missed(seen.header)}"
            )
    return found


def distorted(by_means: float, by_medians: float) -> str:
    """That the turns of the traces are not those of the measured pass, by means or by medians: the
    figure that says so comes first. Empty where neither does."""
    figures = {"means": by_means, "medians": by_medians}
    off = [name for name, times in figures.items() if not SHORTER <= times <= LONGER]
    if not off:
        return ""
    lighter = ""
    if min(by_means, by_medians) < 1 < max(by_means, by_medians):
        how = (
            f"is longer than in the measured pass by one figure and shorter by the other: "
            f"{by_means:.2f} times by means, {by_medians:.2f} by medians ({EDGES})"
        )
    else:
        first, other = sorted(figures, key=lambda name: name not in off)
        how = (
            f"took {figures[first]:.2f} times as long as in the measured pass, by {first} "
            f"({figures[other]:.2f} by {other}; {EDGES})"
        )
        if figures[first] < 1:
            lighter = "the profile met a lighter moment, other batches or less other work there: "
    return (
        f"under the profiler the last rank's decode turn {how}: {lighter}ms of the traces are not "
        "those of the measured pass"
    )


def no_rows(key: str, said: Mapping[str, str]) -> str:
    """That a rank left none; `said`: by rank, why its clock did not start."""
    why = next((text for rank, text in said.items() if rank.split()[:1] == [key]), "")
    return f"{key} left no rows" + (f": {why}" if why else "")


def together(warnings: list[str]) -> list[str]:
    """Warnings that several ranks share, once: `PP0, PP1: ...`."""
    whose: dict[str, list[str]] = defaultdict(list)
    for text in warnings:
        head, colon, rest = text.partition(": ")
        whose[rest if colon and head.startswith("PP") else text].append(head if colon else "")
    return [
        f"{', '.join(heads)}: {text}" if heads[0].startswith("PP") and text != heads[0] else text
        for text, heads in whose.items()
    ]
