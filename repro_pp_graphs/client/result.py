"""The --output JSON, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .options import UsageError
from .record import Record


def result_document(summary: dict[str, Any], records: Sequence[Record]) -> dict[str, Any]:
    """The --output JSON, schema 1."""
    internal = ("uncounted_ns", "counted_late", "went_on")
    rows = [{k: v for k, v in vars(record).items() if k not in internal} for record in records]
    for row in rows:
        if not row["beside"]:
            del row["beside"]
        if row["output_ids_sha256"] is None:
            del row["output_ids_sha256"]
    return {"schema": 1, "summary": summary, "requests": rows}


def part_of(path: Path) -> Path:
    """Where the file is written until it is whole; a device or a pipe is written as it comes."""
    path = path.resolve()
    return path.with_name(path.name + ".part") if path.is_file() or not path.exists() else path


def check_writable(name: str, path: Path, draft_of: Callable[[Path], Path]) -> None:
    """Try it before anything is sent. Raises UsageError where it cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        draft = draft_of(path)
        is_new = not draft.exists()
        with draft.open("ab"):
            pass
        if is_new:
            draft.unlink()
    except OSError as exc:
        missing = isinstance(exc, FileNotFoundError)
        reason = "no such folder; create it first" if missing else exc.strerror
        raise UsageError(f"{name} {path}: {reason}") from exc


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = part_of(path)
    regular = part != path.resolve()
    with part.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document, separators=(",", ":")) + "\n")
        if regular:
            file.flush()
            os.fsync(file.fileno())
    if regular:
        part.replace(path.resolve())
