"""Swim lanes of some decode steps of all ranks, one case above the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.traces.explain.slices import RankLanes, Slice, Timeline
from repro_pp_graphs.traces.explain.words import CAUSE_TITLES, ROW_TITLES

MOST_PICTURES = 6

KINDS: dict[str, str] = {
    **{str(row): text for row, text in ROW_TITLES.items() if row not in ("python", "host")},
    **{str(cause): text for cause, text in CAUSE_TITLES.items()},
    "graph": "decode graph",
    "compute": "other kernels",
    "copy": "copies",
    "waiting": "waiting for the other side",
    "moving": "transfer",
    "unpaired": "other end not known",
}
# kinds by the lanes that they are in, for the key
GROUPS = {
    "host": tuple(ROW_TITLES),
    "host waits": tuple(CAUSE_TITLES),
    "GPU": ("graph", "compute", "copy"),
    "messages": ("waiting", "moving", "unpaired"),
}
# lane -> (name, what it is when no slice is there)
LANES = {
    "host": ("host", "Python, in no call"),
    "waits": ("waits", "not waiting"),
    "gpu": ("GPU", "idle"),
    "sends": ("sends", "none under way"),
    "receives": ("receives", "none under way"),
}

# of a GPU's lane where ranks share one, or may
OWN_ONLY = "none of the rank's own kernels"


def lanes(source: Source) -> Figure | None:
    """Some decode steps of all ranks, one case above the other."""
    seen: dict[int, tuple[str, Timeline]] = {}
    for case, explained in source.all_explained():
        if explained.timeline and explained.timeline.ranks:
            seen.setdefault(case, (source.cases[case], explained.timeline))
    shown = [found for _, found in sorted(seen.items())][:MOST_PICTURES]
    if not shown:
        return None
    pictures = [_picture(name, each) for name, each in shown]
    used = {
        kind
        for picture in pictures
        for rank in picture["ranks"]
        for lane in rank["lanes"]
        for kind, *_ in lane["slices"]
    }
    left_out = len(seen) - len(shown)
    more = f" {left_out} more cases are not shown." if left_out else ""
    return Figure(
        id="lanes",
        title="Some decode steps of all ranks",
        caption="Each case begins with a token send of the last rank; one scale for all. Lines go "
        "from a send to the receive that it is paired with, in red the token ids to rank 0. Drag "
        f"to move; Ctrl and the wheel, or two fingers, zoom.{more}",
        alt="Swim lanes: host, waits, GPU, sends and receives of every rank.",
        data={
            "pictures": pictures,
            "kinds": {kind: text for kind, text in KINDS.items() if kind in used},
            "groups": {
                name: [kind for kind in kinds if kind in used] for name, kinds in GROUPS.items()
            },
        },
        table=_lane_table(shown),
    )


def _picture(name: str, found: Timeline) -> dict[str, Any]:
    what = f"{found.steps} turns" if found.steps else "no token sends are seen: from the middle"
    what += ", TP rank 0 of each stage" if "." in found.ranks[0].label else ""
    return {
        "title": f"{name}: {found.length_us / 1e3:.1f} ms, {what}",
        "length_us": found.length_us,
        "ranks": [
            {
                "label": rank.label,
                "lanes": [
                    {
                        "key": key,
                        "name": LANES[key][0],
                        "between": OWN_ONLY if found.may_share and key == "gpu" else LANES[key][1],
                        "thin": key == "waits",
                        "slices": rows_of(slices),
                    }
                    for key, slices in _lanes(found, rank)
                ],
            }
            for rank in found.ranks
        ],
        "messages": [
            [each.src, each.dst, each.sent_us, each.received_us, each.tokens]
            for each in found.passed
        ],
    }


def _lanes(found: Timeline, rank: RankLanes) -> Iterable[tuple[str, list[Slice]]]:
    for key in LANES:
        if key != "gpu" or found.on_gpu:
            yield key, getattr(rank, key)


def rows_of(slices: list[Slice]) -> list[list[Any]]:
    return [
        [each.kind, each.start_us, each.end_us, *([each.what] if each.what else [])]
        for each in slices
    ]


def _lane_table(shown: list[tuple[str, Timeline]]) -> Table:
    """How much of the stretch each rank spends in what: the table behind the lanes."""
    rows = []
    for name, found in shown:
        for rank in found.ranks:
            for key, slices in _lanes(found, rank):
                us: dict[str, list[float]] = {}
                for each in slices:
                    us.setdefault(each.kind, []).append(each.end_us - each.start_us)
                rows += [
                    [
                        name,
                        f"PP{rank.label}",
                        LANES[key][0],
                        KINDS[kind],
                        str(len(its)),
                        f"{sum(its) / 1e3:.2f}",
                        f"{100 * sum(its) / found.length_us:.1f} %",
                        f"{max(its) / 1e3:.3f}",
                    ]
                    for kind, its in us.items()
                ]
    head = ["case", "rank", "lane", "what", "slices", "in all, ms", "of the time", "longest, ms"]
    return Table(head=head, rows=rows)
