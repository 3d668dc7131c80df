"""What a run is about to do, in lines for the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.run import estimate
from repro_pp_graphs.run.checks import graph_sizes, kv_cache
from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server import shim_names
from repro_pp_graphs.server.case import argfile, flags
from repro_pp_graphs.server.machine import pinning
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.terminal import wrapped

BASE = "server_args_base.txt"
ISSUE_RELEASE = "0.5.2"  # of #10865: what is made here where GPUs are and no sglang is found
SAME = "one case under two labels: how far equal arms differ"
SOCKETS_TEXT = "NCCL over sockets in place of NVLink, in all cases: a stand-in for hosts apart"
MOST_SHOWN = 24  # launches
_GRAPHS = re.compile(r"--(disable-)?cuda-graph|--graphs ")  # an argument on graphs, of probe's too
MODE_TEXT = {
    "gpu": "one GPU a rank",
    "one_gpu": "{sharing}: order and waiting are real, durations are not",
    "cpu": "REHEARSAL on the CPU: the real server without CUDA graphs",
}


def lines(
    plan: Plan, options: Options, gpus: Sequence[Gpu] = (), *, goes_on: bool = False
) -> list[str]:
    """What the run is about to do, for the terminal; `gpus`: those that it may use; `goes_on`: with
    an earlier run, whose launches tell how long the others take."""
    first = plan.launches[0]
    spread = f" on {first.started_nodes} nodes" if first.started_nodes > 1 else ""
    server = (
        f"sglang {first.sglang_version}, pp {first.pp_size} x tp {first.tp_size}{spread}, model "
        f"{model_folder.called(first.model)}"
    )
    if plan.engine == "probe":
        server = f"the PP ring without sglang, {first.pp_size} ranks"
    if plan.attached:
        return [*_attached(plan, options), *_notes(plan)]
    load = f"batch {plan.batch} x {plan.max_new_tokens} new tokens"
    how = (
        MODE_TEXT[plan.mode]
        .format(sharing=plan.sharing)
        .replace("real server", "probe" if plan.engine == "probe" else "real server")
    )
    found = [
        *wrapped(how + _alike(plan) + _spare(plan), "  how:    "),
        *wrapped(server, f"  {plan.program + ':':<8}"),
        *wrapped(SOCKETS_TEXT if plan.sockets else "", "  network: "),
        *_in_place_of(plan, options),
        *wrapped(_found_by(plan, options), "  found:  "),
        *(line for text in weights.sentences(plan, gpus) for line in wrapped(text, "  memory: ")),
        f"  load:   {load}" + (f"; profile of {plan.profile_steps} steps" if plan.profile else ""),
        *_sweep(plan),
        *wrapped(_labels(plan), "  cases:  "),
        *_differences(plan),
        *_order(plan, anew=options.dry_run and not goes_on),
        *wrapped("" if goes_on else estimate.of_run(plan), "  time:   "),
        *wrapped(estimate.for_verdict(plan), "  verdict: "),
        *wrapped(SAME if plan.aa else "", "  A/A:    "),
        *wrapped(_pinning(plan), "  cores:  "),
        *wrapped(_timed(plan), "  clock:  "),
        *_leaves(plan, options),
    ]
    queued = [line for text in kv_cache.queued(plan, gpus) for line in wrapped(text, "  note:   ")]
    return found + queued + _notes(plan)


def _found_by(plan: Plan, options: Options) -> str:
    """Whose sglang runs, and where that was not made here how to get the release of #10865; empty
    where there is nothing to say."""
    first = plan.launches[0]
    if plan.engine != "sglang" or options.not_made or first.python != options.python:
        return ""
    made = next((part for part in Path(first.python).parts if part.startswith(".venv-")), "")
    if not options.found_by:
        return f"the sglang in {made}, made here" if made else ""
    text = f"the sglang in {options.python} ({options.found_by})"
    if plan.mode != "cpu" and first.sglang_version != ISSUE_RELEASE:
        place = " in place of --python" if options.found_by == "--python" else ""
        text += f"; --release {ISSUE_RELEASE}{place} takes the release that #10865 is of"
    return text


def _spare(plan: Plan) -> str:
    """That some of the GPUs stay idle, and what would use them; empty where all are used."""
    used, there = max(launch.ranks for launch in plan.launches), len(plan.gpu_used_mib)
    if plan.mode != "gpu" or there <= used:
        return ""
    return (
        f": {used} of {there} GPUs are used, the others stay idle (--pp-size N or "
        "--tp-size N: a GPU for each of pp x tp)"
    )


def _sweep(plan: Plan) -> list[str]:
    """The loads of a sweep."""
    if not plan.loads:
        return []
    titles = "; ".join(load.title for load in plan.loads)
    main, *others = (load.title for load in plan.loads)
    text = (
        f"{len(plan.loads)} loads on every server, in an order that is drawn for each round; the "
        f"main one, of which table and verdict are: {main}; the others: {'; '.join(others)}"
    )
    if len(plan.loads) == 1:
        text = f"one load on every server: {titles}"
    more = ", ".join(plan.load(name).title for name in plan.profile_loads)
    too = f"in the first launch of each case the profile under the main load, then {more}"
    return [*wrapped(text, "  sweep:  "), *wrapped(too if more else "", "  traces: ")]


def _pinning(plan: Plan) -> str:
    if plan.pin_cpus == pinning.AUTO:
        return "each rank is pinned to cores of its own, near its GPU (--pin-cpus auto)"
    return f"the ranks are pinned to {plan.pin_cpus} (--pin-cpus)" if plan.pin_cpus else ""


def _timed(plan: Plan) -> str:
    """That the servers are changed to time their waits, as by default; empty where they are not."""
    if not any("pp_clock" in shim_names.names_in(launch.env) for launch in plan.launches):
        return ""
    return "the waits of every turn are timed in the server (shim pp_clock; --no-pp-clock)"


def _labels(plan: Plan) -> str:
    """Every launch in its order; of many the first ones."""
    labels = [launch.label for launch in plan.launches]
    more = len(labels) - MOST_SHOWN
    return ", ".join(labels[:MOST_SHOWN]) + (f", ... ({more} more)" if more > 0 else "")


def _leaves(plan: Plan, options: Options) -> list[str]:
    folders = [f"{options.out}/logs"] + [f"{options.out}/trace"] * (plan.profile or plan.nsys)
    return wrapped(", ".join(folders), "  leaves: ")


def _notes(plan: Plan) -> list[str]:
    return [line for note in notes(plan) for line in wrapped(note, "  note:   ")]


def _attached(plan: Plan, options: Options) -> list[str]:
    """Of a server that is already running: what it is, and all that will be sent to it."""
    launch = plan.launches[0]
    server = (
        f"sglang {launch.sglang_version}, pp {launch.pp_size} x tp {launch.tp_size}, "
        f"{model_folder.called(launch.model)}, at {launch.base_url} "
        f"({launch.attached.where if launch.attached else ''})"
    )
    passes = 2 + plan.warmup_passes  # the first one, and the measured one
    load = (
        f"{plan.batch} prompts at once, {plan.max_new_tokens} new tokens each, up to {passes} "
        f"times; then {client_words.CONTROL + 1} single prompts of one token"
    )
    if plan.profile:
        load += (
            f"; then the first again under the profiler, until {plan.profile_steps} steps are "
            f"traced, {client_words.profiled_s(plan) // 60} minutes at most: the server is slower "
            "meanwhile"
        )
    return [
        *wrapped("a server that is already running: nothing is started or ended", "  how:    "),
        *wrapped(server, "  server: "),
        *wrapped(load, "  load:   "),
        *_leaves(plan, options),
    ]


def _in_place_of(plan: Plan, options: Options) -> list[str]:
    """What a rehearsal on the CPU leaves aside of server_args_base.txt, and how to see its plan."""
    chosen = options.model and (options.pp_size or options.tp_size)  # by who runs it, who knows
    if plan.mode != "cpu" or plan.engine != "sglang" or chosen:
        return []
    base, first = argfile.load(options.root / BASE), plan.launches[0]
    asked = (base.get_int("--pp-size", 1), base.get_int("--tp-size", 1))
    if base.get("--model-path") == first.model and asked == (first.pp_size, first.tp_size):
        return []
    pp_size, tp_size = asked
    text = (
        f"in place of {base.get('--model-path')}, pp {pp_size} x tp {tp_size} ({BASE}); "
        f"the plan for GPUs: --dry-run --gpus {pp_size * tp_size}"
    )
    return wrapped(text, "          ")


def notes(plan: Plan) -> list[str]:
    """Each note once, with the cases it is of where it is not of all."""
    cases = dict.fromkeys(launch.case for launch in plan.launches)
    by_text: dict[str, dict[str, None]] = {}
    for launch in plan.launches:
        limits = launch.attached.limits if launch.attached else []
        for text in [*launch.notes, *launch.caveats, *limits]:
            by_text.setdefault(text, {})[launch.case] = None
    return [
        text if len(its) == len(cases) else f"{', '.join(its)}: {text}"
        for text, its in by_text.items()
    ]


def _order(plan: Plan, anew: bool) -> list[str]:
    """How the launches are ordered, where that was drawn; `anew`: a real run draws again."""
    if plan.rounds == 1 or plan.order_seed is None:
        return []
    blocks = max(launch.block for launch in plan.launches)
    text = f"{blocks} balanced blocks" if blocks > 1 else "a balanced block"
    text += ": which case begins is drawn"
    if plan.looks[0].rounds == 1:
        text += " (not for the first round, whose cases run as given)"
    text += "; a real run draws anew" if anew else ""
    ahead = [look.rounds for look in plan.looks if look.rounds > plan.rounds]
    if ahead:
        text += f"; then a look, before {ahead[0] - plan.rounds} more rounds"
    return wrapped(text, "  order:  ")


def _own(launch: Launch) -> list[str]:
    """Its arguments, but for the names of its files, and each of its shims."""
    named = [f"shim {name}" for name in shim_names.names_in(launch.env)]
    others = [text for text in launch.arguments if not text.startswith(f"{shim_names.ENV_NAME}=")]
    files = re.compile(rf"/{re.escape(launch.label)}(_|$)")
    return [text for text in others if not files.search(text)] + named


def _differences(plan: Plan) -> list[str]:
    """How each further case differs from the first of --cases, whichever runs first: cases build on
    base, not on one another."""
    first, *others = plan.firsts
    ours, found = _own(first), []
    for other in others:
        theirs = _own(other)
        lacks = graph_sizes.of_use([text for text in ours if text not in theirs], other)
        parts = [
            ("runs", _interpreter(first, other)),
            ("adds", [_as_written(text, other) for text in theirs if text not in ours]),
            ("lacks", [_as_written(text, first) for text in lacks]),
        ]
        text = "; ".join(f"{word} {', '.join(its)}" for word, its in parts if its)
        said = f"{other.label}, against {first.label}: {text or 'nothing'}"
        found += wrapped(said, "  differ: ")
    return found


def _as_written(text: str, launch: Launch) -> str:
    """An argument with its name in the case's files, where the release has another for it."""
    files = (flags.renamed(note) for note in launch.notes)
    names = dict(pair for pair in files if pair)
    old = names.get(text.partition(" ")[0])
    return f"{text} ({old} in {launch.case}'s argument files)" if old else text


def _alike(plan: Plan) -> str:
    """Which cases of a rehearsal are the same, as they differ in nothing but arguments on graphs,
    which a CPU does not have; empty where none are."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for launch in plan.firsts if plan.mode == "cpu" else ():
        rest = sorted(text for text in _own(launch) if not _GRAPHS.match(text))
        key = (launch.sglang_version, launch.python, *rest)
        groups.setdefault(key, []).append(launch.label)
    same = [labels for labels in groups.values() if len(labels) > 1]
    if not same:
        return ""
    if len(groups) == 1:
        return f": {'both' if len(same[0]) == 2 else 'all'} cases are the same"
    return ": " + "; ".join(f"{', '.join(labels)} are the same" for labels in same)


def _interpreter(first: Launch, other: Launch) -> list[str]:
    """The other case's sglang, where it is not the first one's."""
    if other.sglang_version != first.sglang_version:
        return [f"sglang {other.sglang_version}"]
    return [f"in {other.python}"] * (other.python != first.python)
