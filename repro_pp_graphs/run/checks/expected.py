"""Whether #10865 can be expected of what a run plans."""

from __future__ import annotations

from repro_pp_graphs.run_record import Plan
from repro_pp_graphs.server.case.needs import ASYNCHRONOUS, how_sent


def add_notes(plan: Plan) -> None:
    """Add a note to each launch where graphs on and off are compared and all send asynchronously:
    to be known before hours of GPUs."""
    if plan.engine != "sglang" or plan.attached or plan.mode == "cpu":
        return
    asked = {launch.expects_graphs for launch in plan.firsts} >= {True, False}
    if not asked or any(launch.pp_size == 1 for launch in plan.launches):
        return
    sends = {how_sent(one.env, one.sglang_version, cuda=True) for one in plan.launches}
    if sends != {ASYNCHRONOUS}:
        return
    for launch in plan.launches:
        launch.notes.append(
            f"PP sends of sglang {launch.sglang_version} are asynchronous: #10865 is not expected "
            "of it; --sends both runs blocking ones beside them, as 0.5.2 has"
        )
