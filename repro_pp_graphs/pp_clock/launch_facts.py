"""From all ranks' rows to the facts of a launch. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from repro_pp_graphs.client.terminal import visible
from repro_pp_graphs.pp_clock import caveats
from repro_pp_graphs.pp_clock.clock_record import ENOUGH_TURNS, ClockFacts, Rank
from repro_pp_graphs.pp_clock.rank_facts import Seen, seen_of
from repro_pp_graphs.pp_clock.rows import Rows
from repro_pp_graphs.pp_clock.window import ALWAYS, Window, moved_to

ENOUGH_PROFILED = 10  # of the turns that a profile saw: a rehearsal's has 24


def key_of(header: dict[str, Any], tp_size: int) -> str:
    """A rank's name: PP1, or PP1 TP0 where a stage has several."""
    name = f"PP{header.get('pp_rank')}"
    return f"{name} TP{header.get('tp_rank')}" if tp_size > 1 else name


def _distortion(rank: Rank | None) -> tuple[float | None, float | None]:
    """Mean and median decode turn, profiled over unprofiled."""
    if rank is None or not {"decode"} <= rank.measured.keys() & rank.profiled.keys():
        return None, None
    measured, profiled = rank.measured["decode"].turn, rank.profiled["decode"].turn
    if measured.count < ENOUGH_TURNS or profiled.count < ENOUGH_PROFILED or not measured.median:
        return None, None
    return round(profiled.mean / measured.mean, 4), round(profiled.median / measured.median, 4)


def summary(
    ranks: Iterable[Rows], window: Window | None, said: Mapping[str, str] | None = None
) -> ClockFacts:
    """The facts of a launch from its ranks' rows (one rank or more), taken one after the other, and
    its client's window, by the clock of the first rank's host; `said`: by rank, why its clock did
    not start."""
    return summaries(ranks, [window], said)[0]


def summaries(
    ranks: Iterable[Rows],
    windows: Sequence[Window | None],
    said: Mapping[str, str] | None = None,
    profiles: Sequence[Window | None] | None = None,
) -> list[ClockFacts]:
    """The same by each of several windows, as those of the loads of a sweep; `profiles`: when each
    of these was profiled, None for one that was not (not given: every profile is of each)."""
    spans = [ALWAYS] * len(windows) if profiles is None else profiles
    by_window = zip(*_every(ranks, windows, spans), strict=True)
    return [_facts(seen, window, said) for seen, window in zip(by_window, windows, strict=True)]


def _every(
    ranks: Iterable[Rows], windows: Sequence[Window | None], profiles: Sequence[Window | None]
) -> Iterator[list[Seen]]:
    """Each rank by each of the windows, which are by the clock of the first one's host."""
    here: dict[str, Any] = {}
    for rank in ranks:
        here = here or rank.header
        placed = [moved_to(window, here, rank.header) for window in windows]
        yield seen_of(rank, placed, [moved_to(each, here, rank.header) for each in profiles])


def _facts(
    seen: Sequence[Seen], window: Window | None, said: Mapping[str, str] | None
) -> ClockFacts:
    tp_size = 1 + max(int(each.header.get("tp_rank") or 0) for each in seen)
    pp_size = max(int(each.header.get("pp_size") or 1) for each in seen)
    found = {key_of(each.header, tp_size): each for each in seen}
    last = next((k for k, each in found.items() if each.rank.pp_rank == pp_size - 1), "")
    distortion, distortion_median = _distortion(found[last].rank if last else None)
    warnings = []
    for key, each in found.items():
        placed = moved_to(window, seen[0].header, each.header)
        warnings += caveats.of_rank(key, each, pp_size, placed)
        if placed != window:
            warnings.append(f"{key}: {caveats.OTHER_HOST}")
    missing = set(range(pp_size)) - {each.rank.pp_rank for each in seen}
    warnings += [caveats.no_rows(f"PP{rank}", said or {}) for rank in sorted(missing)]
    if distortion and distortion_median:
        warnings += filter(None, [caveats.distorted(distortion, distortion_median)])
    return ClockFacts(
        pp_size=pp_size,
        loop_size=max(each.loop_size for each in seen),
        ranks={key: each.rank for key, each in found.items()},
        last=last,
        window_s=round((window[1] - window[0]) / 1e9, 3) if window else None,
        distortion=distortion,
        distortion_median=distortion_median,
        on_off=found[last].on_off if last else None,
        warnings=caveats.together([visible(text) for text in warnings]),
    )
