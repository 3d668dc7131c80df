"""What would make a load fit beside the weights: a share of the GPU, or a number of layers."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.machine.gpus import Gpu

# how layers are split, in general; a plan names what fits in its place
SPLITS = f"--pp-size, --tp-size, or {weights.PARTITION} in the argument file"
OTHER = f"another split ({SPLITS}), "
MORE_GPUS = "more GPUs"
_OVERRIDE = "--json-model-override-args"
# of a GPU's memory, that is free before the weights come: CUDA's contexts and NCCL's buffers take
# the rest; a value that is advised must do with less
_FREE = 0.97
_PROCESS_BYTES = 2e9  # of a GPU that ranks share, for each: its CUDA context, graphs and buffers


def fewer_layers(launch: Launch, layers: int | None) -> str:
    """`--dummy-weights --layers N or fewer`, without what is given already; without a number where
    how many fit is not known, empty where not even one a rank does."""
    dummy = "--dummy-weights" * (launch.value("--load-format") != "dummy")
    if layers:
        return f"{dummy} --layers {layers} or fewer".strip()
    if weights.fraction_of(launch) is None or weights.tokens_in(launch, 1.0, 1) is None:
        return f"{dummy} with fewer --layers" if dummy else "fewer --layers"
    return ""


def remedies(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> str:
    """The values with which a KV cache of so many tokens fits, as estimated, as options in words;
    where none does, or its size is not known, without values."""
    found = []
    if weights.fraction_of(launch) is not None:
        known = weights.tokens_in(launch, 1.0, 1) is not None
        if share := least_share(launch, gpus, tokens):
            found.append(
                f"a higher {weights.FRACTION} in server_args_base.txt ({share:g} leaves room for "
                "what CUDA takes)"
            )
        elif not known:
            found.append("a larger share")
    found += [OTHER.removesuffix(", "), "a smaller --model"]
    found += filter(None, [fewer_layers(launch, most_layers(launch, gpus, tokens))])
    return f"{', '.join(found[:-1])}, or {found[-1]}"


def least_share(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> float | None:
    """The least share of a GPU's memory, in hundredths, that holds weights and tokens; None where
    that is more than weights.MOST, or not known."""
    shares = [hundredth / 100 for hundredth in range(1, round(weights.MOST * 100) + 1)]

    def fits(share: float) -> bool:  # and then all larger ones do
        return _holds(_with(launch, weights.FRACTION, str(share)), gpus, tokens)

    return next(iter(shares[bisect_left(shares, True, key=fits) :]), None)


def most_layers(
    launch: Launch, gpus: Sequence[Gpu], tokens: int, ranks_per_gpu: int = 1
) -> int | None:
    """The most layers, at least one a PP rank and no more than there are, of which weights and
    tokens fit into the share that the launch asks for; None where none do, or it is not known."""
    config = weights.config_of(launch)
    layers = config.get("num_hidden_layers")
    try:
        override = json.loads(launch.value(_OVERRIDE, "{}"))
    except ValueError:
        return None
    if not isinstance(layers, int) or not isinstance(override, dict):
        return None
    for fewer in range(layers, launch.pp_size - 1, -1):
        text = json.dumps({**override, "num_hidden_layers": fewer})
        fitted = _with(launch, _OVERRIDE, text)
        if ranks_per_gpu > 1 and _shared(fitted, gpus, tokens, ranks_per_gpu):
            return fewer
        if ranks_per_gpu <= 1 and _holds(fitted, gpus, tokens):
            return fewer
    return None


def is_roomy(launch: Launch, gpus: Sequence[Gpu], tokens: int, ranks_per_gpu: int) -> bool:
    """Whether weights and a KV cache of so many tokens fit, as estimated, also where ranks share
    GPUs; True where the size is not known here. `gpus`: those that ranks take."""
    if not weights.on_a_node(launch) or weights.fraction_of(launch) is None:
        return True
    if ranks_per_gpu <= 1:
        return weights.tokens_in(launch, 1.0, 1) is None or _holds(launch, gpus, tokens)
    return _shared(launch, gpus, tokens, ranks_per_gpu)


def _shared(launch: Launch, gpus: Sequence[Gpu], tokens: int, ranks_per_gpu: int) -> bool:
    """The same of ranks that share GPUs: their weights, caches as large as an argument says, and
    what each process takes besides."""
    share = weights.fraction_of(launch) or 0.0
    there = _FREE * share * min((gpu.total_mib for gpu in gpus), default=0) * 2**20
    cache = weights.cache_on_a_node(launch, weights.most_tokens(launch) or tokens)
    on_a_gpu = (weights.on_a_node(launch) + cache) / max(1, len(gpus))
    return on_a_gpu + ranks_per_gpu * _PROCESS_BYTES <= there


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
