"""The rooms of repro_pp_graphs.traces: what may import what, and that nothing goes in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT / "repro_pp_graphs" / "traces"
# each room may import those before it; the modules beside the rooms are below all of them
ROOMS = ("", "read", "pair", "explain", "path", "merge", "commands")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> set[str]:
    """The modules of repro_pp_graphs.traces that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "repro_pp_graphs.traces"
        ):
            whole = node.module or ""
            is_folder = (ROOT / whole.replace(".", "/")).is_dir()
            found |= {f"{whole}.{alias.name}" for alias in node.names} if is_folder else {whole}
    return found


FILES = sorted(TRACES.rglob("*.py"))
GRAPH = {module_of(path): imports(path) for path in FILES}


def room(module: str) -> str:
    parts = module.split(".")
    return parts[2] if len(parts) > 3 else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TRACES)))
def test_no_import_runs_backwards(path):
    mine = ROOMS.index(room(module_of(path)))
    backwards = [name for name in imports(path) if ROOMS.index(room(name)) > mine]
    assert not backwards
    assert "TYPE_CHECKING" not in path.read_text(encoding="utf-8")


def test_no_import_goes_in_a_circle():
    left = {module: set(names) & set(GRAPH) for module, names in GRAPH.items()}
    while free := [module for module, names in left.items() if not names]:
        for module in free:
            del left[module]
        for names in left.values():
            names.difference_update(free)
    assert not left
