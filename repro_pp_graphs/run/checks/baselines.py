"""Remedies whose baseline no case of the run is."""

from __future__ import annotations

from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.case.needs import BASELINE_CASES, BASELINES, how_sent


def add_notes(plan: Plan) -> None:
    """Add a note to each launch that differs from the first case in two things: from none of the
    run's cases do its sends differ in one thing alone, though there is a case for it."""
    if plan.engine != "sglang" or plan.attached:
        return
    first = plan.firsts[0]
    for launch in plan.launches:
        sends = _sends(plan, launch)
        baseline = BASELINES.get(sends, "")
        case = BASELINE_CASES.get(baseline, "")
        if launch.case == first.case or not case or _is_there(plan, launch, case):
            continue
        launch.notes.append(
            f"against {first.case} this case changes two things: sends that are {baseline} in "
            f"place of {_sends(plan, first)}, and of these {sends}: add {case} to --cases, from "
            "which it differs in the second alone"
        )


def _sends(plan: Plan, launch: Launch) -> str:
    return how_sent(launch.env, launch.sglang_version, plan.mode != "cpu")


def _is_there(plan: Plan, launch: Launch, case: str) -> bool:
    return any(
        other.case == case
        and _sends(plan, other) == BASELINES[_sends(plan, launch)]
        and other.sglang_version == launch.sglang_version
        and other.expects_graphs == launch.expects_graphs
        for other in plan.firsts
    )
