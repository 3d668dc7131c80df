"""A release's source, read without importing it: what a class defines, and what it calls."""

from __future__ import annotations

import ast
from pathlib import Path


def text_of(place: Path, file: str) -> str:
    """The text of `file` in the package at `place`; empty where the release has no such file."""
    path = place / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class ClassSource:
    """The methods of one class, from its file's text; none where the file has no such class."""

    def __init__(self, text: str, name: str) -> None:
        self._methods = {
            method.name: method
            for node in ast.parse(text).body
            if isinstance(node, ast.ClassDef) and node.name == name
            for method in node.body
            if isinstance(method, ast.FunctionDef)
        }

    def parameters(self, method: str) -> tuple[str, ...]:
        """Names of a method's parameters, `self` first; empty where there is no such method."""
        found = self._methods.get(method)
        return tuple(argument.arg for argument in found.args.args) if found else ()

    def calls(self, method: str) -> list[str]:
        """The `self.<name>(...)` calls of a method, in the order of the text."""
        found = self._methods.get(method)
        nodes = [
            (node.lineno, node.col_offset, node.func.attr)
            for node in (ast.walk(found) if found else ())
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "self"
        ]
        return [name for _, _, name in sorted(nodes)]
