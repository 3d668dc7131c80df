"""The layers in pyproject.toml ([tool.layers]): what may import what, and nothing in a circle."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "repro_pp_graphs"
LAYERS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["layers"]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}


def statements(module: str) -> Iterator[tuple[str, list[str]]]:
    """Every import of a module, wherever in it: what it is from in full, and the names."""
    path = FILES[module]
    folder = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else []
            whole = [*above, *([node.module] if node.module else [])]
            yield ".".join(whole), [alias.name for alias in node.names]


def imported(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found: set[str] = set()
    for whole, names in statements(module):
        inner = {f"{whole}.{name}" for name in names if f"{whole}.{name}" in FILES}
        found |= inner or ({whole} & FILES.keys())
    return found - {module}


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports of the package."""
    return {module: imported(module) for module in FILES}


def part_of(module: str, folder: str) -> str | None:
    """The part of a folder that a module belongs to; empty for the folder's own `__init__`."""
    if module == folder:
        return ""
    inside = module.startswith(f"{folder}.")
    return module.removeprefix(f"{folder}.").split(".")[0] if inside else None


def backwards(folder: str, rows: list[list[str]]) -> list[str]:
    """Imports inside a folder that do not go to a row below."""
    row_of = {part: at for at, row in enumerate(rows) for part in row}
    return [
        f"{module} imports {name}"
        for module, names in graph().items()
        for name in sorted(names)
        if (mine := part_of(module, folder))
        and (other := part_of(name, folder))
        and mine != other
        and row_of[mine] >= row_of[other]
    ]


@pytest.mark.parametrize("folder", LAYERS["rows"])
def test_every_part_has_its_row(folder):
    parts = {part for module in FILES if (part := part_of(module, folder))}
    assert sorted(part for row in LAYERS["rows"][folder] for part in row) == sorted(parts)


@pytest.mark.parametrize("folder", LAYERS["rows"])
def test_no_import_runs_backwards(folder):
    assert backwards(folder, LAYERS["rows"][folder]) == []


def test_an_import_that_runs_backwards_would_be_seen():
    rows = LAYERS["rows"][f"{PACKAGE}.traces"]
    assert backwards(f"{PACKAGE}.traces", rows[::-1])


def test_no_import_goes_in_a_circle():
    left = {module: set(names) for module, names in graph().items()}
    while free := [module for module, names in left.items() if not names]:
        for module in free:
            del left[module]
        for names in left.values():
            names.difference_update(free)
    assert not left


def test_no_guard_hides_an_import():
    hidden = [name for name, path in FILES.items() if "TYPE_CHECKING" in path.read_text("utf-8")]
    assert hidden == []


@pytest.mark.parametrize("part", LAYERS["alone"])
def test_a_part_that_stands_alone_needs_nothing_else(part):
    """Of the package only itself, of others only what is named."""
    allowed = {*sys.stdlib_module_names, *LAYERS["alone"][part]}
    folder = f"{PACKAGE}.{part}"
    foreign = [
        f"{module} imports {whole}"
        for module in FILES
        if part_of(module, folder) is not None
        for whole, _ in statements(module)
        if part_of(whole, folder) is None and whole.split(".")[0] not in allowed
    ]
    assert foreign == []
