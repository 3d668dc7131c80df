"""Why launches that count have no figure of the token return to compare."""

from __future__ import annotations

from collections.abc import Sequence

from repro_pp_graphs.report.launch_row import Row
from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.stats.findings import UNTIMED
from repro_pp_graphs.stats.metric_names import IDLE, RETURN


def why(rows: Sequence[Row], metric: str, plan: Plan) -> str:
    """In words, where no launch has `metric` (RETURN or IDLE). The last rank's send may have been
    timed all the same: as on a CPU, or where a GPU's work was not seen beside it."""
    returned = any(RETURN in row.get("waits_ms", {}) for row in rows)
    if not returned and not any(map(_sent, rows)):
        return UNTIMED
    if plan.mode == "cpu":
        return (
            "the last rank's token send was timed, but on a CPU, where no CUDA graph runs: nothing "
            "is concluded from it"
        )
    if metric == IDLE and returned:
        shared = ", as ranks share it" * (plan.mode == "one_gpu" and plan.ranks_per_gpu != 1)
        return f"the token return was timed, but not when its GPU computed nothing{shared}"
    return (
        "the last rank's token send was timed, but what its GPU computed meanwhile was not, or not "
        "in every launch"
    )


def _sent(row: Row) -> bool:
    """Whether the table has a figure of the last rank's token send."""
    clock = row.get("pp_clock") or {}
    sends = clock.get("token_send_ms"), clock.get("exchange_ms"), row["token_send_ms"].get("host")
    return any(each is not None for each in sends)
