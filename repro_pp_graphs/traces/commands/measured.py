"""What the run that traces belong to measured without the profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_pp_graphs import files
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.traces.model import Case

SHAPE: dict[str, Any] = {"summary": {"mean_tpot_ms": float}}


def measured_tpot_ms(case: Case) -> float | None:
    """The mean TPOT of the launch whose traces lie in a run's trace/LABEL, from the run's
    logs/LABEL_client.json; None where there is none."""
    traces = Path(case.ranks[0].path).resolve().parent
    client = traces.parent.parent / "logs" / f"{traces.name}_client.json"
    try:
        found = files.read_object(client, SHAPE)
    except (OSError, BadFile):
        return None
    value: float | None = found.get("summary", {}).get("mean_tpot_ms")
    return value
