"""Whether #10865 can be expected of what a run plans."""

from __future__ import annotations

from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.case.needs import ASYNCHRONOUS, how_sent

ISSUE_CASES = {"graphs_on", "graphs_off"}  # what #10865 compares
ONE_RANK = (
    "one pipeline rank (PP 1) sends no token ids, so there is nothing of #10865 to see: the run "
    "compares TPOT alone"
)


def add_notes(plan: Plan) -> None:
    """Add a note to each launch where graphs on and off are compared and #10865 cannot be there, or
    is not expected as all send asynchronously: to be known before hours of GPUs."""
    asked = {launch.expects_graphs for launch in plan.firsts} >= {True, False}
    asked |= {launch.case for launch in plan.firsts} >= ISSUE_CASES  # a CPU has no graphs to expect
    if not asked or plan.engine != "sglang" or plan.attached:
        return
    if one_rank := [launch for launch in plan.launches if launch.pp_size == 1]:
        for launch in one_rank:
            launch.notes.append(ONE_RANK)
        return
    if plan.mode == "cpu":
        return
    sends = {how_sent(one.env, one.sglang_version, cuda=True) for one in plan.launches}
    if sends != {ASYNCHRONOUS}:
        return
    for launch in plan.launches:
        launch.notes.append(
            f"PP sends of sglang {launch.sglang_version} are asynchronous: #10865 is not expected "
            "of it; --sends both runs blocking ones beside them, as 0.5.2 has"
        )
