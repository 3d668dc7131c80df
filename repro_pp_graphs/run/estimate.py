"""How long launches will take, by those of the same run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro_pp_graphs.files import BadFile
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import environments
from repro_pp_graphs.run.plan.order import ENOUGH_ROUNDS, LEAST_ROUNDS, whole_rounds
from repro_pp_graphs.run_record import Launch, Plan

# A token's turn on a rank: TPOT was 47 to 57 ms at PP 2 (two H100s, 64 layers of the 70B shape), 73
# to 107 ms at PP 4 (four H200s, all 80)
TURN_MS = 25
# Seconds that a start took with random weights, the least and the most seen, and that of the first,
# which compiles: 0.5.2 and 0.5.16 with the 70B shape, a GPU a rank; 0.5.16 with 16 layers, four
# ranks on one H200. A profile with its analysis. The rest of a launch: what is neither start nor
# passes of the load (0.5.16, four H100s, 13 launches: 100 to 171 s, of which its start 62 to 133).
STARTS = {
    "gpu": ((30, 80), (50, 160), "on H100s and H200s"),
    "one_gpu": ((60, 70), (120, 150), "on one H200"),
}
PROFILE_S = (15, 25)
REST_S = (10, 20)
REHEARSED_S = (30, 60)  # a launch of a rehearsal on two cores, quiet or less so, without its load
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
    """How long the servers of a run take, one after another, what comes on top, and what that rests
    on: starts and profiles as measured elsewhere, loads at a stated time per output token; empty
    of the probe, which has no such time."""
    if plan.engine != "sglang":
        return ""
    servers = len(plan.launches)
    several = f"{servers} servers, one after another" if servers > 1 else "the server"
    more = "; ".join(
        filter(None, [_loading(plan), _installing(plan), "what nsys takes" * plan.nsys])
    )
    top = f"; on top of that: {more}" if more else ""
    return f"{_range(_all_s(plan, servers))} for {several}{top}. Each server: {_basis(plan)}"


def for_verdict(plan: Plan) -> str:
    """That so few rounds give no verdict, how many do, and how long those take; empty where these
    may, or there is none to give."""
    arms = len(plan.firsts)
    if plan.rounds >= LEAST_ROUNDS or arms < 2 or plan.rehearsal or plan.attached:
        return ""
    rounds = whole_rounds(ENOUGH_ROUNDS, arms)
    few = "one round" if plan.rounds == 1 else f"{plan.rounds} rounds"
    text = f"none from {few}; --rounds {rounds} gives one"
    if plan.engine == "sglang":
        servers = rounds * arms
        text += f": {servers} servers, {_range(_all_s(plan, servers))}"
        text += _loads_on_top(plan, servers)
    return f"{text}; also later, with --resume"


def _all_s(plan: Plan, servers: int) -> list[float]:
    """The least and the most seconds that so many servers take, without loading weights."""
    passes_s = _passes_s(plan)
    if plan.mode == "cpu":
        return [servers * sum(each) for each in zip(REHEARSED_S, passes_s, strict=True)]
    loads = sum(1 + len(plan.profiled_loads(one)) for one in plan.launches)
    profiles = loads + servers - len(plan.launches)  # other loads: in a case's first launch alone
    start_s, first_s, _ = STARTS[plan.mode]
    return [
        first + (servers - 1) * start + profiles * plan.profile * profile + servers * (load + rest)
        for start, first, profile, load, rest in zip(
            start_s, first_s, PROFILE_S, passes_s, REST_S, strict=True
        )
    ]


def _basis(plan: Plan) -> str:
    """What is counted of a server, and where it was measured."""
    what, each = ("its loads", " of each") if plan.loads else ("its load", "")
    passes = _span([3, plan.warmup_passes + 1])
    load = (
        f"{what} {_range(_passes_s(plan)).removeprefix('about ')} ({passes} passes{each} at "
        f"an assumed {_tpot_ms(plan)} ms a token, without prefill)"
    )
    if plan.mode == "cpu":
        what = "start, profile and the rest" if plan.profile else "start and the rest"
        return f"{load}; {what} {_span(REHEARSED_S)} s, as on two cores"
    start_s, first_s, where = STARTS[plan.mode]
    profile = f", a profile with its analysis {_span(PROFILE_S)} s" * plan.profile
    start = f"a start {_span(start_s)} s (the first {_span(first_s)}), the rest {_span(REST_S)} s"
    return f"{load}; {start}{profile}, as {where}"


def _loading(plan: Plan) -> str:
    """The weights that a server's start loads from disk, as far as their size is known; empty
    where all are random."""
    loaded = [one for one in plan.launches if one.value("--load-format") != "dummy"]
    if not loaded:
        return ""
    sizes = {weights.on_a_node(launch) for launch in loaded}
    most = max(sizes)
    node = " on a node" * (loaded[0].nodes > 1)
    if not all(sizes):
        return f"each start loads its weights{node}, whose size is not known here"
    up_to = "up to " * (len(sizes) > 1)
    return (
        f"each start loads {up_to}{most / 1e9:.0f} GB of weights{node} "
        f"({text(most / DISK_BYTES_S)} at 1 GB/s{_of_all(most, len(plan.launches))}), after the "
        "download where there is one"
    )


def _of_all(most: int, servers: int) -> str:
    """`; 8 starts about 18 min`; empty of one."""
    return f"; {servers} starts {text(servers * most / DISK_BYTES_S)}" if servers > 1 else ""


def _loads_on_top(plan: Plan, servers: int) -> str:
    """What so many starts take to load their weights; empty where all are random."""
    if not _loading(plan):
        return ""
    most = max(weights.on_a_node(launch) for launch in plan.launches)
    at = f", {text(servers * most / DISK_BYTES_S)} at 1 GB/s" if most else ""
    return f", and loading the weights as often{at}"


def _installing(plan: Plan) -> str:
    """The environments that are made first; empty where all are there."""
    missing = {
        Path(one.python).parent.parent.name
        for one in plan.launches
        if not Path(one.python).exists()
    }
    sizes = [
        f"{name} ({environments.DISK_GB[name]:g} GB on disk)"
        for name in sorted(missing & environments.DISK_GB.keys())
    ]
    return f"once, {' and '.join(sizes)} is downloaded and installed" * bool(sizes)


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
    if least.rpartition(" ")[2] == most.rpartition(" ")[2] and " h " not in most:
        least = least.rpartition(" ")[0]
    return most if most.startswith(f"{least} ") else f"{least} to {most.removeprefix('about ')}"


def _span(pair: Sequence[int]) -> str:
    """`30 to 55`, of equal ones `4`."""
    return f"{pair[0]}" if pair[0] == pair[1] else f"{pair[0]} to {pair[1]}"


def text(duration_s: float) -> str:
    """`about 40 s`, `about 12 min`, `about 3 h 20 min`."""
    if duration_s < 90:
        return f"about {max(10, round(duration_s, -1)):.0f} s"
    hours, minutes = divmod(round(duration_s / 60), 60)
    return f"about {hours} h {minutes:02} min" if hours else f"about {minutes} min"
