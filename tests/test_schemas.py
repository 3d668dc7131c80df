"""docs/schemas: current, and true of what is written."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

pytest.importorskip("msgspec")
pytest.importorskip("jsonschema")

from jsonschema import Draft202012Validator
from trace_changes import DATA, analysis_of

from repro_pp_graphs import schemas
from repro_pp_graphs.files import BadFile
from repro_pp_graphs.traces.analysis_record import document, from_document, read_analysis

TRACES = sorted(path.name for path in DATA.iterdir())


def test_every_schema_in_the_repository_is_current():
    """If this fails: python -m repro_pp_graphs.schemas"""
    there = {path.name: path.read_text() for path in schemas.FOLDER.iterdir()}
    assert there == {
        f"{name}.schema.json": schemas.schema_text(kind) for name, kind in schemas.CONTRACTS.items()
    }


@cache
def analysis_schema() -> Draft202012Validator:
    """analysis.schema.json, that no field may have that it does not name."""
    schema = json.loads((schemas.FOLDER / "analysis.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    for each in schema["$defs"].values():
        each["additionalProperties"] = False
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", TRACES)
def test_an_analysis_is_what_its_schema_says_and_reads_back_the_same(name, tmp_path):
    found = analysis_of(name)
    written = json.loads(json.dumps(document(found)))
    analysis_schema().validate(written)
    assert from_document(written) == found
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**written, "later": 1}))
    assert read_analysis(path) == found


def test_the_schema_forbids_what_is_not_written():
    written = document(analysis_of("cpu_prefill"))
    schema = analysis_schema()
    for change in ({"p2p": 3}, {"token_return": {"src": 1}}, {"window_us": None}, {"more": 1}):
        assert not schema.is_valid({**written, **change}), change
    del written["ring"]
    assert not schema.is_valid(written)


def test_every_field_of_the_token_return_is_explained():
    schema = json.loads((schemas.FOLDER / "analysis.schema.json").read_text())
    fields = schema["$defs"]["TokenReturn"]["properties"]
    assert not [name for name, each in fields.items() if not each.get("description")]


@pytest.mark.parametrize("text", ["", '{"schema": 1', "[]", '{"schema": 1}', '{"schema": 2}'])
def test_a_torn_or_strange_analysis_is_named_in_a_sentence(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(BadFile, match=re.escape(str(path))):
        read_analysis(path)
