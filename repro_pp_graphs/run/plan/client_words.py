"""The load client's words: of the pass that is measured, and of the load of the profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from repro_pp_graphs.run.folder import results
from repro_pp_graphs.run.memory import context
from repro_pp_graphs.run_record import Launch, Load, Plan

CONTROL = 5  # requests whose TTFT decode CUDA graphs cannot change
PROFILED_TOKENS = 4  # times those of the measured pass: the profile ends the load much earlier
PROFILED_S = 3600
# single prompts that are sent at a rate: so many times the most in flight, and no fewer
AT_RATE, LEAST_AT_RATE = 4, 32
ATTACHED_S = 300  # the same for a server that others may be using


def program(python: str, root: Path) -> list[str]:
    """The client as a command, with the prompts that it takes."""
    return [python, str(root / "client_benchmark.py"), *prompts(root)]


def prompts(root: Path) -> list[str]:
    """Its option for the prompts."""
    return ["--prompts", str(root / "prompts.txt")]


def measured(plan: Plan, launch: Launch, logs: Path, load: Load | None = None) -> list[str]:
    """Options of the unprofiled pass of a launch, whose numbers are reported; `load`: of a sweep,
    else the plan's."""
    label = plan.load_label(launch, load.name) if load else launch.label
    # on a server that has served another load its warm-up passes do
    again = load is not None and next(iter(launch.loads)) != load.name
    words = on_a_fresh_server(plan, launch, load or main(plan))
    if again:
        words[words.index("--warmup") + 1] = "0"
    return [*words, "--output", str(results.client_json(logs, label))]


def on_a_fresh_server(plan: Plan, launch: Launch, load: Load) -> list[str]:
    """Options of the unprofiled pass of a load where the server has served nothing yet."""
    words = ["--base-url", launch.base_url, *of_load(load), "--warmup", "1"]
    if load.rate:
        words += ["--num-prompts", str(max(LEAST_AT_RATE, AT_RATE * load.batch))]
    return [*words, "--warmup-passes", str(plan.warmup_passes), "--control", str(CONTROL)]


def main(plan: Plan) -> Load:
    """The load of a run without a sweep, and the main one of a sweep."""
    return plan.loads[0] if plan.loads else Load("", "", {}, plan.batch, plan.max_new_tokens)


def of_load(load: Load) -> list[str]:
    """What is sent, and how."""
    if load.rate:
        words = ["--request-rate", f"{load.rate:g}", "--concurrency", str(load.batch)]
    else:
        words = ["--batch", str(load.batch)]
    if load.input_len:
        words += ["--input-len", str(load.input_len)]
    if load.beside_len and load.beside_rate:
        words += ["--beside-input-len", str(load.beside_len)]
        words += ["--beside-rate", f"{load.beside_rate:g}"]
    return [*words, "--max-new-tokens", str(load.max_new_tokens)]


def profiled(plan: Plan, load: Load | None = None) -> list[str]:
    """Options of the load to profile any launch under, without its --base-url; `load`: of a sweep,
    else the main one."""
    load = load or main(plan)
    tokens = load.max_new_tokens * PROFILED_TOKENS
    tokens = context.answer_tokens(plan.launches, load, tokens)
    words = of_load(replace(load, max_new_tokens=tokens))
    return [*words, "--warmup", "0", "--duration", str(profiled_s(plan))]


def profiled_s(plan: Plan) -> int:
    """Seconds after which the load of a profile begins nothing more."""
    return ATTACHED_S if plan.attached else PROFILED_S
