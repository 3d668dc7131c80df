"""Where results go: tried before any time is spent, and cleared of an earlier run's traces."""

from __future__ import annotations

from pathlib import Path

from repro_pp_graphs.files import draft_of
from repro_pp_graphs.probe.cells import Cell, balanced
from repro_pp_graphs.probe.options import ProbeOptions

OURS = ("probe-TP-0-PP-*.trace.json.gz", "truth_rank*.jsonl")  # more ranks then than now would stay
TRACES = ("*.trace.json", "*.trace.json.gz")


def trace_folder(root: Path, cell: Cell, cells: int) -> Path:
    """A combination's folder: one of its own where there are several."""
    return root / cell.name if cells > 1 else root


def prepare(options: ProbeOptions) -> None:
    """Make folders, try to write, remove our own earlier traces from the folders to be filled.

    Raises OSError, with the option's name in its text, for a place that cannot be used.
    """
    for name, path in (("--json", options.json), ("--client-json", options.client_json)):
        if path:
            _try_file(name, path)
    if options.trace:
        cells = balanced(options.graphs, options.sends, 1)
        for cell in cells:
            _clear(trace_folder(options.trace, cell, len(cells)))


def _try_file(name: str, path: Path) -> None:
    if path.is_dir():
        raise OSError(f"{name} {path}: is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = draft_of(path)
        with draft.open("a"):
            pass
        if draft != path:
            draft.unlink()
    except OSError as error:
        raise OSError(f"{name} {path}: cannot be written ({error.strerror})") from None


def _clear(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        ours = {path for pattern in OURS for path in folder.glob(pattern)}
        others = {path for pattern in TRACES for path in folder.glob(pattern)} - ours
        if not others:
            for path in ours:
                path.unlink()
            draft = folder / "probe.part"
            draft.touch()
            draft.unlink()
    except OSError as error:
        raise OSError(f"--trace {folder}: cannot be written ({error.strerror})") from None
    if others:
        raise OSError(
            f"--trace {folder}: holds other traces ({min(others).name}); name another folder"
        )
