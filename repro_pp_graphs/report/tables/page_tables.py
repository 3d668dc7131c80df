"""The tables of a report, as rows of text: A against B, the parts of a turn, what differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from repro_pp_graphs.client.metrics import percentile
from repro_pp_graphs.report.case_differences import Difference
from repro_pp_graphs.report.number_words import number
from repro_pp_graphs.report.source import Explained, Source
from repro_pp_graphs.report.tables import ratio_cells
from repro_pp_graphs.report.tables.report_metrics import (
    CLOCKED,
    METRICS,
    PROFILED,
    WAITS,
    by_clock,
    interval,
    shown,
    title,
    values,
)
from repro_pp_graphs.report.tables.table import Table
from repro_pp_graphs.report.tables.turn_tables import left_out, shown_ranks
from repro_pp_graphs.stats.compare import spread
from repro_pp_graphs.stats.verdict_record import Pair
from repro_pp_graphs.traces.analysis_record import Analysis, RingPath, RowName
from repro_pp_graphs.traces.explain.words import (
    GPU_IDLE,
    OWN_IDLE,
    ROW_TITLES,
    ROWS,
    gpu_idle_us,
    own_idle_us,
)

# A wait that is at least this share of its rank's turn is named in the cell of its row.
WORTH_NAMING = 0.05
MOST_LAUNCHES = 8  # named where a figure says of which launches it is
SHORT_CAUSES = {
    "own_graph": "own graph",
    "own_compute": "own kernels",
    "peer_late": "peer late",
    "transfer": "transfer",
    "otherwise": "other",
}


def arms(source: Source) -> Table | None:
    """A against B: a row a metric, a column a case with its mean over launches, and a column a
    pair of cases. A rehearsal has no ratios: they would be remembered."""
    found = source.summary
    if found is None or not any(map(shown, source.launches)):
        return None
    pairs = found.verdict.pairs if found.verdict and not found.rehearsal else []
    compared = {(n, c.metric): c for n, pair in enumerate(pairs) for c in pair.comparisons}
    answers = ratio_cells.answers(found.verdict.findings) if pairs and found.verdict else {}
    known = [shown(launch) for launch in source.launches]
    wanted = [*METRICS, *dict.fromkeys(metric for _, metric in compared)]
    metrics = [
        metric
        for metric in dict.fromkeys(wanted)
        if any(metric in one for one in known) or any((n, metric) in compared for n in _at(pairs))
    ]
    clocked = by_clock(source)
    rows = []
    for metric in metrics:
        better = METRICS.get(metric, ("", ""))[1]
        better = better or next((c.better for (_, m), c in compared.items() if m == metric), "")
        means = [_mean(source, metric, number) for number in range(len(source.cases))]
        cells = [ratio_cells.compared(compared.get((n, metric))) for n in _at(pairs)]
        if pairs and metric in answers:  # the pair that asks is the first
            cells[0] = answers[metric]
        rows.append([title(metric, clocked), better, *map(number, means), *cells])
    head = ["", "better", *source.cases, *(f"{pair.a} / {pair.b}" for pair in pairs)]
    counts = [measured(source, number) for number in range(len(source.cases))]
    launches = max(counts)
    each = f"means over {spread(counts)} launches"
    files = {source.cases[one.case]: one.summary.label for one in reversed(source.launches)}
    named = [f"{name} is {files[name]}" for name in source.cases if files[name] != name]
    note = f"Each case: {each}" if launches > 1 else "One launch a case: no interval"
    if any(each.estimate for each in compared.values()):
        confidence = 100 * (1 - pairs[0].alpha)
        apart = " (of the token return differences, ms)" if answers else ""
        note += f"; ratios{apart} with their {confidence:g} % interval"
    if not WAITS.isdisjoint(metrics):
        note += f". {CLOCKED if clocked else PROFILED}"
    for at, case in enumerate(source.cases):
        has_figures = any(one.case == at and shown(one) for one in source.launches)
        if has_figures and not measured(source, at):
            note += f". {case}: {_uncounted(source, at)}: not compared"
    left_out = [one.summary.label for one in source.launches if shown(one) and not values(one)]
    if launches and left_out:
        note += f". Not in the means: {', '.join(left_out)}"
    note += ratio_cells.untestable(pairs) + ratio_cells.marks(
        pairs, (cell for row in rows for cell in row)
    )
    note += f". In the files {', '.join(named)}" if named else ""
    return Table(head=head, rows=rows, note=f"{note}.")


def _uncounted(source: Source, case: int) -> str:
    """Why no launch of a case that has figures counts."""
    its = [launch.summary for launch in source.launches if launch.case == case]
    well = any(launch.status == "ok" for launch in its)
    return "its GPUs failed" if well else "cut short after its measured pass"


def measured(source: Source, case: int) -> int:
    """Launches of a case that count."""
    return sum(launch.case == case and bool(values(launch)) for launch in source.launches)


def _at(pairs: list[Pair]) -> range:
    return range(len(pairs))


def _mean(source: Source, metric: str, case: int) -> float | None:
    ours = [launch for launch in source.launches if launch.case == case]
    # of a case without a launch that ended well, what was measured
    its = list(filter(None, map(values, ours))) or list(map(shown, ours))
    measured = [one[metric] for one in its if metric in one]
    return fmean(measured) if measured else None


def unprofiled_tpot_ms(source: Source) -> dict[str, float]:
    """The mean TPOT of each launch's measured pass, by the launch's label."""
    known = {one.summary.label: values(one).get("mean_tpot_ms") for one in source.launches}
    return {label: ms for label, ms in known.items() if ms}


def crossed(source: Source) -> Table | None:
    """Graphs by sends: a row a way to send with its means and on / off, and the ratio of the two.
    None where the run is no 2 x 2, or a rehearsal, whose arms are alike."""
    found = source.summary
    if found is None or found.verdict is None or found.rehearsal:
        return None
    rows: list[list[str]] = []
    for each in found.verdict.interactions:
        if each.ratio is None or each.ratio_blocking is None or len(each.cases) != 4:
            continue
        by_name = {launch.summary.case: launch.case for launch in source.launches}
        means = [
            number(_mean(source, each.metric, by_name[case])) if case in by_name else ""
            for case in each.cases
        ]
        name = title(each.metric).removesuffix("*")
        rows.append([f"{name}, as released", *means[:2], f"{each.ratio:.3f}"])
        rows.append([f"{name}, blocking", *means[2:], f"{each.ratio_blocking:.3f}"])
        ratio = interval(each.estimate) if each.estimate else ""
        word = f"{each.word.lower()} {100 * each.margin:g} %" if "THAN" in each.word else each.word
        rows.append(
            ["interaction: blocking / as released", "", "", f"{ratio} {word.lower()}".strip()]
        )
    if not rows:
        return None
    note = (
        "Interaction: on / off with blocking sends by on / off as released, a ratio of two ratios. "
        "Blocking: the host waits in every send, as in sglang 0.5.2 (shim sync_send). Ratios "
        "are of one model of all four cases, above of each pair alone: the last digit may differ."
    )
    return Table(head=["", "graphs on", "graphs off", "on / off"], rows=rows, note=note)


def first_explained(source: Source) -> list[tuple[int, Explained]]:
    """The first launch of each case that was traced and explained."""
    found: dict[int, Explained] = {}
    for case, explained in source.all_explained():
        if explained.analysis:
            found.setdefault(case, explained)
    return sorted(found.items())


def first_followed(source: Source) -> list[tuple[int, str, RingPath]]:
    """The first launch of each case whose steps' critical path is known: case, label, path."""
    found: dict[int, tuple[str, RingPath]] = {}
    for case, each in source.all_explained():
        if each.analysis and each.analysis.ring_path:
            found.setdefault(case, (each.name, each.analysis.ring_path))
    return [(case, *found[case]) for case in sorted(found)]


def of_launches(labels: Sequence[str]) -> str:
    """Of which launches a figure is: their labels, of many how many more."""
    shown = list(dict.fromkeys(labels))
    more = len(shown) - MOST_LAUNCHES
    return ", ".join(shown[:MOST_LAUNCHES]) + (f" and {more} more" if more > 0 else "")


def turns(source: Source, every_rank: bool = False) -> Table | None:
    """The parts of a turn of each host's loop: a column a case and rank (by `shown_ranks`, or every
    rank), means in ms which add up; in a cell the longest of its waits."""
    with_turns = [
        (case, each)
        for case, each in first_explained(source)
        if each.analysis and each.analysis.turns
    ]
    known = [(source.cases[case], each.analysis) for case, each in with_turns if each.analysis]
    if not known:
        return None
    ranks = [list(analysis.turns) for _, analysis in known]
    shown = shown_ranks([len(its) for its in ranks])
    columns = [
        (f"PP{label} {name}", analysis, label)
        for (name, analysis), its, some in zip(known, ranks, shown, strict=True)
        for label in (its if every_rank else [its[each] for each in some])
    ]
    rows = []
    for row in ROWS:
        cells = [_part(analysis, label, row) for _, analysis, label in columns]
        if any(cells):
            rows.append([ROW_TITLES[row], *cells])
    turn_of = [analysis.turns[label] for _, analysis, label in columns]
    rows.append(["the whole turn", *(f"{turn.mean / 1e3:.2f}" for turn in turn_of)])
    rows += _idle_rows([(analysis, label) for _, analysis, label in columns])
    note = (
        "ms a turn of the host's loop while profiled, of "
        f"{of_launches([each.name for _, each in with_turns])}: means; they add up. In brackets "
        "the longest of its waits."
    )
    note += left_out(sum(map(len, ranks)), len(columns))
    return Table(head=["", *(name for name, _, _ in columns)], rows=rows, note=note)


def _idle_rows(columns: Sequence[tuple[Analysis, str]]) -> list[list[str]]:
    """How long the GPU computes nothing; of ranks that share one, or may, also how long none of the
    rank's own kernels runs."""
    found: dict[str, list[float | None]] = {}
    for row, value in ((OWN_IDLE, own_idle_us), (GPU_IDLE, gpu_idle_us)):
        found[row] = [value(analysis, label) for analysis, label in columns]
    return [
        [title, *("" if us is None else f"{us / 1e3:.2f}" for us in cells)]
        for title, cells in found.items()
        if any(us is not None for us in cells)
    ]


def _part(analysis: Analysis, label: str, name: RowName) -> str:
    turn = analysis.turns[label]
    row = turn.rows.get(name)
    if row is None or not row.mean:
        return ""
    text = f"{row.mean / 1e3:.2f}"
    most = max(row.waits.items(), key=lambda item: item[1], default=None)
    if most and most[1] >= WORTH_NAMING * turn.mean:
        text += f" ({most[1] / 1e3:.2f} {SHORT_CAUSES[most[0]]})"
    return text


def differing(source: Source, found: Iterable[Difference]) -> Table | None:
    """What the cases' servers ran with that is not the same."""
    rows = [[each.name, *each.values] for each in found]
    return Table(head=["argument", *source.cases], rows=rows) if rows else None


def quantiles(series: list[tuple[str, list[float]]], unit: str) -> Table:
    """Of each launch's sorted values: how many, and quantiles; the table behind a distribution."""
    percents = (1, 10, 25, 50, 75, 90, 99, 100)
    heads = [f"p{percent}" if percent < 100 else "max" for percent in percents]
    rows = [
        [name, str(len(its)), *(number(percentile(its, percent)) for percent in percents)]
        for name, its in series
    ]
    return Table(head=[unit, "n", *heads], rows=rows)
