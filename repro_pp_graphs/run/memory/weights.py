"""The GPU memory that a launch's weights take, and whether there is as much."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from repro_pp_graphs.models import folder as model_folder
from repro_pp_graphs.models import size
from repro_pp_graphs.run_record import Launch, Plan
from repro_pp_graphs.server.case.argfile import ServerArgs
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release.installed import version_numbers
from repro_pp_graphs.server.release.release_facts import layers_by_rank

_QUANTISED = re.compile(r"awq|gptq|gguf|quantized|fp8|mxfp4|nvfp4|int[48]|w\da\d|[48]bit", re.I)
FRACTION = "--mem-fraction-static"  # of a GPU's memory, for weights and KV cache
CAPACITY = "--max-total-tokens"  # of the KV cache, at most
_OTHER_VALUES = "--kv-cache-dtype"  # of another size than the two bytes that are counted
# whose weights size.py counts, and of them those with a head on every PP rank in all releases
_HEADS_EVERYWHERE = ("LlamaForCausalLM", "MixtralForCausalLM")
_EXACT = (*_HEADS_EVERYWHERE, "DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
_SHRINKS = re.compile("offload|quant|torchao|^--kt-|gguf|bitsandbytes")  # an argument that does so
PARTITION = "SGLANG_PP_LAYER_PARTITION"  # layers of each PP rank: 20,20,21
LONGEST_SHOWN = 40  # characters of a wrong value
MOST = 0.95  # of a GPU's memory, that weights can take


def config_of(launch: Launch) -> dict[str, Any]:
    """The model's config.json under the arguments' overrides; empty where it is not at hand."""
    return config_at(launch.model, launch.value("--json-model-override-args", "{}"))


def config_at(model: str, override: str) -> dict[str, Any]:
    """The same of a folder or a hub name, and what overrides it."""
    path = Path(model, "config.json")
    if path.is_file():
        text = path.read_text("utf-8")
    elif shape := model_folder.shape_of(model):
        text = model_folder.config_text(shape)
    else:
        return {}
    return dict(_config(text, override))


def chooses_by_bias(args: ServerArgs) -> bool:
    """Whether the model's router adds a bias to the scores of its experts (DeepSeek-V3)."""
    override = args.get("--json-model-override-args", "{}")
    return config_at(args.get("--model-path"), override).get("topk_method") == "noaux_tc"


@lru_cache(maxsize=64)  # a plan that is refused is tried with hundreds of other options
def _config(text: str, override: str) -> dict[str, Any]:
    """A config.json under what overrides it; empty where one of them is no JSON object."""
    try:
        return {**json.loads(text), **json.loads(override)}
    except (TypeError, ValueError, RecursionError):
        return {}


def on_a_node(launch: Launch) -> int:
    """Bytes of the weights on one machine; 0 where the shape is not known here."""
    if _QUANTISED.search(Path(launch.model).name) or "--quantization" in launch.args:
        return 0
    config = config_of(launch)
    try:
        method = (config.get("quantization_config") or {}).get("quant_method", "fp8")
        if method != "fp8":
            return 0
        return size.weight_bytes(config) // launch.nodes
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError):
        return 0


def partition_fault(launch: Launch) -> str:
    """Why the server would refuse PARTITION, and what to do; empty where it would not, as far as
    the model's layers are known."""
    given = launch.env.get(PARTITION) or os.environ.get(PARTITION)
    if not given:
        return ""
    place = "server_args_*.txt" if launch.env.get(PARTITION) else "your environment"
    head, mend = f"{PARTITION}={given[:LONGEST_SHOWN]}: ", f": mend it in {place}"
    try:
        parts = [int(part) for part in given.split(",")]
    except ValueError:
        return f"{head}give each PP rank's layers as whole numbers, 20,20,21{mend}"
    if len(parts) != launch.pp_size:
        return f"{head}{len(parts)} numbers for {launch.pp_size} PP ranks{mend}"
    layers = config_of(launch).get("num_hidden_layers")
    if isinstance(layers, int) and sum(parts) != layers:
        return f"{head}{sum(parts)} layers in all, and the model has {layers}{mend}"
    return ""


def split(launch: Launch) -> list[int]:
    """Layers of each PP rank. Raises KeyError, TypeError or ValueError where they are not known."""
    layers = config_of(launch)["num_hidden_layers"]
    if given := launch.env.get(PARTITION) or os.environ.get(PARTITION):
        found = [int(part) for part in given.split(",")]
        if len(found) != launch.pp_size or sum(found) != layers:
            raise ValueError(f"{PARTITION}={given}")
        return found
    if layers < launch.pp_size:
        raise ValueError(f"{layers} layers for {launch.pp_size} PP ranks")
    return layers_by_rank(layers, launch.pp_size, version_numbers(launch.sglang_version))


def of_fullest(launch: Launch) -> tuple[int, float]:
    """The PP rank whose weights take most, and the bytes of them on each of its TP ranks.

    (0, 0.0) where the shape is not known here.
    """
    if not on_a_node(launch):
        return 0, 0.0
    try:
        ranks = size.rank_bytes(config_of(launch), split(launch))
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return 0, 0.0
    most = max(ranks)
    return len(ranks) - 1 - ranks[::-1].index(most), most / launch.tp_size


def too_full(launch: Launch, gpus: Sequence[Gpu]) -> bool:
    """Whether the fullest rank's weights are more than a GPU of its own can take."""
    _, need = of_fullest(launch)
    return need > MOST * min((gpu.total_mib for gpu in gpus), default=0) * 2**20 > 0


def _architecture(launch: Launch) -> str | None:
    names = config_of(launch).get("architectures")
    return names[0] if isinstance(names, list) and names else None


def is_known(launch: Launch) -> bool:
    """Whether the model is one whose shape size.py builds: every layer has a KV cache alike."""
    return _architecture(launch) in _EXACT


def is_exact(launch: Launch, rank: int) -> bool:
    """Whether its weights take no less than is computed: a model whose shape size.py builds, no
    argument that shrinks or moves them, and no head counted that newer releases leave out."""
    name = _architecture(launch)
    on_last = rank == launch.pp_size - 1
    return (
        (on_last or name in _HEADS_EVERYWHERE)
        and name in _EXACT
        and not any(map(_SHRINKS.search, launch.args))
    )


def used(plan: Plan, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Of a machine's GPUs those that ranks take."""
    ranks = max(launch.ranks_a_node for launch in plan.launches)
    return list(gpus[: -(-ranks // max(1, plan.ranks_per_gpu))])


def capacity(gpus: Sequence[Gpu]) -> str:
    """`342 GB of GPU memory`, where it was assumed with of what; `gpus`: at least one."""
    total = sum(gpu.total_mib for gpu in gpus) * 2**20
    what = f" ({len(gpus)} x {gpus[0].total_mib} MiB, assumed)" if gpus[0].assumed else ""
    return f"{total / 1e9:.0f} GB of GPU memory{what}"


def sentences(plan: Plan, gpus: Sequence[Gpu]) -> list[str]:
    """What the weights take of a GPU and what is left, an estimate: of several models, or releases
    that split the layers otherwise, each with its cases; none where nothing is loaded onto GPUs."""
    if plan.mode == "cpu" or plan.engine != "sglang" or plan.attached:
        return []
    taken = used(plan, gpus)
    cases: dict[str, dict[str, None]] = {}
    for launch in plan.launches:
        cases.setdefault(_sentence(plan, launch, taken), {})[launch.case] = None
    if len(cases) == 1:
        return list(cases)
    return [f"{', '.join(its)}: {text}" for text, its in cases.items()]


def _sentence(plan: Plan, launch: Launch, gpus: list[Gpu]) -> str:
    shared = plan.ranks_per_gpu > 1
    rank, bytes_ = of_fullest(launch)
    if shared:
        bytes_ = on_a_node(launch) / max(1, len(gpus))
    if not bytes_:
        why = (
            "its layers cannot be split so" if on_a_node(launch) else "their size is not known here"
        )
        name = model_folder.called(launch.model)
        return f"cannot tell whether the weights of {name} fit: {why}"
    need = bytes_ / 1e9
    where = f"the fullest rank (PP{rank}, {split(launch)[rank]} layers)"
    if shared:
        where = "a GPU (all of its ranks; the mean of the GPUs)"
    text = f"about {need:.1f} GB of weights on {where}"
    mib = min((gpu.total_mib for gpu in gpus), default=0)
    if not mib:
        return f"{text}; cannot tell whether they fit: nvidia-smi does not say what a GPU has"
    there = mib * 2**20 / 1e9
    text += f"; a GPU has {there:.1f} GB ({mib} MiB{', assumed' * gpus[0].assumed})"
    if need > MOST * there:
        return f"{text}, of which weights can take {MOST:.0%}: they do not fit"
    return text + (_shared_cache(plan, launch, len(gpus)) if shared else _cache(launch, gpus))


def _cache(launch: Launch, gpus: list[Gpu]) -> str:
    """What is left for the KV cache of a rank that has a GPU of its own, on the fullest one."""
    fraction = fraction_of(launch)
    if fraction is None:
        return ""
    there = min(gpu.total_mib for gpu in gpus) * 2**20 / 1e9
    left = fraction * there - of_fullest(launch)[1] / 1e9
    if left <= 0:
        return f", of which {FRACTION} {fraction:g} leaves nothing for the KV cache"
    held = _held(launch, 1e9 * left)
    return f", of which {FRACTION} {fraction:g} leaves {_amount(left)} for the KV cache{held}"


def _held(launch: Launch, left: float) -> str:
    """What the KV cache of the fullest rank holds in `left` bytes, or CAPACITY of it."""
    most, given = max(split(launch)), most_tokens(launch)
    found = tokens_in(launch, left, most)
    if not given or (found is not None and found <= given):
        return f", about {rounded(found)} tokens" if found else ""
    if not found:
        return f", {given:,} tokens at most ({CAPACITY})"
    return f", of which {CAPACITY} takes {_amount(left * given / found / 1e9)}, {given:,} tokens"


def _shared_cache(plan: Plan, launch: Launch, gpus: int) -> str:
    """What the KV caches of ranks that share GPUs take, and which argument sizes them."""
    tokens = most_tokens(launch)
    on_a_gpu = cache_on_a_node(launch, tokens) / gpus / 1e9
    if not on_a_gpu or _OTHER_VALUES in launch.args:
        return "; how much the KV cache of each rank takes is not known here"
    return (
        f"; {CAPACITY} sizes the KV cache: {tokens:,} tokens, {_amount(on_a_gpu)} of a GPU, "
        f"{_amount(on_a_gpu / plan.ranks_per_gpu)} a rank"
    )


def _amount(gb: float) -> str:
    """`12.5 GB`, of less than a tenth `40 MB`."""
    return f"{gb:.1f} GB" if gb >= 0.1 else f"{1000 * gb:.0f} MB"


def tokens_in(launch: Launch, left: float, layers: int) -> int | None:
    """Tokens of which so many layers' keys and values fit into `left` bytes; None where an
    argument makes them of another size, or the shape is not known."""
    if _OTHER_VALUES in launch.args:
        return None
    try:
        a_token = size.kv_bytes(config_of(launch), launch.tp_size) * layers / sum(split(launch))
        return int(left / a_token)
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return None


def cache_on_a_node(launch: Launch, tokens: int) -> float:
    """Bytes of so many tokens' keys and values on all ranks of a machine; 0 where not known."""
    try:
        a_rank = size.kv_bytes(config_of(launch), launch.tp_size)  # over all layers
        return tokens * a_rank * launch.tp_size / launch.nodes
    except (KeyError, ValueError, TypeError, ZeroDivisionError):
        return 0.0


def most_tokens(launch: Launch) -> int:
    """What an argument allows the KV cache to hold; 0 where none does."""
    text = launch.value(CAPACITY)
    return int(text) if text.isdecimal() else 0


def tokens_held(launch: Launch, gpus: Sequence[Gpu]) -> int:
    """About how many tokens the KV cache holds where a rank has a GPU of its own; 0 where that is
    not known. sglang takes the least room and the most layers of all PP ranks."""
    given, share = most_tokens(launch), fraction_of(launch)
    there = min((gpu.total_mib for gpu in gpus), default=0) * 2**20
    _, need = of_fullest(launch)
    if share is None or not need or share * there <= need:
        return given
    found = tokens_in(launch, share * there - need, max(split(launch)))
    return min(filter(None, (found, given)), default=0)


def rounded(tokens: int) -> str:
    """Two digits of an estimate: `420,000`."""
    return f"{float(f'{tokens:.2g}'):,.0f}"


def fraction_of(launch: Launch) -> float | None:
    """The share of a GPU's memory that the server may take; None where no argument says."""
    try:
        return float(launch.value(FRACTION))
    except ValueError:
        return None
