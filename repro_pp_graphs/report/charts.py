"""The pictures of report.html, in the order of the page: what web/src draws."""

from __future__ import annotations

from repro_pp_graphs.report.bar_charts import one_token, parts_of_a_turn
from repro_pp_graphs.report.figure import Figure
from repro_pp_graphs.report.lane_chart import lanes
from repro_pp_graphs.report.launch_charts import itl_ecdf, itl_over_time, launches, send_ecdf
from repro_pp_graphs.report.source import Source
from repro_pp_graphs.report.sweep_chart import loads
from repro_pp_graphs.report.waterfall_chart import difference


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
