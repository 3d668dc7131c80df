"""Whether a launch's server would die of its attention backend as it starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from repro_pp_graphs.run.memory import weights
from repro_pp_graphs.run_record import Launch
from repro_pp_graphs.server.machine.gpus import Gpu
from repro_pp_graphs.server.release import pp_attention

_LATENT = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM")
# where sglang picks another backend for these by itself; of GPUs that are assumed their size alone
# is known, and none before Hopper has as much
_OTHER_BY_ITSELF = re.compile(r"\b(?:H|GH|B|GB)\d{2,3}\b")
_MOST_OLDER_MIB = 90_000


def trouble(launch: Launch, place: Path | None, gpus: Sequence[Gpu]) -> tuple[str, str]:
    """Why the server would die for certain, and why it may; each empty where it would not, or
    where the other is given. `place`: the package folder of its sglang, None where it is not
    installed."""
    version = launch.sglang_version
    backends = pp_attention.named(_flags(launch))
    chosen = _by_itself(launch, gpus) if not backends else ""
    asks = {
        name: pp_attention.asks_for_layer_0(name, version, place)
        for name in (backends or filter(None, [chosen]))
    }
    suspect = next((name for name, asks_so in asks.items() if asks_so is not False), "")
    rank, sure = _failing_rank(launch)
    if not suspect or rank is None:
        return "", ""
    layer = (
        f"its {suspect} attention asks every PP rank for layer 0 of the KV cache, which PP rank "
        f"{rank} does not hold and seeks outside its own list of layers (IndexError in "
        "get_value_buffer)"
    )
    if chosen:
        return "", (
            f"on a GPU before Hopper sglang {version} takes {chosen} for this model by itself, and "
            f"may die as it starts: {layer}"
        )
    if asks[suspect] is None:
        return "", f"where its sglang is older than 0.5.18 the server may die as it starts: {layer}"
    patched = "" if place else ", unless it is patched"
    if not sure:
        return "", f"sglang {version} may die as it starts{patched}: {layer}"
    return f"sglang {version} would die as it starts{patched}: {layer}", ""


def _flags(launch: Launch) -> dict[str, list[str]]:
    """The values of each argument."""
    found: dict[str, list[str]] = {}
    for word in launch.args:
        if word.startswith("--"):
            values = found[word] = []
        elif found:
            values.append(word)
    return found


def _by_itself(launch: Launch, gpus: Sequence[Gpu]) -> str:
    """The backend with the fault that sglang may pick where no argument names one: for latent
    attention on a GPU that is older than Hopper; empty where it picks another."""
    names = weights.config_of(launch).get("architectures")
    latent = isinstance(names, list) and any(name in _LATENT for name in names)
    older = any(
        gpu.total_mib < _MOST_OLDER_MIB and not _OTHER_BY_ITSELF.search(gpu.name) for gpu in gpus
    )
    return "triton" * (latent and older)


def _failing_rank(launch: Launch) -> tuple[int | None, bool]:
    """The first PP rank that holds fewer layers than the ranks before it do, None where none does,
    and whether that is sure: of a model whose layers and kind of KV cache are known."""
    try:
        split = weights.split(launch)
    except (KeyError, TypeError, ValueError):
        return (2, False) if launch.pp_size > 2 else (None, False)
    return pp_attention.failing_rank(split), weights.is_known(launch)
