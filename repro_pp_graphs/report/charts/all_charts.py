"""The pictures of report.html, in the order of the page: what web/src draws."""

from __future__ import annotations

from repro_pp_graphs.report.charts.bar_charts import one_token, parts_of_a_turn
from repro_pp_graphs.report.charts.figure import Figure
from repro_pp_graphs.report.charts.lane_chart import lanes
from repro_pp_graphs.report.charts.launch_charts import itl_ecdf, itl_over_time, launches, send_ecdf
from repro_pp_graphs.report.charts.sweep_chart import loads
from repro_pp_graphs.report.charts.waterfall_chart import difference
from repro_pp_graphs.report.source import Source


def figures(source: Source) -> list[Figure]:
    """Every picture that a folder has the numbers for."""
    makers = (
        loads,
        launches,
        itl_ecdf,
        itl_over_time,
        one_token,
        difference,
        parts_of_a_turn,
        send_ecdf,
        lanes,
    )
    return [figure for make in makers if (figure := make(source))]
