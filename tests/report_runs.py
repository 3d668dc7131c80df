"""Folders to report on: a real series on two H100s, with and without traces; a rehearsal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent / "data"
SERIES = DATA / "runs" / "h100_pp2_sglang052_4rounds"
A, B = "CASE_A_decode_graphs", "CASE_B_no_graphs"
TRACES = {A: "sglang052_graphs_on", B: "sglang052_graphs_off"}


def series(to: Path) -> Path:
    """Four rounds of sglang 0.5.2 on two H100s, not profiled; as a run's folder."""
    shutil.copytree(SERIES, to / "logs")
    return to


def changed(path: Path, change: Any) -> None:
    """A JSON file with a change made to its value."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def traced(to: Path) -> Path:
    """Its first round, with traces of the same release under it."""
    series(to)

    def first_round(run: dict[str, Any]) -> None:
        run["launches"] = [each for each in run["launches"] if each["round"] == 1]
        run["profile"] = True

    changed(to / "logs" / "run.json", first_round)
    for path in (to / "logs").glob("*_r[234]_*"):
        path.unlink()
    for label, name in TRACES.items():
        shutil.copytree(DATA / "traces" / name, to / "trace" / label)
    return to


def rehearsal(to: Path) -> Path:
    """The series as if it were a rehearsal on a CPU."""
    series(to)
    changed(to / "logs" / "run.json", lambda run: run.update(mode="cpu"))
    return to
