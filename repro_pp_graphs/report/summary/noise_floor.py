"""The noise floor that an earlier A/A run in the same folder found: how far equal arms differ."""

from __future__ import annotations

import contextlib
from pathlib import Path

from repro_pp_graphs.files import BadFile, read_object
from repro_pp_graphs.run_record import Plan

_ALIKE = ("engine", "mode", "batch", "max_new_tokens", "machine")


def before(out: Path, plan: Plan) -> float | None:
    """The floor of the latest A/A run that was done before this one began, on the same machine and
    under the same load: 0.02 is 2 %. None where there is none."""
    found: dict[str, float] = {}
    for path in (out / "previous").glob("*/logs/summary.json"):
        with contextlib.suppress(OSError, BadFile, AttributeError):
            run = read_object(path.with_name("run.json"))
            floor = (read_object(path).get("verdict") or {}).get("floor")
            alike = all(run.get(name) == getattr(plan, name) for name in _ALIKE)
            alike &= [load["point"] for load in run.get("loads", [])] == [
                load.point for load in plan.loads
            ]
            began = str(run.get("began", ""))
            if run.get("aa") and alike and began < plan.began and isinstance(floor, int | float):
                found[began] = float(floor)
    return found[max(found)] if found else None
