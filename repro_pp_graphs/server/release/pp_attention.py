"""Attention backends that ask every PP rank for the KV buffer of the model's layer 0.

A rank's buffers are counted from its own first layer: layer 0 is the one at `-first`, which Python
takes from the end as long as the rank has that many layers. On a rank with fewer it is an
IndexError in `get_value_buffer`, which ends the server as it starts: on any of more than two PP
ranks that share the layers evenly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from repro_pp_graphs.server.release.installed import version_numbers
from repro_pp_graphs.server.release.release_source import text_of

OPTION = "--attention-backend"
_OPTIONS = (OPTION, "--decode-attention-backend", "--prefill-attention-backend")
_SOURCES = {name: f"srt/layers/attention/{name}_backend.py" for name in ("triton", "wave")}
# the first release that does not, looked up in 0.4.10, 0.5.2, 0.5.6.post2, 0.5.10, 0.5.16 to
# 0.5.18, 0.5.21 and 0.5.23; wave asks so in all of them that have it
_MENDED = {"triton": (0, 5, 18)}
_ASKS = re.compile(r"\bget_value_buffer\(\s*0\s*\)")
WITHOUT = "flashinfer"  # a backend that asks for no layer as it is made, in all of these


def named(flags: Mapping[str, Sequence[str]]) -> list[str]:
    """The backends that arguments name."""
    return list(dict.fromkeys(value for name in _OPTIONS for value in flags.get(name, ())))


def asks_for_layer_0(backend: str, version: str, place: Path | None) -> bool | None:
    """Whether the backend of a release does so: by the sources of an installed one, at `place`,
    which may be patched, else by its number; None where neither is known."""
    file = _SOURCES.get(backend)
    if file is None:
        return False
    if place is not None and (text := text_of(place, file)):
        return bool(_ASKS.search(text))
    numbers = version_numbers(version)
    if not numbers:
        return None
    return backend not in _MENDED or numbers < _MENDED[backend]


def failing_rank(split: Sequence[int]) -> int | None:
    """The first PP rank that holds fewer layers than the ranks before it do: its index of layer 0,
    counted back from its own first layer, lies outside its list. None where none does.
    `split`: the layers of each PP rank."""
    firsts = accumulate(split, initial=0)
    both = enumerate(zip(firsts, split, strict=False))
    return next((rank for rank, (first, own) in both if first > own), None)
