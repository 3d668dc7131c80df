"""Whether the load fits into the KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from repro_pp_graphs.run.memory import fitting, weights
from repro_pp_graphs.run.plan.client_words import main
from repro_pp_graphs.run_record import Launch, Load, Plan
from repro_pp_graphs.server.machine.gpus import Gpu


def lacking(plan: Plan, launch: Launch, gpus: Sequence[Gpu]) -> str:
    """Why the load does not fit for certain, and what to do: no room for the cache, or less than
    one prompt with its answer; else empty. sglang cuts such an answer short.

    sglang's budget is the share FRACTION of what is free before the weights come, so never more
    than that share of a GPU; it ends where the weights leave nothing of it.
    """
    if plan.engine != "sglang" or plan.attached:
        return ""
    needed = of_a_prompt(plan)
    given = weights.most_tokens(launch)
    if given and given < needed:
        return (
            f"{weights.CAPACITY} {given}: one prompt with its answer takes {needed:,} tokens or "
            "more: raise it, or ask for fewer --max-new-tokens"
        )
    shared = plan.mode == "cpu" or plan.ranks_per_gpu > 1
    return "" if shared else _no_room(launch, gpus, needed, of_load(plan))


def of_a_prompt(plan: Plan) -> int:
    """Tokens of the largest prompt with its answer, at least."""
    return max(map(_of_a_prompt, _loads(plan)))


def of_load(plan: Plan) -> int:
    """Tokens that the largest load keeps in the KV cache, at least."""
    return max(map(_of_all, _loads(plan)))


def _no_room(launch: Launch, gpus: Sequence[Gpu], needed: int, all_needed: int) -> str:
    """Why so many tokens do not fit beside the weights, where these are known exactly; the remedy
    is for `all_needed`, those of the whole load."""
    fraction = weights.fraction_of(launch)
    if fraction is None or not fitting.lacks_room(launch, gpus, needed):
        return ""
    there = min(gpu.total_mib for gpu in gpus) * 2**20
    rank, need = weights.of_fullest(launch)
    left = fraction * there - need
    text = (
        f"{Path(launch.model).name}: about {need / 1e9:.1f} GB of weights on PP rank {rank}, the "
        f"fullest, and {weights.FRACTION} {fraction:g} of a GPU of {there / 1e9:.1f} GB is "
        f"{fraction * there / 1e9:.1f} GB: "
    )
    remedies = fitting.remedies(launch, gpus, needed, all_needed)
    if left <= 0:
        return f"{text}nothing is left for the KV cache: {remedies}"
    tokens = weights.tokens_in(launch, left, weights.split(launch)[rank]) or 0
    return (
        f"{text}about {weights.rounded(tokens)} tokens are left for the KV cache, and one prompt "
        f"with its answer takes {needed:,} or more: {remedies}"
    )


def queued(plan: Plan, gpus: Sequence[Gpu]) -> list[str]:
    """That not all prompts are served at once, where the cache is too small for it: a note for
    each way in which launches say so, with its cases."""
    if plan.engine != "sglang" or plan.attached:
        return []
    taken = weights.used(plan, gpus)
    cases: dict[tuple[str, str, int], dict[str, None]] = {}
    for launch in plan.launches:
        tokens = held(plan, launch, gpus)
        loads = [load for load in _loads(plan) if 0 < tokens < _of_all(load)]
        if loads and not lacking(plan, launch, taken):
            fit = tokens // max(map(_of_a_prompt, loads))
            key = (weights.rounded(tokens), _which(loads, bool(plan.loads)), fit)
            cases.setdefault(key, {})[launch.case] = None
    every = {launch.case for launch in plan.launches}
    return [
        f"{'' if set(its) == every else ', '.join(its) + ': '}the KV cache holds about {tokens} "
        f"tokens, too few for {which}: some wait until others have ended, and TTFT and the size of "
        f"a micro-batch are of that; ask for --batch {fit} or fewer, or fewer --max-new-tokens"
        for (tokens, which, fit), its in cases.items()
    ]


def held(plan: Plan, launch: Launch, gpus: Sequence[Gpu]) -> int:
    """About how many tokens a launch's KV cache holds; 0 where that is not known."""
    if plan.mode == "cpu" or plan.ranks_per_gpu > 1:
        return weights.most_tokens(launch)
    return weights.tokens_held(launch, weights.used(plan, gpus))


def _which(loads: list[Load], of_a_sweep: bool) -> str:
    """The prompts that do not fit, and what the largest load takes."""
    most = max(map(_of_all, loads))
    if of_a_sweep:
        titles = "; ".join(load.title for load in loads)
        return f"all prompts at once of {titles} (up to {most:,} tokens or more)"
    return f"{loads[0].batch} prompts at once, which take {most:,} or more"


def _loads(plan: Plan) -> list[Load]:
    return plan.loads or [main(plan)]


def _of_a_prompt(load: Load) -> int:
    """Tokens of one prompt with its answer, at least: how long a line of text is, is not known."""
    return (load.input_len or 1) + load.max_new_tokens


def _of_all(load: Load) -> int:
    return load.batch * _of_a_prompt(load)
