"""How long launches will take, by those of the same run."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch, Plan

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


def of_run(plan: Plan) -> str:
    """How long the loads of a server take at a stated time per output token, the same of all
    servers, and what comes on top; empty of the probe, which has no such time."""
    if plan.engine != "sglang":
        return ""
    servers, passes_s = len(plan.launches), _passes_s(plan)
    what, each = ("loads", " of each") if plan.loads else ("load", "")
    text = (
        f"{_range(passes_s)} for the {what} of a server if a token takes {TPOT_MS} ms (3 to "
        f"{plan.warmup_passes + 1} passes{each}), without prefill"
    )
    if servers > 1:
        all_s = [seconds * servers for seconds in passes_s]
        text += f"; for {servers} servers, one after another, {_range(all_s)}"
    profile = " and its profile" * (plan.profile or plan.nsys)
    return f"{text}. On top of that comes each server's start{_loading(plan)}{profile}"


def _loading(plan: Plan) -> str:
    """The weights that a server's start loads from disk, as far as their size is known; empty
    where all are random."""
    loaded = [one for one in plan.launches if ("--load-format", "dummy") not in _options(one)]
    if not loaded:
        return " (random weights: nothing is loaded)"
    sizes = {weights.on_a_node(launch) for launch in loaded}
    most = f"{'up to ' * (len(sizes) > 1)}{max(sizes) / 1e9:.0f} GB"
    what = f"{most} of weights" if all(sizes) else "its weights, whose size is not known here,"
    node = " on a node" * (loaded[0].nodes > 1)
    return f" (loading {what}{node} at your disk's speed, after the download where there is one)"


def _options(launch: Launch) -> set[tuple[str, str]]:
    return set(zip(launch.args, launch.args[1:], strict=False))


def _passes_s(plan: Plan) -> list[float]:
    """The least and the most seconds that the loads of a server take: warm-up until steady, and
    the measured pass."""
    tokens = sum(load.max_new_tokens for load in plan.loads) or plan.max_new_tokens
    return [passes * tokens * TPOT_MS / 1e3 for passes in (2 + 1, plan.warmup_passes + 1)]


def _range(seconds: list[float]) -> str:
    return f"{text(seconds[0])} to {text(seconds[1]).removeprefix('about ')}"


def text(duration_s: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3 h 20 min`."""
    if duration_s < 90:
        return f"about {max(10, round(duration_s, -1)):.0f} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"about {hours} h {minutes:02} min" if hours else f"about {minutes} min"
