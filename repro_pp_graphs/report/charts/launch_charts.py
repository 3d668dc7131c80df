"""What the clients of the launches saw: every launch, distributions, ITL over time."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.report.summary import sentences
from repro_pp_graphs.report.tables.page_tables import quantiles
from repro_pp_graphs.report.tables.report_metrics import METRICS, shown, title, values
from repro_pp_graphs.report.tables.table import Table

MOST_POINTS = 160  # of a distribution; of more values, so many quantiles
MOST_SERIES = 64  # launches in one picture


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


def _left_out(launches: int) -> str:
    more = launches - MOST_SERIES
    return f" {more} more launches are not shown." if more > 0 else ""


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
        "apart are launch-to-launch noise. Further left is better." + _left_out(len(known)),
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
        caption="One line a traced launch, every decode step whose send is complete in its trace. "
        "While profiled. #10865 has 100 ms with graphs and 3 ms without." + _left_out(len(known)),
        alt=f"Distribution of the token send in ms, {len(series)} launches.",
        data={"unit": "token send, ms", "series": series},
        table=quantiles(named, "token send, ms"),
    )


def itl_over_time(source: Source) -> Figure | None:
    """The mean ITL in twenty parts of each launch's measured pass."""
    every = [one for one in source.launches if one.itl_over_time]
    known = every[:MOST_SERIES]
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
        "begin was not warm; one that climbs grows with the context." + _left_out(len(every)),
        alt=f"Mean ITL over the measured pass, {len(series)} launches.",
        data={"unit": "mean ITL, ms", "series": series},
        table=Table(head=["launch", "from, s", "mean ITL, ms"], rows=rows),
    )


UNLIKE = " An empty circle: a launch unlike the others in that metric, which counts all the same."
BAR_AT_THE_RIGHT = (
    " A bar at the right: the second case's mean times the interval of the ratio, which is where "
    "the first case's mean may lie."
)


def launches(source: Source) -> Figure | None:
    """Every launch as a point, in the order in which they ran, and the interval beside them."""
    metrics = [metric for metric in METRICS if any(metric in shown(one) for one in source.launches)]
    if not metrics:
        return None
    choices = [_choice(source, metric) for metric in metrics]
    unlike = any(point["marked"] for choice in choices for point in choice["points"])
    rows = [
        [
            str(one.order),
            one.summary.label,
            one.summary.status,
            *(number(shown(one).get(metric)) for metric in metrics),
        ]
        for one in source.launches
    ]
    return Figure(
        id="launches",
        title="Every launch",
        caption="A point is a server launch, the unit that is compared; dashed: each case's mean."
        + UNLIKE * unlike
        + BAR_AT_THE_RIGHT * any(choice["intervals"] for choice in choices),
        alt=f"{len(source.launches)} launches by {', '.join(map(title, metrics[:3]))}.",
        data={"choose": "Metric", "choices": choices, "launches": len(source.launches)},
        table=Table(head=["order", "launch", "status", *map(title, metrics)], rows=rows),
    )


def _choice(source: Source, metric: str) -> dict[str, Any]:
    measured = [(one, shown(one)[metric]) for one in source.launches if metric in shown(one)]
    by_case: dict[int, list[float]] = {}
    for one in (one for one, _ in measured if metric in values(one)):
        by_case.setdefault(one.case, []).append(values(one)[metric])
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
                    "text": sentences.interval(one),
                    "places": [round(at, 5) for at in places],
                }
            )
    return rows
