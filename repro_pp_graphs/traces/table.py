"""The analysis as lines for a terminal of 80 columns."""

from __future__ import annotations

from typing import Any


def lines(facts: dict[str, Any]) -> list[str]:
    """Lines that show one case's analysis (the dict that `analyze` returns)."""
    return [
        f"{facts['case']}: {facts['pp_size']} PP ranks",
        *(f"  PP{rank}: {row['events']} events, {facts['graph_launches'][rank]} graph launches"
          for rank, row in facts["ranks"].items()),
        *(f"  warning: {text}" for text in facts["warnings"]),
    ]  # fmt: skip
