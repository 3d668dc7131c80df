"""The commands of a run as anyone can run them: plain sglang, and what the harness changes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from repro_pp_graphs.models import folder as models
from repro_pp_graphs.run.plan import client_words
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server import shim_names

OWN_MODULE = "repro_pp_graphs.server.launch"  # sglang.launch_server with shims
WIDE = 78
# What a shim changes in the server, beside the reason for it (shim_names.REASONS).
CHANGES = {
    "cpu": "sglang runs without its CUDA kernel package: a rehearsal, nothing to repeat on GPUs",
    "one_gpu": "ranks share GPUs",
    "trace_rank": "the PP rank is in the names of trace files, which this release leaves out; "
    "without it ranks overwrite one another's traces, the serving is the same",
    "keep_profilers": "a profiler that has finished is kept, since freeing it can crash; the "
    "serving is the same",
    "even_router": "with dummy weights the bias of the router's choice is 0; without the shim all "
    "tokens choose the same experts, of which a batch then reads far fewer",
    "sync_send": "PP sends hold the host, in the order of sglang 0.5.2: without the shim there is "
    "no such case",
    "event_send": "PP sends hold the host as with sync_send, but wait on CUDA events: without the "
    "shim there is no such case",
    "comm_stream": "PP sends have a CUDA stream of their own: from 0.5.21 on "
    "SGLANG_PP_COMM_OVERLAP=1 is that",
    "batched_p2p": "a turn's PP sends and receives go in one batch_isend_irecv: without the shim "
    "there is no such case",
    "pp_clock": "sends, receives and waits of a turn are timed; the serving is the same",
}


def fenced(text: str, language: str) -> list[str]:
    """A block of code in Markdown, its fence longer than any inside."""
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return [f"{fence}{language}", *text.rstrip("\n").splitlines(), fence]


def folded(words: list[str]) -> str:
    """A command over several lines: an option and its value stay together."""
    lines, line = [], ""
    for word in words:
        quoted = shlex.quote(word)
        begins = word.startswith("-") and line
        if begins and len(line) + len(quoted) > WIDE - 20:
            lines.append(line)
            line = "  " + quoted
        else:
            line = f"{line} {quoted}".strip() if not line.startswith("  ") else f"{line} {quoted}"
    return " \\\n".join([*lines, line])


def server(launch: Launch) -> str:
    """A case's server as plain sglang starts it, its variables in front."""
    variables = [f"{k}={shlex.quote(v)}" for k, v in launch.env.items() if k != shim_names.ENV_NAME]
    module = "sglang.launch_server" if OWN_MODULE in launch.argv else _module(launch)
    command = folded(["python", "-m", module, *map(_portable, launch.args)])
    return " \\\n".join([*variables, command])


def _module(launch: Launch) -> str:
    """The module that a launch runs: what follows -m."""
    at = launch.argv.index("-m") + 1 if "-m" in launch.argv else 0
    return launch.argv[at] if 0 < at < len(launch.argv) else "sglang.launch_server"


def _portable(argument: str) -> str:
    """A model folder that the harness made, without the path that it has on this machine."""
    path = Path(argument)
    return path.name if ".state" in path.parts else argument


def changes(launch: Launch) -> list[str]:
    """What the launch's shims change in plain sglang, a sentence each."""
    return [
        f"`{name}`: {CHANGES.get(name, shim_names.REASONS.get(name, 'see its file'))}"
        for name in shim_names.names_in(launch.env)
    ]


def model(plan: Plan) -> str:
    """What the model is, where its path says nothing to anyone else; empty otherwise."""
    path = Path(plan.launches[0].model)
    if ".state" not in path.parts or models.shape_of(path.name) is None:
        return ""
    config = f"repro_pp_graphs/models/{models.shape_of(path.name)}.json"
    return (
        f"`{path.name}` is a folder with {config} as its config.json, a made-up tokenizer of "
        "bytes and no weights (`--load-format dummy`): any model of that shape will do."
    )


def set_anew(plan: Plan) -> str:
    """Of a sweep: the size of micro-batches that the server was told before each load, as it was
    started with that of the largest; empty where it was told none."""
    sizes = plan.launches[0].loads
    told = [f"{plan.load(name).title}: {size}" for name, size in sizes.items() if size]
    if not told:
        return ""
    return (
        "The server is started for the largest load. Before each load it was told its size of "
        f"micro-batches by POST /set_internal_state ({'; '.join(told)}; the requests: run_repro.sh "
        "--dry-run)."
    )


def client(plan: Plan) -> str:
    """The measured pass as run_repro.sh sends it, of a sweep that of its main load."""
    words = client_words.on_a_fresh_server(plan, plan.launches[0], client_words.main(plan))
    return folded(["python", "client_benchmark.py", *words])


def bench_serving(plan: Plan, prompt_tokens: float | None) -> str:
    """About the same load from sglang's own client: as many prompts at once, as long in the mean
    (100 tokens where that is not known), as many new tokens."""
    launch = plan.launches[0]
    words = ["python", "-m", "sglang.bench_serving", "--backend", "sglang"]
    words += ["--host", launch.host, "--port", str(launch.port)]
    words += ["--dataset-name", "random-ids", "--random-range-ratio", "1"]
    words += ["--random-input-len", str(round(prompt_tokens or 100))]
    words += ["--random-output-len", str(plan.max_new_tokens)]
    words += ["--num-prompts", str(plan.batch), "--max-concurrency", str(plan.batch)]
    return folded(words)
