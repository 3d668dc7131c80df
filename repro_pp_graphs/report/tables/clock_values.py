"""Rows of the side-by-side table, from what summary.json holds of a launch's clock.

Standard library only: summaries are read with any Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# title of at most 22 characters, path among a launch's `pp_clock` in summary.json
ROWS = (
    ("last rank's turn ms", "turn_ms.mean"),
    ("  longer when profiled", "distortion"),
    ("  of it waiting ms", "waits_ms.mean"),
    ("  ... median", "waits_ms.median"),
    ("  ... p99", "waits_ms.p99"),
    ("  outside own batch ms", "waits_outside_ms.mean"),
    ("  ... median", "waits_outside_ms.median"),
    ("token send measured ms", "token_send_ms.mean"),
    ("  ... median", "token_send_ms.median"),
    ("  ... p99", "token_send_ms.p99"),
    ("  in prefill turns ms", "prefill_token_send_ms.mean"),
    ("batch measured ms", "exchange_ms.mean"),  # of a turn's sends and receives: batched_p2p
    ("  ... median", "exchange_ms.median"),
    ("  ... p99", "exchange_ms.p99"),
    ("  in prefill turns ms", "prefill_exchange_ms.mean"),
)
RATIOS = ("distortion",)  # of these what stands among ms and is none


def value(stored: Mapping[str, Any] | None, path: str) -> float | None:
    """The number at a path of ROWS in a stored ClockSummary; None where there is none."""
    found: Any = stored
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, int | float) else None
