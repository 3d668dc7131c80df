"""What would make a load fit beside the weights: a share of the GPU, or a number of layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from repro_pp_graphs.record import Launch
from repro_pp_graphs.run import weights
from repro_pp_graphs.server.gpus import Gpu

_OVERRIDE = "--json-model-override-args"
# of a GPU's memory, that is free before the weights come: CUDA's contexts and NCCL's buffers take
# the rest; a value that is advised must do with less
_FREE = 0.97


def remedies(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> str:
    """The values with which a KV cache of so many tokens fits, as estimated, as options in words;
    where none does, or its size is not known, without values."""
    found = []
    if weights.fraction_of(launch) is not None:
        known = weights.tokens_in(launch, 1.0, 1) is not None
        if share := least_share(launch, gpus, tokens):
            found.append(f"{weights.FRACTION} {share:g} or more")
        elif not known:
            found.append("a larger share")
    layers = most_layers(launch, gpus, tokens)
    dummy = (
        f"--dummy-weights --layers {layers} or fewer" if layers else "--dummy-weights --layers N"
    )
    split = f"another split (--pp-size, --tensor-parallel-size or {weights.PARTITION} in the "
    return ", ".join([*found, f"{split}argument file)", "a smaller --model", f"or {dummy}"])


def least_share(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> float | None:
    """The least share of a GPU's memory, in hundredths, that holds weights and tokens; None where
    that is more than weights.MOST, or not known."""
    shares = [hundredth / 100 for hundredth in range(1, round(weights.MOST * 100) + 1)]
    fit = (one for one in shares if _holds(_with(launch, weights.FRACTION, str(one)), gpus, tokens))
    return next(fit, None)


def most_layers(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> int | None:
    """The most layers, at least one a PP rank and no more than there are, of which weights and
    tokens fit into the share that the launch asks for; None where none do, or it is not known."""
    config = weights.config_of(launch)
    layers = config.get("num_hidden_layers")
    values = dict(zip(launch.args, launch.args[1:], strict=False))
    try:
        override = json.loads(values.get(_OVERRIDE, "{}"))
    except ValueError:
        return None
    if not isinstance(layers, int) or not isinstance(override, dict):
        return None
    for fewer in range(layers, launch.pp_size - 1, -1):
        text = json.dumps({**override, "num_hidden_layers": fewer})
        if _holds(_with(launch, _OVERRIDE, text), gpus, tokens):
            return fewer
    return None


def _with(launch: Launch, option: str, value: str) -> Launch:
    return replace(launch, args=[*launch.args, option, value])


def _holds(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> bool:
    """Whether weights and tokens fit where each rank has a GPU; False where that is not known."""
    share = weights.fraction_of(launch)
    there = _FREE * min((gpu.total_mib for gpu in gpus), default=0) * 2**20
    _, need = weights.of_fullest(launch)
    if share is None or not need or share * there <= need:
        return False
    held = weights.tokens_in(launch, share * there - need, max(weights.split(launch)))
    return held is not None and held >= tokens
