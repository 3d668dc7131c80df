"""Names of what is compared, among a launch's values; the names carry the units."""

from __future__ import annotations

from typing import Literal, NamedTuple

MARGIN = 0.05  # a smaller difference of a ratio counts as none
TPOT = "mean_tpot_ms"  # the primary metric, fixed before any run
# of the last rank's token return to rank 0, a decode step: its host's time in it, the part under
# its own decode graph, and the part in which no compute kernel of its GPU runs
RETURN, OWN_GRAPH, IDLE = "token_return_ms", "token_return_own_graph_ms", "token_return_idle_ms"
# a turn of the last rank's host in messages and waits while its GPU computes nothing
OUTSIDE = "waits_outside_own_work_ms"
CONTROL = "control_ttft_ms"  # of one short prompt alone: graphs cannot change it


class Shown(NamedTuple):
    """How a metric is called wherever it is shown, and which direction is better."""

    title: str
    unit: str  # empty: the title has it
    better: Literal["lower", "higher"]


# Of a client's summary what is compared, in the order in which it is shown: the verdict,
# summary.json, the table, report.md and report.html take it from here.
CLIENT = {
    TPOT: Shown("TPOT mean", "ms", "lower"),
    "median_ttft_ms": Shown("TTFT median", "ms", "lower"),
    "p99_ttft_ms": Shown("TTFT p99", "ms", "lower"),
    "median_itl_ms": Shown("ITL median", "ms", "lower"),
    "p99_itl_ms": Shown("ITL p99", "ms", "lower"),
    "output_throughput": Shown("output tokens/s", "", "higher"),
}
