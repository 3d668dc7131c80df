"""An earlier run's results in the same place: moved aside, never overwritten."""

from __future__ import annotations

import time
from pathlib import Path


def move_aside(out: Path) -> Path:
    """Move out/logs and out/trace contents to out/previous/<when that run began>; returns it."""
    began = (out / "logs" / "run.json").stat().st_mtime
    kept = out / "previous" / time.strftime("%Y%m%d_%H%M%S", time.localtime(began))
    for name in ("logs", "trace"):
        target = kept / name
        target.mkdir(parents=True, exist_ok=True)
        for path in (out / name).glob("*"):
            if path.name != ".gitkeep":
                path.rename(target / path.name)
    return kept
