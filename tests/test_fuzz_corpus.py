"""Any input at all: what fuzzing has kept (tests/fuzz), read again, and each target's own seeds."""

from __future__ import annotations

import importlib

import pytest

pytest.importorskip("msgspec")

from examples import THOROUGH
from fuzz import corpus
from fuzz.drive import MODULES
from fuzz.oracle import Fault, limited, plain, strict_json

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("target", MODULES)
def test_no_kept_input_makes_a_reader_fail(target):
    module = importlib.import_module(MODULES[target])
    inputs = [*module.seeds()[: 10 if THOROUGH else 4], *corpus.load(target)]
    assert inputs
    for data in inputs:
        with limited():
            module.run(data)


@pytest.mark.parametrize("text", ["\x1b[31m", "a\x85", "\u202e", "\ud800"])
def test_what_would_move_a_terminal_is_a_fault(text):
    with pytest.raises(Fault):
        plain(text, "it")


@pytest.mark.parametrize("text", ["[NaN]", '{"a": Infinity}', "-Infinity"])
def test_json_that_other_programs_refuse_is_a_fault(text):
    with pytest.raises(Fault):
        strict_json(text)


def test_a_corpus_is_stored_as_it_was_and_the_same_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FOLDER", tmp_path)
    kept = [b"", b"\0\xff", b"a" * 3000]
    first = corpus.store("x", kept).read_bytes()
    assert corpus.load("x") == kept
    assert corpus.store("x", corpus.load("x")).read_bytes() == first
