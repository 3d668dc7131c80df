"""The load client's words: of the pass that is measured, and of the load of the profile."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.record import Launch, Plan
from repro_pp_graphs.run import results

CONTROL = 5  # requests whose TTFT decode CUDA graphs cannot change
PROFILED_TOKENS = 4  # times those of the measured pass: the profile ends the load much earlier
PROFILED_S = 3600
ATTACHED_S = 300  # the same for a server that others may be using


def program(python: str, root: Path) -> list[str]:
    """The client as a command, with the prompts that it takes."""
    return [python, str(root / "client_benchmark.py"), *prompts(root)]


def prompts(root: Path) -> list[str]:
    """Its option for the prompts."""
    return ["--prompts", str(root / "prompts.txt")]


def measured(plan: Plan, launch: Launch, logs: Path) -> list[str]:
    """Options of the unprofiled pass of a launch, whose numbers are reported."""
    words = ["--base-url", launch.base_url, "--batch", str(plan.batch)]
    words += ["--max-new-tokens", str(plan.max_new_tokens), "--warmup", "1"]
    words += ["--warmup-passes", str(plan.warmup_passes), "--control", str(CONTROL)]
    return [*words, "--output", str(results.client_json(logs, launch.label))]


def profiled(plan: Plan) -> list[str]:
    """Options of the load to profile any launch under, without its --base-url."""
    tokens = plan.max_new_tokens * PROFILED_TOKENS
    words = ["--batch", str(plan.batch), "--max-new-tokens", str(tokens)]
    return [*words, "--warmup", "0", "--duration", str(profiled_s(plan))]


def profiled_s(plan: Plan) -> int:
    """Seconds after which the load of a profile begins nothing more."""
    return ATTACHED_S if plan.attached else PROFILED_S
