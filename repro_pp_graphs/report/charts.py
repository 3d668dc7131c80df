"""The pictures of report.html as data: what web/src draws, and the table behind each."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Any

import msgspec

from repro_pp_graphs.report.numbers import number
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.report.tables import (
    METRICS,
    Table,
    cause_titles,
    first_explained,
    quantiles,
    title,
    turns,
    values,
)
from repro_pp_graphs.traces.explain.host import ROWS
from repro_pp_graphs.traces.explain.timeline import RankLanes, Slice, Timeline
from repro_pp_graphs.traces.explain.words import CAUSE_TITLES, ROW_TITLES
from repro_pp_graphs.traces.facts import Row, Turn

MOST_POINTS = 160  # of a distribution; of more values, so many quantiles
MOST_SERIES = 64  # launches in one picture
MOST_PICTURES = 6  # cases in the swim lanes
BAR_PX, BARS_FOOT_PX = 30, 60

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


class Figure(msgspec.Struct, kw_only=True):
    """A picture: where it goes, what to see in it, its data, the table of the same numbers."""

    id: str
    title: str
    caption: str
    alt: str  # in words, for who cannot see it
    data: dict[str, Any]
    table: Table


def figures(source: Source) -> list[Figure]:
    """Every picture that a folder has the numbers for, in the order of the page."""
    made = (
        launches(source),
        itl_ecdf(source),
        itl_over_time(source),
        send_ecdf(source),
        parts_of_a_turn(source),
        lanes(source),
    )
    return [each for each in made if each]


def _series(launch: Launched, points: list[list[float]]) -> dict[str, Any]:
    return {
        "name": launch.summary.label,
        "case": launch.case,
        "round": launch.summary.round,
        "points": points,
    }


def ecdf(ordered: list[float]) -> list[list[float]]:
    """[value, share of the values up to it] of sorted values: all, or quantiles closest at both
    ends, where tails are."""
    count = len(ordered)
    if count <= MOST_POINTS:
        return [[round(value, 4), round((at + 1) / count, 5)] for at, value in enumerate(ordered)]
    half = MOST_POINTS // 2
    # from both ends, in steps that grow: the first and last values one by one
    steps = [((at / half) ** 2) / 2 for at in range(half + 1)]
    places = sorted({round(s * (count - 1)) for s in (*steps, *(1 - s for s in steps))})
    return [[round(ordered[at], 4), round((at + 1) / count, 5)] for at in places]


def _distribution(
    known: list[tuple[Launched | int, str, list[float]]],
) -> tuple[list[dict[str, Any]], list[tuple[str, list[float]]]]:
    series, named = [], []
    for one, name, ordered in known[:MOST_SERIES]:
        named.append((name, ordered))
        points = ecdf(ordered)
        if isinstance(one, int):
            series.append({"name": name, "case": one, "round": 1, "points": points})
        else:
            series.append(_series(one, points))
    return series, named


def itl_ecdf(source: Source) -> Figure | None:
    """How many of the gaps between tokens are at most so long, a line a launch."""
    known: list[tuple[Launched | int, str, list[float]]] = [
        (one, one.summary.label, one.itl_ms) for one in source.launches if one.itl_ms
    ]
    if not known:
        return None
    series, named = _distribution(known)
    return Figure(
        id="itl-ecdf",
        title="ITL: how the gaps between tokens are distributed",
        caption="One line a launch, a colour a case, dashes by round: lines of one colour that lie "
        "apart are launch-to-launch noise. Further left is better.",
        alt=f"Distribution of ITL in ms, {len(series)} launches; medians are in the table.",
        data={"unit": "ITL, ms", "series": series},
        table=quantiles(named, "ITL, ms"),
    )


def send_ecdf(source: Source) -> Figure | None:
    """How long the last rank's token send holds its host, a line a traced launch."""
    known: list[tuple[Launched | int, str, list[float]]] = []
    if source.plan:
        known += [
            (one, one.summary.label, sorted(one.explained.timeline.token_send_ms))
            for one in source.launches
            if one.explained and one.explained.timeline
        ]
    else:
        known += [
            (case, each.name, sorted(each.timeline.token_send_ms))
            for case, each in enumerate(source.explained)
            if each.timeline
        ]
    known = [one for one in known if one[2]]
    if not known:
        return None
    series, named = _distribution(known)
    return Figure(
        id="send-ecdf",
        title="Token send: how long it holds the last rank's host",
        caption="One line a traced launch, every decode step whose send is seen whole. While "
        "profiled. #10865 has 100 ms with graphs and 3 ms without.",
        alt=f"Distribution of the token send in ms, {len(series)} launches.",
        data={"unit": "token send, ms", "series": series},
        table=quantiles(named, "token send, ms"),
    )


def itl_over_time(source: Source) -> Figure | None:
    """The mean ITL in twenty parts of each launch's measured pass."""
    known = [one for one in source.launches if one.itl_over_time][:MOST_SERIES]
    if not known:
        return None
    series = [
        _series(one, [[round(s, 3), round(ms, 4)] for s, ms in one.itl_over_time]) for one in known
    ]
    rows = [
        [one.summary.label, f"{s:.2f}", number(ms)] for one in known for s, ms in one.itl_over_time
    ]
    return Figure(
        id="itl-time",
        title="ITL over time",
        caption="Mean ITL in twenty equal parts of the measured pass. A line that falls at its "
        "begin was not warm; one that climbs grows with the context.",
        alt=f"Mean ITL over the measured pass, {len(series)} launches.",
        data={"unit": "mean ITL, ms", "series": series},
        table=Table(head=["launch", "from, s", "mean ITL, ms"], rows=rows),
    )


def launches(source: Source) -> Figure | None:
    """Every launch as a point, in the order in which they ran, and the interval beside them."""
    metrics = [
        metric for metric in METRICS if any(metric in values(one) for one in source.launches)
    ]
    if not metrics:
        return None
    choices = [_choice(source, metric) for metric in metrics]
    rows = [
        [
            str(one.order),
            one.summary.label,
            one.summary.status,
            *(number(values(one).get(metric)) for metric in metrics),
        ]
        for one in source.launches
    ]
    return Figure(
        id="launches",
        title="Every launch",
        caption="A point a server launch, the unit that is compared; dashed: each case's mean. "
        "The bars at the right, where there are any: where the first case's mean lies by the "
        "interval of the ratio, seen from the second's.",
        alt=f"{len(source.launches)} launches by {', '.join(map(title, metrics[:3]))}.",
        data={"choose": "Metric", "choices": choices, "launches": len(source.launches)},
        table=Table(head=["order", "launch", "status", *map(title, metrics)], rows=rows),
    )


def _choice(source: Source, metric: str) -> dict[str, Any]:
    measured = [(one, values(one)[metric]) for one in source.launches if metric in values(one)]
    by_case: dict[int, list[float]] = {}
    for one, value in measured:
        by_case.setdefault(one.case, []).append(value)
    return {
        "key": metric,
        "title": METRICS[metric][0].rstrip("*"),
        "better": METRICS[metric][1],
        "points": [
            {
                "case": one.case,
                "case_name": source.cases[one.case],
                "order": one.order,
                "name": one.summary.label,
                "value": round(value, 5),
                "marked": one.summary.label in _marked(source, metric),
            }
            for one, value in measured
        ],
        "means": [{"case": case, "value": round(fmean(its), 5)} for case, its in by_case.items()],
        "intervals": _intervals(source, metric),
    }


def _marked(source: Source, metric: str) -> set[str]:
    """Labels of launches that are unlike the others of their case."""
    verdict = source.summary.verdict if source.summary else None
    pairs = verdict.pairs if verdict else []
    return {
        label
        for pair in pairs
        for comparison in pair.comparisons
        if comparison.metric == metric
        for label in comparison.outlying
    }


def _intervals(source: Source, metric: str) -> list[dict[str, Any]]:
    """Of each pair of cases: where A's mean lies by the interval, from B's mean."""
    found = source.summary
    if found is None or found.verdict is None or found.rehearsal:
        return []
    names = {launch.summary.case: launch.case for launch in source.launches}
    rows = []
    for pair in found.verdict.pairs:
        for each in pair.comparisons:
            if each.metric != metric or not each.estimate or each.mean_b is None:
                continue
            one = each.estimate
            places = [
                each.mean_b * at if one.scale == "ratio" else each.mean_b + at
                for at in (one.low, one.value, one.high)
            ]
            rows.append(
                {
                    "case": names.get(pair.a, 0),
                    "name": f"{pair.a} / {pair.b}",
                    "text": f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]",
                    "places": [round(at, 5) for at in places],
                }
            )
    return rows


def parts_of_a_turn(source: Source) -> Figure | None:
    """Each rank's turn as a stacked bar: by call, and by what the host waits for."""
    whole = turns(source, every_rank=True)
    if whole is None:
        return None
    bars, found = [], []
    for case, explained in first_explained(source):
        for label, turn in (explained.analysis.turns if explained.analysis else {}).items():
            bars.append(f"PP{label} {source.cases[case]}")
            found.append(turn)
    by_call = []
    for row in ROWS:
        its: list[Row | None] = [_part(turn, row) for turn in found]
        if any(each and each.mean for each in its):
            by_call.append(
                {
                    "key": row,
                    "title": ROW_TITLES[row],
                    "values": [round(each.mean / 1e3, 4) if each else 0 for each in its],
                    "more": [
                        [
                            [f"waits {CAUSE_TITLES[cause]}", f"{us / 1e3:.2f} ms"]
                            for cause, us in (each.waits if each else {}).items()
                        ]
                        for each in its
                    ],
                }
            )
    by_cause: list[dict[str, Any]] = []
    for cause, text in cause_titles().items():
        us = [_waited(turn, cause) for turn in found]
        if any(us):
            values_ms = [round(each / 1e3, 4) for each in us]
            by_cause.append({"key": cause, "title": text, "values": values_ms})
    waits = [sum(part["values"][at] for part in by_cause) for at in range(len(found))]
    rest = [round(max(0.0, turn.mean / 1e3 - ms), 4) for turn, ms in zip(found, waits, strict=True)]
    by_cause.append({"key": "working", "title": "does not wait", "values": rest})
    return Figure(
        id="turns",
        title="What a turn of each rank's host is made of",
        caption="A turn of the scheduler's loop: from a batch's send to the next one's. Means "
        "while profiled, which add up. A wait for the own graph is time that the GPU works.",
        alt=f"Stacked bars of {len(bars)} ranks; the table has every part.",
        data={
            "choose": "Parts",
            "bars": bars,
            "height": BARS_FOOT_PX + BAR_PX * len(bars),
            "choices": [
                {"key": "call", "title": "by call", "parts": by_call, "points": []},
                {"key": "cause", "title": "by what it waits for", "parts": by_cause, "points": []},
            ],
        },
        table=whole,
    )


def _part(turn: Turn, name: str) -> Row | None:
    """One of the parts of a turn; None where the turn has none of the name."""
    return next((row for key, row in turn.rows.items() if key == name), None)


def _waited(turn: Turn, cause: str) -> float:
    """How long a turn's host waits for a cause in all its rows, us."""
    return sum(us for row in turn.rows.values() for name, us in row.waits.items() if name == cause)


def lanes(source: Source) -> Figure | None:
    """Some decode steps of all ranks, one case above the other."""
    seen: dict[int, tuple[str, Timeline]] = {}
    for case, explained in source.all_explained():
        if explained.timeline and explained.timeline.ranks:
            seen.setdefault(case, (explained.name, explained.timeline))
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
                        "between": LANES[key][1],
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
