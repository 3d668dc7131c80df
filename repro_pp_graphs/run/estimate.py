"""How long launches will take, by those of the same run."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.record import Launch, Plan

TPOT_MS = 50  # of sglang on two H100s with the 70B shape


def seconds(logs: Path, plan: Plan, ahead: list[Launch]) -> float | None:
    """What the launches ahead will take, each as long as those of its case so far took on average;
    None where no launch of this run has been measured."""
    took: dict[str, list[float]] = {}
    for launch in plan.launches:
        if (wall_s := _wall_s(logs, launch, plan)) is not None:
            took.setdefault(launch.case, []).append(wall_s)
    if not took:
        return None
    everyone = fmean(each for values in took.values() for each in values)
    return sum(fmean(took.get(launch.case, [everyone])) for launch in ahead)


def _wall_s(logs: Path, launch: Launch, plan: Plan) -> float | None:
    from repro_pp_graphs import launch_record  # noqa: PLC0415 - a dry run does without msgspec

    try:
        known = launch_record.load(logs, launch.label)
    except (OSError, BadFile):
        return None
    measured = known is not None and known.status == "ok" and known.run_id == plan.run_id
    return known.wall_s if known and measured else None


def of_sweep(plan: Plan) -> str:
    """How long the loads of a sweep take on one server, at a stated time per output token."""
    servers = f"{len(plan.launches)} server{'s' * (len(plan.launches) > 1)}"
    return f"{_of_a_server(plan, 'loads')}; {servers}"


def of_rounds(plan: Plan) -> str:
    """The same of several rounds of one load, and of all their servers; empty of other runs: a
    sweep has its own, a rehearsal and the probe have no such time."""
    if plan.rounds == 1 or plan.loads or plan.rehearsal or plan.engine != "sglang":
        return ""
    servers = len(plan.launches)
    return (
        f"{_of_a_server(plan, 'load')}; {servers} servers, one after another: "
        f"{_range([each * servers for each in _passes_s(plan)])} without those"
    )


def _passes_s(plan: Plan) -> list[float]:
    """The least and the most seconds that the loads of a server take: warm-up until steady, and
    the measured pass."""
    tokens = sum(load.max_new_tokens for load in plan.loads) or plan.max_new_tokens
    return [passes * tokens * TPOT_MS / 1e3 for passes in (2 + 1, plan.warmup_passes + 1)]


def _range(seconds: list[float]) -> str:
    return f"{text(seconds[0])} to {text(seconds[1]).removeprefix('about ')}"


def _of_a_server(plan: Plan, what: str) -> str:
    of_each = " of each" * (what == "loads")
    return (
        f"{_range(_passes_s(plan))} for the {what} of a server "
        f"if a token takes {TPOT_MS} ms (3 to {plan.warmup_passes + 1} passes{of_each}), without "
        "prefill; its start and its profile come on top"
    )


def text(duration_s: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3 h 20 min`."""
    if duration_s < 90:
        return f"about {max(10, round(duration_s, -1)):.0f} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"about {hours} h {minutes:02} min" if hours else f"about {minutes} min"
