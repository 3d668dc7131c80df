"""Does a JSON value have the types that a hint names? Standard library only.

Hints: str, int, float, bool, None, Any, list[X], dict[str, X], X | Y, Literal, a dataclass (its
fields without a default must be there), a plain dict of hints by key (each key may be missing),
and a tuple of hints: one of them. Keys that no hint names are let through.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

_NAMES: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def misfit(value: object, hint: object, where: str = "") -> str:
    """The first thing that does not fit, `launches[0].port: not a whole number`; empty if none."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) or isinstance(hint, tuple):
        choices = hint if isinstance(hint, tuple) else args
        faults = [misfit(value, each, where) for each in choices]
        return "" if "" in faults else faults[0]
    if origin is Literal:
        return "" if value in args else _fault(where, f"none of {', '.join(map(str, args))}")
    if origin is list:
        return _list(value, args[0], where)
    if origin is dict or isinstance(hint, dict) or dataclasses.is_dataclass(hint):
        return _object(value, hint, where)
    return _plain(value, hint, where)


def _fault(where: str, what: str) -> str:
    return f"{where}: {what}" if where else what


def _plain(value: object, hint: object, where: str) -> str:
    if hint is Any:
        return ""
    if hint in (None, type(None)):
        return "" if value is None else _fault(where, "not null")
    return "" if type(value) in _kinds(hint) else _fault(where, f"not {_NAMES.get(hint, hint)}")


def _kinds(hint: object) -> set[object]:
    """The types whose values a plain hint takes; of another none has any."""
    return {int, float} if hint is float else {hint}


def _list(value: object, hint: object, where: str) -> str:
    if not isinstance(value, list):
        return _fault(where, "not a list")
    if _all_fit(value, hint):  # thousands of times, say
        return ""
    faults = (misfit(each, hint, f"{where}[{number}]") for number, each in enumerate(value))
    return next(filter(None, faults), "")


def _all_fit(values: Iterable[object], hint: object) -> bool:
    """Whether values fit a plain hint, or lists of such; a slower look tells of others."""
    if get_origin(hint) is list:
        lists = list(values)
        inside = itertools.chain.from_iterable(cast(list[list[object]], lists))
        return set(map(type, lists)) <= {list} and _all_fit(inside, get_args(hint)[0])
    return isinstance(hint, type) and set(map(type, values)) <= _kinds(hint)


def _object(value: object, hint: object, where: str) -> str:
    if not isinstance(value, dict):
        return _fault(where, "not an object")
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        hints, required = _fields(hint)
        if lacking := [name for name in required if name not in value]:
            return _fault(where, f"no '{lacking[0]}'")
    elif isinstance(hint, dict):
        hints = {name: each for name, each in hint.items() if name in value}
    else:
        hints = dict.fromkeys(value, get_args(hint)[1])
    dot = f"{where}." if where else ""
    faults = (misfit(value[name], hints[name], f"{dot}{name}") for name in hints if name in value)
    return next(filter(None, faults), "")


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A dataclass's hints by field, and the fields without a default."""
    missing = dataclasses.MISSING
    required = tuple(
        field.name
        for field in dataclasses.fields(kind)
        if field.default is missing and field.default_factory is missing
    )
    return get_type_hints(kind), required
