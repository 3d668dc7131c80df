"""The ranks' files once their servers have ended: cut to what was written, and compressed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from repro_pp_graphs.pp_clock import rows
from repro_pp_graphs.pp_clock.rows import CLOCK, SUFFIX, RowsError


def row_files(logs: Path, label: str) -> list[Path]:
    """The ranks' files of a launch, compressed or not, by rank."""
    return sorted(
        path
        for path in logs.glob(f"{label}{CLOCK}_PP*_TP*")
        if path.name.endswith((SUFFIX, SUFFIX + ".gz"))
    )


def keep(logs: Path, label: str) -> list[str]:
    """Compress what the ranks of a launch left; a sentence for what could not be."""
    return _compress(row_files(logs, label))


def keep_all(logs: Path) -> list[str]:
    """The same of every launch, as of one that kill -9 ended. No server may be writing there. Rows
    beside compressed ones are of a server that was started by hand: both stay."""
    found = sorted(logs.glob(f"*{CLOCK}_PP*_TP*{SUFFIX}"))
    return _compress(path for path in found if not path.with_name(f"{path.name}.gz").exists())


def _compress(paths: Iterable[Path]) -> list[str]:
    faults = []
    for path in paths:
        if path.suffix == SUFFIX:
            try:
                _keep(path)
            except OSError as error:
                faults.append(f"{path} stays uncompressed ({error.strerror})")
    return faults


def _keep(path: Path) -> None:
    try:
        rows.keep(path)
    except RowsError:
        path.unlink()  # a rank that died before its first row
