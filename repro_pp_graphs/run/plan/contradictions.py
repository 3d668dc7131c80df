"""Options of run_repro.sh that do not go together, and what to do: a sentence each."""

from __future__ import annotations

import argparse
import shlex

from repro_pp_graphs.run.plan import sweep

# a server that others use: its ranks keep the events of a profile in memory until it ends, and
# thousands of steps have filled that of a machine
MOST_ATTACHED_STEPS = 200
# what is of this machine alone
ONE_NODE = ("nsys", "one_gpu", "ranks_per_gpu", "mps", "sockets", "profile_loads")
# what a server that is already running has settled, or what is for a series of launches
STARTING = {
    *(
        "--cases",
        "--rounds",
        "--aa",
        "--pp-size",
        "--tp-size",
        "--model",
        "--dummy-weights",
        "--layers",
    ),
    *("--port", "--engine", "--one-gpu", "--cpu", "--no-pp-clock", "--nsys", "--start-timeout"),
    *("--resume", "--gpus", "--release", "--nodes", "--srun", "--sends"),
    "--pin-cpus",
    *("--ranks-per-gpu", "--mps", "--sockets"),
}


def contradiction(values: argparse.Namespace, users: list[str], cases: str) -> str:
    """What of the options does not go together; empty where all does. `users`: the words that the
    user gave; `cases`: those that --sends runs where --cases names none. Where nodes are assumed
    with the GPUs, `values.allocated` becomes as many."""
    return (
        _beside_sends(values, cases)
        or _of_nodes(values)
        or _of_probe(values)
        or _of_sweep(values)
        or _of_attach(values, users)
    )


def _beside_sends(values: argparse.Namespace, cases: str) -> str:
    """What does not go with --sends blocking or both; empty where all does."""
    if values.sends == "as_released":
        return ""
    asked = f"--sends {values.sends}"
    if values.cases is not None:
        return f"{asked} names its cases itself ({cases}): leave it or --cases out"
    if values.aa and values.sends == "both":
        return f"{asked} compares four cases, --aa one with itself: leave one of the two out"
    if values.engine == "probe":
        both = "python -m repro_pp_graphs probe --send blocking,async"
        return f"{asked}: the probe itself has both: {both}"
    return ""


def _of_nodes(values: argparse.Namespace) -> str:
    """What of the options on nodes does not go together; empty where all does."""
    if values.dry_run and values.gpus and values.nodes:
        values.allocated = values.nodes  # assumed, as the GPUs are
    if (values.nodes or 1) > values.allocated:
        have = f"has {values.allocated}" if values.allocated > 1 else "is not one of several nodes"
        return (
            f"--nodes {values.nodes}: this Slurm allocation {have}: sbatch --nodes={values.nodes} "
            "run_repro.sbatch, or leave --nodes out (the plan alone: --dry-run --gpus N)"
        )
    if values.srun and (values.nodes or values.allocated) == 1:
        return "--srun is for servers on several nodes of a Slurm allocation: leave it out"
    try:
        shlex.split(values.srun)
    except ValueError as error:
        return f"--srun {values.srun}: {error}: close the quote"
    if (values.nodes or values.allocated) == 1 or values.attach:
        return ""
    alone = [name for name in ONE_NODE if getattr(values, name)]
    if values.engine == "probe" or alone:
        name = f"--{alone[0].replace('_', '-')}" if alone else "--engine probe"
        return f"{name} is for one node: leave it out, or take this node alone (--nodes 1)"
    return ""


def _of_probe(values: argparse.Namespace) -> str:
    """What the ring without sglang has no use for; empty where nothing is asked for."""
    names = (
        ("sweep", "mps", "sockets", "ranks_per_gpu", "tp_size") if values.engine == "probe" else ()
    )
    given = [f"--{name.replace('_', '-')}" for name in names if vars(values)[name]]
    return (
        f"{given[0]} is of sglang's servers, and the probe has none: leave one out" if given else ""
    )


def _of_sweep(values: argparse.Namespace) -> str:
    """What does not go together with a sweep, or without one; empty where all does."""
    if values.profile_loads and not values.sweep:
        return (
            "--profile-loads is for the loads of a --sweep; without one the load is profiled as it "
            "is: leave it out"
        )
    if values.profile_loads and (values.nsys or not values.profile):
        without = "--nsys" if values.nsys else "--no-profile"
        return f"--profile-loads and {without}: there is no profile: leave one of the two out"
    if not values.sweep:
        return ""
    if values.attach:
        return (
            "--sweep tells the server its micro-batch size between loads, and a server that others "
            "use is told nothing: one --batch at a time"
        )
    for axis, option in sweep.OPTIONS.items():
        given = vars(values)[option]
        if axis in values.sweep and given and str(given) not in values.sweep[axis]:
            name, all_of_it = f"--{option.replace('_', '-')}", ",".join(values.sweep[axis])
            return (
                f"{name} {given} is the main load of a sweep, and {axis}={all_of_it} lacks it: add "
                f"it there, or leave {name} out"
            )
    return ""


def _of_attach(values: argparse.Namespace, users: list[str]) -> str:
    """What does not go together with --attach, or without it; empty where all does."""
    if not values.attach:
        if values.trace_dir or values.yes:
            name = "--trace-dir" if values.trace_dir else "--yes"
            return f"{name} is for --attach http://HOST:PORT: add that, or leave it out"
        wrong = values.gpus and not values.dry_run
        return "--gpus is for --dry-run: a real run counts the GPUs that there are" * bool(wrong)
    if unfit := [word for word in users if word in STARTING]:
        return f"{unfit[0]} has no effect on a server that is already running: leave it out"
    if (values.profile_steps or 0) > MOST_ATTACHED_STEPS:
        return (
            f"--profile-steps {values.profile_steps}: a running server keeps what it records in "
            f"memory until then, and may die of it: {MOST_ATTACHED_STEPS} at most with --attach"
        )
    if not (values.yes or values.terminal or values.dry_run):
        return (
            "--attach: no terminal to ask on: --dry-run shows the load, --yes sends it without "
            "asking"
        )
    return ""
