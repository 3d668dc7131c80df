"""What --dry-run prints after the overview: every command and every file of a run."""

from __future__ import annotations

import json
from collections.abc import Collection

from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run.plan.server_script import script_of, shell_words
from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server.release.release_facts import MICRO_BATCH


def lines(plan: Plan, options: Options, kept: Collection[str] = ()) -> list[str]:
    """Every command and every file of a run, as they would be; `kept`: the labels of launches that
    are measured already."""
    lines = []
    shown: list[Launch] = []
    for launch in plan.launches:
        label = launch.label
        if label in kept:
            lines += [f"# {label}: measured already, is kept", ""]
            continue
        same = [one for one in shown if (one.argv, one.env) == (launch.argv, launch.env)]
        if same:
            lines += [f"# {label}: as {same[0].label}, with files of its own", ""]
            continue
        shown.append(launch)
        if launch.attached:
            lines += [*_attached_commands(plan, launch, options), ""]
            continue
        lines += [f"# {label}", *script_of(launch, plan, options).splitlines()[2:]]
        if launch.started_nodes > 1:
            each = "on each node by srun, with --node-rank N --dist-init-addr HEAD:PORT behind it"
            lines.append(f"# {each}")
        if plan.engine == "sglang":
            lines += ["# then, once /health answers:", *_client_commands(plan, launch, options)]
            if plan.profile:
                lines.append("# then the load that is profiled, ended once the traces are whole:")
                lines.append(_profiled_load(plan, launch, options))
        lines.append("")
    lines.append("# files")
    for launch in plan.launches:
        lines += [f"{options.out}/{name}" for name in results.of_launch(launch, plan)]
    return lines + [f"{options.out}/{name}" for name in results.of_run(plan)]


def _attached_commands(plan: Plan, launch: Launch, options: Options) -> list[str]:
    """What is sent to a server that is already running, as commands."""
    lines = [f"# {launch.label}", client_command(plan, launch, options)]
    if not plan.profile or not launch.attached:
        return lines
    body = {"num_steps": plan.profile_steps, "activities": ["CPU", "GPU"]}
    if launch.attached.output_dir:
        body["output_dir"] = launch.attached.output_dir
    ask = ["curl", "-X", "POST", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
    return [
        *lines,
        "# then, meanwhile a profile is asked for:",
        _profiled_load(plan, launch, options),
        shell_words([*ask, f"{launch.base_url}/start_profile"]),
    ]


def _profiled_load(plan: Plan, launch: Launch, options: Options) -> str:
    words = client_words.program(options.python, options.root) + client_words.profiled(plan)
    return shell_words([*words, "--base-url", launch.base_url])


def client_command(plan: Plan, launch: Launch, options: Options, load: Load | None = None) -> str:
    """The measuring client's command; measure_step runs it with these words."""
    words = client_words.program(options.python, options.root)
    return shell_words(words + client_words.measured(plan, launch, options.out / "logs", load))


def _client_commands(plan: Plan, launch: Launch, options: Options) -> list[str]:
    """The same of every load of a sweep in order, each after what the server is told."""
    if not launch.loads:
        return [client_command(plan, launch, options)]
    lines = []
    for name, size in launch.loads.items():
        if size:
            named = (name for name in MICRO_BATCH if f"--{name.replace('_', '-')}" in launch.args)
            body = json.dumps({"server_args": {next(named, MICRO_BATCH[0]): size}})
            ask = ["curl", "-X", "POST", "-H", "Content-Type: application/json", "-d", body]
            lines.append(shell_words([*ask, f"{launch.base_url}/set_internal_state"]))
        lines.append(client_command(plan, launch, options, plan.load(name)))
    return lines
