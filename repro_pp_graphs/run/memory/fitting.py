"""What would make a load fit beside the weights: a share of the GPU, or a number of layers."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.machine.gpus import Gpu

# how layers are split, in general; a plan names what fits in its place
SPLITS = f"--pp-size, --tp-size, or {weights.PARTITION} in the argument file"
OTHER = f"another split ({SPLITS}), "
MORE_GPUS = "more GPUs"
MOST_LAYERS = 10_000  # of any model: a config.json that says more is wrong
_OVERRIDE = "--json-model-override-args"
# of a GPU's memory, that is free before the weights come: CUDA's contexts and NCCL's buffers take
# the rest; a value that is advised must do with less
_FREE = 0.97
_PROCESS_BYTES = 2e9  # of a GPU that ranks share, for each: its CUDA context, graphs and buffers


class Layers(NamedTuple):
    """Numbers of layers, each at least one a PP rank and no more than there are."""

    taken: set[int]  # that a plan takes
    roomy: set[int]  # of them with room for the whole load and what CUDA takes, as estimated


def fewer_layers(launch: Launch, layers: Layers | None) -> str:
    """`--dummy-weights --layers N or fewer`, without what is given already; without a number where
    how many fit is not known, empty where none do. Not all fewer fit where a release leaves what
    cannot be shared out to the last rank: 71 of 8 ranks are more on it than 72."""
    dummy = "--dummy-weights" * (launch.value("--load-format") != "dummy")
    if not layers or not layers.roomy:
        if weights.fraction_of(launch) is None or weights.tokens_in(launch, 1.0, 1) is None:
            return f"{dummy} with fewer --layers" if dummy else "fewer --layers"
        return ""
    most, roomiest = max(layers.taken), max(layers.roomy)
    all_fewer = layers.taken.issuperset(range(launch.pp_size, most))
    text = f"{dummy} --layers {most}{' or fewer' * all_fewer}".strip()
    if roomiest < most:
        room = f"{roomiest} leaves room for all prompts at once and what CUDA takes"
        text += f" ({room}; more may run out of memory)"
    return text


def remedies(launch: Launch, gpus: Sequence[Gpu], needed: int, tokens: int) -> str:
    """The values with which a KV cache of so many tokens fits, as estimated, as options in words;
    where none does, or its size is not known, without values. `needed`: those of one prompt."""
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
    found += filter(None, [fewer_layers(launch, layers_that_fit(launch, gpus, needed, tokens))])
    return f"{', '.join(found[:-1])}, or {found[-1]}"


def least_share(launch: Launch, gpus: Sequence[Gpu], tokens: int) -> float | None:
    """The least share of a GPU's memory, in hundredths, that holds weights and tokens; None where
    that is more than weights.MOST, or not known."""
    shares = [hundredth / 100 for hundredth in range(1, round(weights.MOST * 100) + 1)]

    def fits(share: float) -> bool:  # and then all larger ones do
        return _holds(_with(launch, weights.FRACTION, str(share)), gpus, tokens)

    return next(iter(shares[bisect_left(shares, True, key=fits) :]), None)


def layers_that_fit(
    launch: Launch, gpus: Sequence[Gpu], needed: int, tokens: int, ranks_per_gpu: int = 1
) -> Layers | None:
    """How many layers fit beside a KV cache of `needed` tokens, without which a plan is refused,
    and of `tokens`, those of the whole load; None where that is not known."""
    layers = weights.config_of(launch).get("num_hidden_layers")
    try:
        override = json.loads(launch.value(_OVERRIDE, "{}"))
    except ValueError:
        return None
    if not isinstance(layers, int) or layers > MOST_LAYERS or not isinstance(override, dict):
        return None
    taken, roomy = set(), set()
    for count in range(launch.pp_size, layers + 1):
        text = json.dumps({**override, "num_hidden_layers": count})
        fewer = _with(launch, _OVERRIDE, text)
        if is_taken(fewer, gpus, needed, ranks_per_gpu):
            taken.add(count)
            shared = ranks_per_gpu > 1
            if shared and _shared(fewer, gpus, tokens, ranks_per_gpu):
                roomy.add(count)
            if not shared and _holds(fewer, gpus, tokens):
                roomy.add(count)
    return Layers(taken, roomy)


def is_taken(launch: Launch, gpus: Sequence[Gpu], needed: int, ranks_per_gpu: int = 1) -> bool:
    """Whether a plan is not refused for its weights, nor for a KV cache of so many tokens."""
    total = sum(gpu.total_mib for gpu in gpus) * 2**20
    if weights.partition_fault(launch) or weights.on_a_node(launch) > weights.MOST * total > 0:
        return False
    if ranks_per_gpu > 1:
        return True
    return not weights.too_full(launch, gpus) and not lacks_room(launch, gpus, needed)


def lacks_room(launch: Launch, gpus: Sequence[Gpu], needed: int) -> bool:
    """Whether so many tokens do not fit beside the weights for certain, where each rank has a GPU
    of its own; False where that is not known exactly."""
    fraction = weights.fraction_of(launch)
    there = min((gpu.total_mib for gpu in gpus), default=0) * 2**20
    rank, need = weights.of_fullest(launch)
    if fraction is None or not there or not need or not weights.is_exact(launch, rank):
        return False
    left = fraction * there - need
    tokens = weights.tokens_in(launch, left, weights.split(launch)[rank])
    return left <= 0 or (tokens is not None and tokens < needed)


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
