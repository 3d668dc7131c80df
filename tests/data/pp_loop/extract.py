"""python extract.py WHEEL...: what the shims of PP sends rely on in each release, as loops.json.

Of every sglang wheel named: the methods of its PP loop and of its pipeline group with their
parameters and their calls of own methods, in the order of the text, and whether it has a stream of
its own for PP messages; releases of which all that is the same stand together. Read from the
sources (ast); nothing is imported.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

LOOP, GROUP = "srt/managers/scheduler_pp_mixin.py", "srt/distributed/parallel_state.py"
UTILS = "srt/utils/common.py"
CLASSES = {LOOP: "SchedulerPPMixin", GROUP: "GroupCoordinator"}
OF_GROUP = ("send_object", "recv_object", "send_tensor_dict", "recv_tensor_dict")


def methods(text: str, name: str) -> dict[str, ast.FunctionDef]:
    """The methods of a class by name."""
    return {
        method.name: method
        for node in ast.parse(text).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }


def own_calls(method: ast.FunctionDef) -> list[str]:
    """The methods that one calls on `self`, each once, in the order of the text."""
    nodes = [
        (node.lineno, node.col_offset, node.func.attr)
        for node in ast.walk(method)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "self"
    ]
    return list(dict.fromkeys(name for _, _, name in sorted(nodes)))


def reached(found: dict[str, ast.FunctionDef], first: list[str]) -> list[str]:
    """The methods that are called from those, with them."""
    names, todo = [], list(first)
    while todo:
        name = todo.pop(0)
        if name in found and name not in names:
            names.append(name)
            todo += [each for each in own_calls(found[name]) if each.startswith("_pp_")]
    return names


def of_wheel(path: Path) -> dict[str, Any]:
    """One release: its two classes, and its stream for PP messages."""
    with zipfile.ZipFile(path) as wheel:
        names = set(wheel.namelist())
        read = {
            file: wheel.read(f"sglang/{file}").decode() if f"sglang/{file}" in names else ""
            for file in (LOOP, GROUP, UTILS)
        }
    facts: dict[str, Any] = {"own_stream": "SGLANG_PP_COMM_OVERLAP" in read[LOOP]}
    for file, kind in CLASSES.items():
        found = methods(read[file], kind)
        wanted = OF_GROUP if file == GROUP else reached(found, ["event_loop_pp"])
        facts[kind] = {
            name: [[argument.arg for argument in found[name].args.args][1:], own_calls(found[name])]
            for name in wanted
            if name in found
        }
    facts["requests"] = "def point_to_point_pyobj" in read[UTILS]
    return facts


def key(version: str) -> list[int]:
    """0.5.4.post3 -> [0, 5, 4, 3]"""
    return [int(part.removeprefix("post")) for part in version.split(".")]


def main(paths: list[str]) -> None:
    """Write loops.json beside this file."""
    groups: dict[str, list[str]] = {}
    by_version = {path.name.split("-")[1]: path for path in map(Path, paths)}
    for version in sorted(by_version, key=key):
        facts = json.dumps(of_wheel(by_version[version]))
        groups.setdefault(facts, []).append(version)
    lines = [f'{{"releases": {json.dumps(names)}, {facts[1:]}' for facts, names in groups.items()]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (Path(__file__).parent / "loops.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
