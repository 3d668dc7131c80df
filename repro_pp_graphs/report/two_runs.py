"""Two runs side by side: another day, another release, another machine.

Their launches were not interleaved, so nothing here is a verdict: means with the range of the
launches of each run, and each run's own A against B with its interval.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

import msgspec

from repro_pp_graphs.report import run_differences
from repro_pp_graphs.report.number_words import count, number
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.report.tables import clock_values
from repro_pp_graphs.report.tables.report_metrics import (
    CLOCKED,
    METRICS,
    PROFILED,
    WAITS,
    by_clock,
    interval,
    title,
    values,
)
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.machine import network
from repro_pp_graphs.stats.metric_names import CONTROL, RETURN
from repro_pp_graphs.terminal import wrapped

NAME, COLUMN = 27, 22
SHORT = {CONTROL: "TTFT alone, ms"}  # titles that fit their column
# of the last rank's decode turns in the measured pass, where both runs have pp_clock: by the path
# among a launch's `pp_clock`
TURNS = {
    "turn_ms.mean": "last rank's turn, ms",
    "waits_ms.mean": "  of it waiting, ms",
    "token_send_ms.mean": "  of it token send, ms",
    "exchange_ms.mean": "  of it its batch, ms",
}
TURNS_ARE = "Turns: of the last PP rank's loop, means of decode turns of the measured pass."
SAME_AS_RETURN = ("token_send_ms.mean", "exchange_ms.mean")  # that row has it under its name
MODEL_ARGUMENTS = ("--json-model-override-args", "--load-format", "--quantization", "--dtype")
PROMPTS = "prompts.txt"


class Cell(msgspec.Struct, frozen=True):
    """A metric of a case in one run: the mean of its launches, the lowest, the highest."""

    mean: float
    low: float
    high: float
    launches: int


class Row(msgspec.Struct, frozen=True):
    """A metric of a case in both runs."""

    metric: str
    first: Cell
    second: Cell

    @property
    def ratio(self) -> float | None:
        """Second run's mean over the first's; None where that is 0."""
        return self.second.mean / self.first.mean if self.first.mean else None


def against(one: Source, other: Source) -> list[str]:
    """Why two runs cannot be compared, a reason each; empty where they can."""
    found = []
    for source in (one, other):
        if source.plan is None:
            found.append(f"{source.folder} holds traces alone: nothing was measured")
        elif not any(map(values, source.launches)):
            found.append(f"no launch of {source.folder} was measured")
    if one.plan is None and other.plan is None:
        found.append(
            f"python -m repro_pp_graphs analyze {one.folder} {other.folder} holds their decode "
            "steps against each other, where they are of one load and number of ranks"
        )
    elif found:
        found.append("name the folders of two runs, as --out did")
    if found or one.plan is None or other.plan is None:
        return found
    first, second = _asked(one.plan), _asked(other.plan)
    found += [
        f"other {name}: {first[name]} and {second[name]}"
        for name in first
        if first[name] != second[name] and first[name] and second[name]
    ]
    if not shared(one, other):
        found.append(
            f"no case is in both: {', '.join(_cases(one.plan))} and {', '.join(_cases(other.plan))}"
        )
    return found


def _asked(plan: Plan) -> dict[str, str]:
    """What must be the same for numbers to be of the same thing."""
    launch = plan.launches[0]
    how = {"cpu": "a rehearsal on a CPU", "one_gpu": plan.sharing, "gpu": "GPUs"}
    return {
        "program": "the probe" if plan.engine == "probe" else "sglang",
        "kind of run": how.get(plan.mode, plan.mode),
        "load": plan.load_text,
        "prompts": plan.inputs.get(PROMPTS, "")[:12],
        "ranks": f"PP {launch.pp_size} x TP {launch.tp_size}",
        "model": " ".join([Path(launch.model).name, *_of_model(launch)]),
        "network": network.transport(launch.env) or "as NCCL chooses",
        "recording": "under nsys" if plan.nsys else "without nsys",
    }


def _of_model(launch: Launch) -> list[str]:
    """The arguments that make another model of the same one: layers, weights, types."""
    args = launch.args
    return [
        f"{name} {args[at + 1]}" for at, name in enumerate(args[:-1]) if name in MODEL_ARGUMENTS
    ]


def _cases(plan: Plan) -> list[str]:
    return [launch.case for launch in plan.firsts]


def shared(one: Source, other: Source) -> list[str]:
    """The cases that both runs have, by name, in the first run's order."""
    if one.plan is None or other.plan is None:
        return []
    theirs = _cases(other.plan)
    return [case for case in _cases(one.plan) if case in theirs]


def rows(one: Source, other: Source, case: str) -> list[Row]:
    """Every metric of a case that both runs measured; waits where both measured them alike."""
    found = []
    alike = by_clock(one) == by_clock(other)
    for metric in METRICS if alike else [each for each in METRICS if each not in WAITS]:
        first, second = _cell(one, case, metric), _cell(other, case, metric)
        if first and second:
            found.append(Row(metric, first, second))
    returned = any(row.metric == RETURN for row in found)
    for path in TURNS:
        first, second = _cell(one, case, path), _cell(other, case, path)
        if first and second and not (returned and path in SAME_AS_RETURN):
            found.append(Row(path, first, second))
    return found


def _value(launch: Launched, metric: str) -> float | None:
    """A metric, or a path of TURNS, of a launch that counts."""
    counted = values(launch)
    if metric not in TURNS or not counted or launch.summary.pp_clock is None:
        return counted.get(metric)
    return clock_values.value(msgspec.to_builtins(launch.summary.pp_clock), metric)


def _cell(source: Source, case: str, metric: str) -> Cell | None:
    known = [_value(each, metric) for each in run_differences.launches_of(source, case)]
    measured = [value for value in known if value is not None]
    if not measured:
        return None
    return Cell(fmean(measured), min(measured), max(measured), len(measured))


def lines(one: Source, other: Source) -> list[str]:
    """Both runs in 80 columns."""
    out = [*_head("1", one), *_head("2", other)]
    for case in shared(one, other):
        out += ["", *_table(one, other, case)]
    out += ["", *_each_verdict("1", one), *_each_verdict("2", other)]
    out += wrapped(
        f"{_what_cells_are(one, other)} The launches of two runs were not interleaved: a "
        "difference between them may come from whatever else changed."
    )
    out += _of_waits(one, other)
    if one.plan and one.plan.mode == "cpu":
        out += wrapped(
            "Rehearsals on a CPU: no case has CUDA graphs, so nothing here is about #10865."
        )
    for text in run_differences.sentences(one, other, shared(one, other)):
        out += wrapped(text, "- ")
    for mark, source, theirs in (("1", one, other), ("2", other, one)):
        of_both = run_differences.of_launches(mark, source, shared(one, other))
        for text in [*_alone(mark, source, theirs), *of_both]:
            out += wrapped(text, "! ")
    return out


def _alone(mark: str, source: Source, other: Source) -> list[str]:
    """Which cases of a run the other has not, a sentence where there are any."""
    both = shared(source, other)
    lacking = [case for case in _cases(source.plan) if case not in both] if source.plan else []
    return [f"Only run {mark} has {', '.join(lacking)}: not shown."] if lacking else []


def _of_waits(one: Source, other: Source) -> list[str]:
    """What timed the turns and the waits, and which run has none."""
    runs = (one, other)
    timed = [any(_value(each, "turn_ms.mean") for each in run.launches) for run in runs]
    waits = all(any(WAITS & values(each).keys() for each in run.launches) for run in runs)
    clocked, both = (by_clock(run) for run in runs)
    if waits and clocked != both:
        how = {True: "timed by its ranks' own clocks (pp_clock)", False: "from its traces"}
        return wrapped(
            f"The token return and the waits are not compared: those of run 1 are {how[clocked]}, "
            f"those of run 2 {how[both]}."
        )
    found = wrapped(f"{CLOCKED if clocked else PROFILED}.") if waits else []
    if timed[0] != timed[1]:
        has, lacks = ("1", "2") if timed[0] else ("2", "1")
        found += wrapped(
            f"The last rank's turns, its waits and its token send are timed in run {has} alone "
            f"(pp_clock; not in run {lacks}): not compared."
        )
    return found + (wrapped(TURNS_ARE) if all(timed) and not waits else [])


def _what_cells_are(one: Source, other: Source) -> str:
    """How a cell is to be read, a sentence."""
    tables = [rows(one, other, case) for case in shared(one, other)]
    cells = (cell for found in tables for row in found for cell in (row.first, row.second))
    several = {cell.launches > 1 for cell in cells}
    if not several:
        return "No case was measured in both runs."
    better = "Lower is better, but for output tokens/s."
    if True not in several:
        return (
            f"{better} One launch a case in each run: nothing shows how far launches alike differ."
        )
    if False not in several:
        return f"{better} Means, with the lowest and the highest launch."
    return (
        f"{better} Means, with the lowest and the highest launch of the cases that have several. "
        "Of one launch nothing shows how far launches alike differ."
    )


def _head(mark: str, source: Source) -> list[str]:
    began = source.summary.began if source.summary else ""
    versions = ", ".join(sorted({each.summary.sglang_version for each in source.launches}))
    folder = source.folder if source.folder.name else source.folder.resolve()  # of `.` its name
    return wrapped(f"{mark}: {folder}, {began or 'date unknown'}, sglang {versions}")


def _table(one: Source, other: Source, case: str) -> list[str]:
    """A row a metric; a name too long for its column has a line of its own."""
    found = rows(one, other, case)
    counts = [
        sum(bool(values(each)) for each in run_differences.launches_of(run, case))
        for run in (one, other)
    ]
    heads = "".join(
        f"{f'run {n}, ' + count(of, 'launch'):>{COLUMN}}" for n, of in enumerate(counts, 1)
    )
    out = [f"{case[: NAME - 1]:<{NAME}}{heads}    2 / 1"]
    for row in found:
        cells = f"{_shown(row.first):>{COLUMN}}{_shown(row.second):>{COLUMN}}"
        ratio = f"{row.ratio:>9.3f}" if row.ratio is not None else ""
        name = TURNS.get(row.metric) or SHORT.get(row.metric) or title(row.metric, by_clock(one))
        if len(name) >= NAME:
            out.append(name)
            name = ""
        out.append(f"{name:<{NAME}}{cells}{ratio}")
    if not found:
        lacking = [f"run {n}" for n, of in enumerate(counts, 1) if not of]
        why = (
            f"no launch of {' and '.join(lacking)} was measured" if lacking else "no metric in both"
        )
        out += wrapped(f"nothing to compare: {why}", "  ")
    return out


def _shown(cell: Cell) -> str:
    if cell.launches == 1:
        return number(cell.mean)
    for digits in (4, 3, 2):
        mean, low, high = (number(each, digits) for each in (cell.mean, cell.low, cell.high))
        text = f"{mean} ({low}-{high})"
        if len(text) < COLUMN:
            break
    return text


def _each_verdict(mark: str, source: Source) -> list[str]:
    """A run's own comparison of its cases by the primary metric."""
    found = source.summary
    if found is None or found.verdict is None or found.rehearsal:
        return []
    out = []
    for pair in found.verdict.pairs:
        if pair.comparisons and pair.primary.estimate:
            what = f"{mark}: {title(pair.primary.metric)}, {pair.a} / {pair.b}: "
            out += wrapped(what + f"{interval(pair.primary.estimate)} {pair.primary.word}")
    return out
