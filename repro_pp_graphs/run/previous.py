"""An earlier run's results in the same place: moved aside, never overwritten."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path


def move_aside(out: Path, names: Iterable[str] | None = None) -> Path:
    """Move results to out/previous/<when that run began>, and return that folder.

    `names` are relative to `out`; by default all that lies in out/logs and out/trace.
    """
    began = (out / "logs" / "run.json").stat().st_mtime
    kept = out / "previous" / time.strftime("%Y%m%d_%H%M%S", time.localtime(began))
    if names is None:
        found = [path for part in ("logs", "trace") for path in (out / part).glob("*")]
    else:
        found = [path for path in (out / name for name in names) if path.exists()]
    for path in found:
        if path.name != ".gitkeep":
            target = kept / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return kept
