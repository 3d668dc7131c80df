"""The facts of one case as the JSON contract has them."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.traces.folder import Case


def analyze(case: Case) -> dict[str, Any]:
    """The analysis of one case; keys are documented in docs/traces.md."""
    return {
        "schema": 1,
        "case": case.name,
        "pp_size": case.pp_size,
        "graph_launches": {case.label(rank): len(rank.launches) for rank in case.ranks},
        "ranks": {case.label(rank): {"events": rank.events} for rank in case.ranks},
        "warnings": case.warnings,
    }
