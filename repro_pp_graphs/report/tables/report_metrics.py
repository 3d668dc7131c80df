"""The metrics of a report: what they are called, their units, what a launch measured of them."""

from __future__ import annotations

from repro_pp_graphs.report.launch_row import gpu_fault
from repro_pp_graphs.report.source import Launched, Source
from repro_pp_graphs.stats.metric_names import CLIENT, CONTROL, IDLE, OUTSIDE, OWN_GRAPH, RETURN
from repro_pp_graphs.stats.verdict_record import Estimate

# metric -> (title with unit, which direction is better)
METRICS: dict[str, tuple[str, str]] = {
    **{
        name: (f"{each.title}, {each.unit}".removesuffix(", "), each.better)
        for name, each in CLIENT.items()
    },
    RETURN: ("token return, host, ms*", "lower"),
    OWN_GRAPH: ("of it under own graph, ms*", "lower"),
    IDLE: ("of it without compute, ms*", "lower"),
    OUTSIDE: ("all waits of a turn without compute, ms*", "lower"),
    CONTROL: ("TTFT of one prompt alone, ms", "lower"),
}
PROFILED = "*Of the profile pass, which slows a step down: means of its decode steps"
CLOCKED = (
    "*Of the measured pass, by the ranks' own clocks (pp_clock): means of decode turns; gaps "
    "between a batch's kernels count as its run, so without graphs the idle parts are at least this"
)
CLOCKED_TITLES = {OWN_GRAPH: "of it while its own batch runs, ms*"}  # a graph or eager kernels
WAITS = frozenset({RETURN, OWN_GRAPH, IDLE, OUTSIDE})


def values(launch: Launched) -> dict[str, float]:
    """What was measured of a launch that counts, by metric: it ended well, and so did its GPUs."""
    ended_well = launch.summary.status == "ok" and not gpu_fault(launch.summary.gpu_counters)
    return shown(launch) if ended_well else {}


def shown(launch: Launched) -> dict[str, float]:
    """The same also of one that does not count: its GPU failed, or it failed or was interrupted
    after its measured pass."""
    return {**launch.summary.metrics, **launch.summary.waits_ms} if launch.measured else {}


def by_clock(source: Source) -> bool:
    """Whether a run's waits are timed by the ranks' own clocks, not in its traces."""
    return any(launch.summary.waits_from == "pp_clock" for launch in source.launches)


def title(metric: str, clocked: bool = False) -> str:
    """A metric's name with its unit; `clocked`: timed by the ranks' own clocks."""
    if clocked and metric in CLOCKED_TITLES:
        return CLOCKED_TITLES[metric]
    if metric in METRICS:
        return METRICS[metric][0]
    name = metric.replace(".", " ").replace("_", " ")
    return f"{name.removesuffix(' ms')}, ms" if name.endswith(" ms") else name


def interval(estimate: Estimate) -> str:
    """`0.949 [0.934, 0.964]`; a difference with its sign."""
    sign = "" if estimate.scale == "ratio" else "+"
    value, low, high = (
        f"{each:{sign}.3f}" for each in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} [{low}, {high}]"
