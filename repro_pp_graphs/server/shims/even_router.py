"""Dummy weights with which unlike tokens choose different experts, as in a trained model.

DeepSeek-V3's router adds a bias to each expert's score (`e_score_correction_bias`) before it
chooses. sglang's dummy weights are all uniform in -1e-3 to 1e-3, the bias as well, and with such
weights the scores of a layer differ by 1e-5 from token to token: the bias alone decides, all tokens
choose the same experts, and a batch reads the weights of few. With a bias of 0 the scores decide:
in a sketch of one layer 8 unlike tokens choose 56 of 256 experts, 57 if by chance. How many a
server's tokens choose was not counted: by the time its batches take, fewer.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from repro_pp_graphs.server.patching.after_import import after_import

BIAS = "e_score_correction_bias"


def zero_biases(model: Any) -> int:  # noqa: ANN401 - torch is imported in servers only
    """Set each router's bias to 0; how many there were."""
    biases = [each for name, each in model.state_dict().items() if name.endswith(BIAS)]
    for bias in biases:
        bias.zero_()
    return len(biases)


def install() -> None:
    """Have the loader set the biases to 0 once it has filled the weights."""
    after_import("sglang.srt.model_loader.loader", _patch)


def _patch(loader: ModuleType) -> None:
    fill = loader.initialize_dummy_weights

    def fill_and_zero(model: Any, *args: Any, **named: Any) -> None:  # noqa: ANN401
        import logging  # noqa: PLC0415

        fill(model, *args, **named)
        number = zero_biases(model)
        logging.getLogger(__name__).info("repro shim even_router: %d biases are 0", number)

    loader.initialize_dummy_weights = fill_and_zero  # type: ignore[attr-defined]
