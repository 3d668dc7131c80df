"""An earlier run's results in the same place: moved aside, never overwritten."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterable
from pathlib import Path

STAMP = "%Y-%m-%d %H:%M:%S"


def move_aside(out: Path, names: Iterable[str] | None = None) -> Path:
    """Move results to out/previous/<when that run began>, and return that folder.

    `names` are relative to `out`, files of launches that --resume tries again: they go to a folder
    of their own beside it. By default all that lies in out/logs and out/trace.
    """
    kept = out / "previous" / _folder_name(_began(out / "logs" / "run.json"))
    if names is None:
        found = [path for part in ("logs", "trace") for path in (out / part).glob("*")]
    else:
        kept = kept.with_name(f"{kept.name}_resumed_{_folder_name(time.strftime(STAMP))}")
        found = [path for path in (out / name for name in names) if path.exists()]
    for path in found:
        if path.name != ".gitkeep":
            target = kept / path.relative_to(out)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    return kept


def _began(run_json: Path) -> str:
    """When a run was first started; where it does not say, when its plan was written."""
    told = ""
    with contextlib.suppress(ValueError, AttributeError):
        told = json.loads(run_json.read_text(encoding="utf-8")).get("began", "")
    return told or time.strftime(STAMP, time.localtime(run_json.stat().st_mtime))


def _folder_name(stamp: str) -> str:
    return re.sub("[-:]", "", stamp).replace(" ", "_")
