"""JSON files whose form is a msgspec.Struct; files.py has those that any Python can read."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from repro_pp_graphs import files

Form = TypeVar("Form")


def read(path: Path, kind: type[Form]) -> Form:
    """The value of a type that a file holds; keys that the type does not name are let through.

    Raises OSError where it cannot be read, files.BadFile where it is empty, cut off, or of another
    form.
    """
    try:
        return msgspec.convert(files.read_json(path), kind)
    except msgspec.ValidationError as error:
        fault = str(error).replace("`", "").replace("- at $", "at ").replace("at .", "at ")
        raise files.not_ours(path, fault) from None


def write(path: Path, value: msgspec.Struct) -> None:
    """Write a struct whole or not at all, with a line a key. Raises OSError."""
    files.write_json(path, msgspec.to_builtins(value))
