"""The bash script that starts a launch's server, or the probe: logs/<label>_server_command.sh."""

from __future__ import annotations

import shlex
from pathlib import Path

from repro_pp_graphs.pp_clock.rows import CLOCK, NUMBERS_ENV, PREFIX_ENV
from repro_pp_graphs.run.plan.options import Options
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server import shim_names

_ROWS = "# Each rank keeps the times of its turns beside this file (*.rows, 50 MB)."


def command_script(
    launch: Launch, program: str, root: Path, nsys_output: Path | None, profile: bool = True
) -> str:
    """A bash script that starts this launch's program (server or probe); what a person can run by
    hand, with more arguments at the end."""
    head = f"# The {program} of {launch.label}, as run_repro.sh starts it; Ctrl-C ends it."
    clocked = "pp_clock" in shim_names.names_in(launch.env)
    lines = ["#!/usr/bin/env bash", head, *([_ROWS] if clocked else [])]
    lines += [f"export {name}={shlex.quote(value)}" for name, value in launch.env.items()]
    if launch.env.get(shim_names.ENV_NAME):
        lines.append(f'export PYTHONPATH={shlex.quote(str(root))}"${{PYTHONPATH:+:$PYTHONPATH}}"')
    if clocked:
        lines.append('here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) # a folder may move')
        lines.append(f'export {PREFIX_ENV}="$here"/{shlex.quote(launch.label + CLOCK)}')
        if not profile:
            lines.append(f"export {NUMBERS_ENV}=${{{NUMBERS_ENV}:-0}} # only a profile needs them")
    words = launch.argv
    if nsys_output:
        words = [*_nsys(nsys_output), *words]
    return "\n".join([*lines, f'exec {shell_words(words)} "$@"', ""])


def _nsys(output: Path) -> list[str]:
    # NCCL's own ranges are NVTX; graph nodes one by one; the ranks are child processes
    return [
        "nsys",
        "profile",
        f"--output={output}",
        "--trace=cuda,nvtx,osrt",
        "--cuda-graph-trace=node",
        "--trace-fork-before-exec=true",
        "--force-overwrite=true",
    ]


def shell_words(words: list[str]) -> str:
    """Shell words, one `--argument value` a line."""
    text = ""
    for number, word in enumerate(words):
        gap = "" if number == 0 else " \\\n  " if word.startswith("--") else " "
        text += gap + shlex.quote(word)
    return text


def script_of(launch: Launch, plan: Plan, options: Options) -> str:
    """The bash script that starts a launch's server, or the probe."""
    nsys_output = options.out / "trace" / launch.label if plan.nsys else None
    return command_script(launch, plan.program, options.root, nsys_output, plan.profile)
