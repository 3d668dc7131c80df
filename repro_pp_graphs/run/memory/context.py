"""How many tokens a prompt may have together with its answer: the model's context."""

from __future__ import annotations

from collections.abc import Sequence

from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch, Load

# what sglang takes before max_position_embeddings, where a config.json has it
_OTHER_KEYS = ("max_sequence_length", "seq_length", "max_seq_len", "model_max_length")
SPARE = 64  # tokens around a synthetic prompt, and what words of it may have more than one of


def length(launch: Launch) -> int:
    """--context-length, else what sglang takes of the config.json (get_context_length in its
    hf_transformers utilities, 0.5.21); 0 where that is not known."""
    given = launch.value("--context-length")
    if given.isdecimal():
        return int(given)
    config = weights.config_of(launch)
    found, scaling = config.get("max_position_embeddings"), config.get("rope_scaling") or {}
    if not isinstance(found, int) or any(config.get(key) is not None for key in _OTHER_KEYS):
        return 0
    if not isinstance(scaling, dict):
        return 0
    counted = "original_max_position_embeddings" in scaling or scaling.get("rope_type") == "llama3"
    factor = 1 if counted else scaling.get("factor", 1)
    return int(found * factor) if isinstance(factor, int | float) else 0


def shortest(launches: Sequence[Launch]) -> int:
    """That of the launch which has least; 0 where none is known."""
    return min(filter(None, map(length, launches)), default=0)


def lacking(launch: Launch, loads: Sequence[Load]) -> str:
    """That the server refuses the prompts of a load, as they are too long for it together with
    their answers, and what to do; else empty. Of a model on the hub a name alone does not say it:
    one that is made of another may have a longer context."""
    context = length(launch)
    sure = launch.model.startswith("/") or launch.value("--context-length").isdecimal()
    if not context or not sure or "--allow-auto-truncate" in launch.args:
        return ""
    for load in loads:
        needed = (load.input_len or 1) + load.max_new_tokens
        if needed > context:
            room = context - load.max_new_tokens - SPARE
            shorter = f"--sweep input_len={room} or less, or " * (bool(load.input_len) and room > 0)
            return (
                f"a prompt of {load.input_len or 1:,} tokens with {load.max_new_tokens:,} new ones "
                f"is {needed:,}, and the context of {launch.model.rpartition('/')[2]} is "
                f"{context:,}: {shorter}fewer --max-new-tokens"
            )
    return ""


def answer_tokens(launches: Sequence[Launch], load: Load, wanted: int) -> int:
    """So many new tokens a prompt as are wanted, or as the context has room for; those of the load
    at least. Of lines of prompts.txt a quarter of the context is taken to be theirs."""
    context = shortest(launches)
    if not context:
        return wanted
    room = context - load.input_len - SPARE if load.input_len else context * 3 // 4
    return max(load.max_new_tokens, min(wanted, room))
