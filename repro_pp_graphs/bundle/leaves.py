"""JSON as lines for masking, one a key or value, and back: what is masked stays JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

SEPARATOR = "\x1f"  # between name and text; JSON escapes it in both


def leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of each key and plain value, in order, the quotes of strings left off.

    The name is what may tell that the text is a secret: its key, that of the list it is in, or
    the option before it in that list (`--api-key`); empty for keys.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            yield "", _text(key)
            yield from leaves(inner, key)
    elif isinstance(value, list):
        option = ""
        for inner in value:
            yield from leaves(inner, option or name)
            option = inner if isinstance(inner, str) and inner.startswith("-") else ""
    else:
        yield _text(name), _text(value)


def lines(value: object) -> str:
    """The leaves of a JSON value, one a line."""
    return "".join(f"{name}{SEPARATOR}{text}\n" for name, text in leaves(value))


def filled(value: object, texts: Iterator[str]) -> object:
    """The value with its leaves' texts replaced in order; what no longer is a number, a truth
    value or null becomes a string."""
    if isinstance(value, dict):
        return {_string(next(texts)): filled(inner, texts) for inner in value.values()}
    if isinstance(value, list):
        return [filled(inner, texts) for inner in value]
    text = next(texts)
    return value if text == _text(value) else _string(text)


def _text(value: object) -> str:
    return json.dumps(value)[1:-1] if isinstance(value, str) else json.dumps(value)


def _string(text: str) -> str:
    """The string of a leaf's text; as it stands where a mask has cut an escape in two."""
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
