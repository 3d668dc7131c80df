"""Remedies whose baseline no case of the run is."""

from __future__ import annotations

from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.case.needs import (
    ASYNCHRONOUS,
    BASELINE_CASES,
    BASELINES,
    DEPTH,
    DEPTH_CASE,
    how_sent,
)


def add_notes(plan: Plan) -> None:
    """Say so of each launch of a remedy that differs from no case of the run in one thing alone,
    though there is a case for it; not where a case is compared with itself."""
    if plan.engine != "sglang" or plan.attached or plan.aa:
        return
    first = plan.firsts[0]
    for launch in plan.launches:
        sends = _sends(plan, launch)
        baseline, what = _baseline(plan, launch)
        case = BASELINE_CASES.get(baseline, "")
        if not case or _is_there(plan, launch, case, baseline):
            continue
        if launch.case == first.case:
            launch.notes.append(
                f"compare it with {case}, from which it differs in {what} alone: "
                f"--cases {case},{launch.case}"
            )
        elif sends != baseline:
            launch.caveats.append(
                f"against {first.case} this case changes two things: its sends are {baseline} in "
                f"place of {_sends(plan, first)}, and then {sends} in place of {baseline}: add "
                f"{case} to --cases, from which it differs in the second alone"
            )
        elif first.expects_graphs != launch.expects_graphs:
            launch.caveats.append(
                f"against {first.case} this case changes two things, graphs and {what}: add "
                f"{case} to --cases, from which it differs in the second alone"
            )


def _baseline(plan: Plan, launch: Launch) -> tuple[str, str]:
    """How those send that a remedy is held against, and in what it differs from them; empty where
    the launch is of none."""
    sends = _sends(plan, launch)
    if sends in BASELINES:
        return BASELINES[sends], "its sends"
    if launch.case == DEPTH_CASE and sends == ASYNCHRONOUS:
        return sends, DEPTH
    return "", ""


def _sends(plan: Plan, launch: Launch) -> str:
    return how_sent(launch.env, launch.sglang_version, plan.mode != "cpu")


def _is_there(plan: Plan, launch: Launch, case: str, baseline: str) -> bool:
    return any(
        other.case == case
        and _sends(plan, other) == baseline
        and other.sglang_version == launch.sglang_version
        and other.expects_graphs == launch.expects_graphs
        for other in plan.firsts
    )
