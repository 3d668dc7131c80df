"""Which ranks and which time a merged trace shows: all, or what a browser can load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from repro_pp_graphs.traces.explain.steps import window
from repro_pp_graphs.traces.rank_trace import Case, RankTrace

# JSON for ui.perfetto.dev, whose trace processor has at most 4 GiB of memory in a browser
LIMIT_BYTES = 1_000_000_000
# what gzip makes of a trace at least: its own note of the length is good to 4 GiB only
LEAST_RATIO = 4
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """`ranks`: (PP, TP) or (PP, None) for all TP ranks; empty for all. `window_ns`: of the first
    case's times, ns since 1970; None for all of it."""

    ranks: frozenset[tuple[int, int | None]] = frozenset()
    window_ns: tuple[int, int] | None = None

    def shows(self, rank: RankTrace) -> bool:
        """Whether the rank is part of it."""
        return not self.ranks or bool(self.ranks & {(rank.pp, rank.tp), (rank.pp, None)})

    def of_file(self, rank: RankTrace, shift_ns: int) -> tuple[float, float] | None:
        """The window as ts of a rank's file, us, whose case is shifted by so much."""
        if self.window_ns is None:
            return None
        begin, end = (moment - shift_ns - rank.base_ns for moment in self.window_ns)
        return begin / 1000, end / 1000

    def of_merged(self, base_ns: int) -> tuple[float, float] | None:
        """The window as ts of the merged trace, us."""
        if self.window_ns is None:
            return None
        begin, end = (moment - base_ns for moment in self.window_ns)
        return begin / 1000, end / 1000


WHOLE = View()


def inside(events: Iterable[Event], span_us: tuple[float, float] | None) -> Iterator[Event]:
    """The events that a window holds a part of; of an arrow all stops or none."""
    for _, group in groupby(events, key=lambda event: (event.get("cat"), event.get("id"))):
        found = list(group)
        arrow = "id" in found[0]
        for event in found:
            if span_us is None or "ts" not in event:
                yield event
            elif arrow:
                if all(span_us[0] <= each["ts"] <= span_us[1] for each in found):
                    yield event
            elif event["ts"] <= span_us[1] and event["ts"] + event.get("dur", 0) >= span_us[0]:
                yield event


def json_bytes(path: Path) -> int:
    """About how much JSON a trace holds: without unpacking it."""
    stored = path.stat().st_size
    if path.suffix != ".gz":
        return stored
    with path.open("rb") as file:
        file.seek(max(0, stored - 4))
        noted = int.from_bytes(file.read(4), "little")
    return max(noted, LEAST_RATIO * stored)


def fitting(cases: Sequence[Case], view: View, begin_ns: int, limit_bytes: int) -> tuple[View, str]:
    """The view with its window shortened to about so many bytes of JSON from `begin_ns` (of the
    first case) on, and a sentence on what was left out; as it is where all fits."""
    ranks = [rank for case in cases for rank in case.ranks if view.shows(rank)]
    of_all = sum(json_bytes(Path(rank.path)) for rank in ranks)
    recorded = max((end - start for start, end in map(window, cases)), default=0)
    if not ranks or not recorded or limit_bytes <= 0:
        return view, ""
    span = view.window_ns or (begin_ns, begin_ns + recorded)
    share = min(1.0, (span[1] - span[0]) / recorded) if view.window_ns else 1.0
    if of_all * share <= limit_bytes:
        return view, ""
    length_ns = int(recorded * limit_bytes / of_all)
    short = View(view.ranks, (span[0], span[0] + length_ns))
    return short, (
        f"{len(ranks)} ranks hold about {of_all * share / 1e6:.0f} MB of JSON, a browser gets "
        f"{limit_bytes / 1e6:.0f}: {length_ns / 1e6:.0f} of {(span[1] - span[0]) / 1e6:.0f} ms are "
        "shown, the rest is left out; --window BEGIN-END and --ranks show other parts, --limit more"
    )
