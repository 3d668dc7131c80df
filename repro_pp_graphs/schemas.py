"""The JSON Schemas of the files that the commands write: docs/schemas/NAME.schema.json.

    python -m repro_pp_graphs.schemas

writes them anew from the types; tests/test_schemas.py checks that those in the repository are
current. A new contract is a line in CONTRACTS.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec

from repro_pp_graphs import launch_record, run_record
from repro_pp_graphs.files import write_whole
from repro_pp_graphs.report.summary.summary_record import Summary
from repro_pp_graphs.traces import analysis_record

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "schemas"
# name -> the type of the whole file
CONTRACTS: dict[str, type] = {
    "run": run_record.Plan,
    "launch": launch_record.LaunchRecord,
    "analysis": analysis_record.Analysis,
    "analyses": analysis_record.Analyses,
    "summary": Summary,
}


def schema_text(kind: type) -> str:
    """The JSON Schema of a type, with the comment behind each field as its description."""
    schema = msgspec.json.schema(kind)
    kinds = _structs(kind, {})
    for name, found in schema["$defs"].items():
        found["description"] = inspect.cleandoc(kinds[name].__doc__ or "")
        for field, text in _comments(kinds[name]).items():
            at = found["properties"][field]
            # a description beside $ref holds in the current JSON Schema, not before 2019-09
            at["description"] = text
    return json.dumps(_mended(schema), indent=1, ensure_ascii=False) + "\n"


def _structs(kind: object, found: dict[str, type]) -> dict[str, type]:
    """The structs and dataclasses that a type is made of, by name."""
    inner = get_args(kind)
    made_of_fields = isinstance(kind, type) and (
        issubclass(kind, msgspec.Struct) or is_dataclass(kind)
    )
    if isinstance(kind, type) and made_of_fields and kind.__name__ not in found:
        found[kind.__name__] = kind
        inner = tuple(get_type_hints(kind).values())
    for each in inner:
        _structs(each, found)
    return found


def _comments(kind: type) -> dict[str, str]:
    """The comment behind each field that has one, in the parentheses of its value too."""
    lines = textwrap.dedent(inspect.getsource(kind)).splitlines()
    (body,) = ast.parse("\n".join(lines)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            last = node.value or node.annotation
            line = lines[(last.end_lineno or last.lineno) - 1]
            _, mark, text = line[last.end_col_offset or 0 :].partition("# ")
            if mark:
                found[node.target.id] = text
    return found


def _mended(schema: Any) -> Any:  # noqa: ANN401 - any JSON
    """The schema with facts.Nothing as the empty object that it is in the JSON."""
    if isinstance(schema, dict):
        if schema.get("type") == "null" and schema.get("maxProperties") == 0:
            return {**schema, "type": "object"}
        return {key: _mended(value) for key, value in schema.items()}
    return [_mended(each) for each in schema] if isinstance(schema, list) else schema


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, kind in CONTRACTS.items():
        write_whole(FOLDER / f"{name}.schema.json", schema_text(kind))


if __name__ == "__main__":
    main()
