"""How long launches will take, by those of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch, Plan

# A token's turn on a rank: TPOT was 47 to 57 ms at PP 2 (two H100s, 64 layers of the 70B shape), 73
# to 107 ms at PP 4 (four H200s, all 80)
TURN_MS = 25
# Seconds that a start took with random weights, the least and the most seen, and that of the first,
# which compiles: 0.5.2 and 0.5.16 with the 70B shape, a GPU a rank; 0.5.16 with 16 layers, four
# ranks on one H200. A profile with its analysis.
STARTS = {
    "gpu": ((30, 55), (50, 130), "on H100s and H200s"),
    "one_gpu": ((60, 70), (120, 150), "on one H200"),
}
PROFILE_S = (15, 25)
REHEARSED_S = (50, 80)  # a launch of a rehearsal on two quiet cores, without its load
DISK_BYTES_S = 1e9


def seconds(logs: Path, plan: Plan, ahead: list[Launch]) -> float | None:
    """What the launches ahead will take, each as long as those of its case so far took on average;
    None where no launch of this run has been measured."""
    took: dict[str, list[float]] = {}
    for launch in plan.launches:
        if (wall_s := _wall_s(logs, launch, plan)) is not None:
            took.setdefault(launch.case, []).append(wall_s)
    if not took:
        return None
    all_took = [each for values in took.values() for each in values]
    means = {case: sum(values) / len(values) for case, values in took.items()}
    return sum(means.get(launch.case, sum(all_took) / len(all_took)) for launch in ahead)


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
    servers, what all of them take with their starts and profiles as measured elsewhere, and what
    comes on top; empty of the probe, which has no such time."""
    if plan.engine != "sglang":
        return ""
    passes_s = _passes_s(plan)
    what, each = ("loads", " of each") if plan.loads else ("load", "")
    passes = _span([3, plan.warmup_passes + 1])
    return (
        f"{_range(passes_s)} for the {what} of a server if a token takes {_tpot_ms(plan)} ms "
        f"({passes} passes{each}), without prefill; {_in_all(plan, passes_s)}{_loading(plan)}"
    )


def _in_all(plan: Plan, passes_s: list[float]) -> str:
    """What the run takes, and what that rests on."""
    servers = len(plan.launches)
    profiles = sum(1 + len(plan.profiled_loads(one)) for one in plan.launches) * plan.profile
    count = f"for {servers} servers, one after another, " if servers > 1 else "in all "
    if plan.mode == "cpu":
        all_s = [servers * sum(each) for each in zip(REHEARSED_S, passes_s, strict=True)]
        rest = f"a launch without its load took {_span(REHEARSED_S)} s on two quiet cores"
        return f"{count}{_range(all_s)}: {rest}"
    start_s, first_s, where = STARTS[plan.mode]
    all_s = [
        first + (servers - 1) * start + profiles * profile + servers * load
        for start, first, profile, load in zip(start_s, first_s, PROFILE_S, passes_s, strict=True)
    ]
    text = f"{count}{_range(all_s)}: {where} a start took {_span(start_s)} s"
    text += f" (the first {_span(first_s)})"
    text += f", a profile with its analysis {_span(PROFILE_S)} s" * bool(profiles)
    return text + ", and what nsys takes comes on top" * plan.nsys


def _loading(plan: Plan) -> str:
    """The weights that a server's start loads from disk, as far as their size is known; empty
    where all are random."""
    loaded = [one for one in plan.launches if ("--load-format", "dummy") not in _options(one)]
    if not loaded:
        return ""
    sizes = {weights.on_a_node(launch) for launch in loaded}
    most = max(sizes)
    node = " on a node" * (loaded[0].nodes > 1)
    if not all(sizes):
        return f". On top of that each start loads its weights{node}, whose size is not known here"
    up_to = "up to " * (len(sizes) > 1)
    return (
        f". On top of that each start loads {up_to}{most / 1e9:.0f} GB of weights{node} "
        f"({text(most / DISK_BYTES_S)} at 1 GB/s), after the download where there is one"
    )


def _options(launch: Launch) -> set[tuple[str, str]]:
    return set(zip(launch.args, launch.args[1:], strict=False))


def _passes_s(plan: Plan) -> list[float]:
    """The least and the most seconds that the loads of a server take: warm-up until steady, and
    the measured pass."""
    tokens = sum(load.max_new_tokens for load in plan.loads) or plan.max_new_tokens
    token_s = _tpot_ms(plan) / 1e3
    return [passes * tokens * token_s for passes in (2 + 1, plan.warmup_passes + 1)]


def _tpot_ms(plan: Plan) -> int:
    return TURN_MS * max(launch.pp_size for launch in plan.launches)


def _range(seconds: Sequence[float]) -> str:
    least, most = map(text, seconds)
    return least if least == most else f"{least} to {most.removeprefix('about ')}"


def _span(pair: Sequence[int]) -> str:
    """`30 to 55`, of equal ones `4`."""
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def text(duration_s: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3 h 20 min`."""
    if duration_s < 90:
        return f"about {max(10, round(duration_s, -1)):.0f} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"about {hours} h {minutes:02} min" if hours else f"about {minutes} min"
