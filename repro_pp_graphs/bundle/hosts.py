"""Where the records of a run name hosts: by file and field. A field that is called so elsewhere,
as the host's lane of a timeline, names none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

EACH = "*"  # each item of a list, each value of an object
Place = tuple[str, ...]
_OF_AN_ANALYSIS: tuple[Place, ...] = (
    ("hosts", EACH),
    ("host_clocks", EACH, "a"),
    ("host_clocks", EACH, "b"),
)
# The end of a file's name, and the fields of it that hold a host, or an address HOST:PORT. An
# argument of a server is the one behind its option.
_PLACES: dict[str, tuple[Place, ...]] = {
    "run.json": (
        ("machine", "host"),
        ("launches", EACH, "host"),
        ("launches", EACH, "args", "--dist-init-addr"),
        ("launches", EACH, "argv", "--dist-init-addr"),
    ),
    "_launch.json": (("server_info", "host"), ("server_info", "dist_init_addr")),
    "nodes.json": (("nodes", EACH, "name"), ("dist",)),
    "_analysis.json": (*_OF_AN_ANALYSIS, *(("cases", EACH, *place) for place in _OF_AN_ANALYSIS)),
}
_PORT = re.compile(r":[0-9]+$", re.ASCII)


def changed(name: str, record: object, change: Callable[[str], str]) -> object:
    """A record with `change` made to every host that it names; `name`: of its file."""
    for end, places in _PLACES.items():
        if name == end or (end.startswith("_") and name.endswith(end)):
            for place in places:
                record = _at(record, place, change)
    return record


def named(name: str, record: object) -> Iterator[str]:
    """Every host that a record names."""
    found: list[str] = []

    def kept(host: str) -> str:
        found.append(host)
        return host

    changed(name, record, kept)
    yield from found


def _at(value: object, place: Place, change: Callable[[str], str]) -> object:
    if not place:
        return _host(value, change) if isinstance(value, str) else value
    field, *rest = place
    inner = tuple(rest)
    if isinstance(value, dict) and field == EACH:
        return {key: _at(each, inner, change) for key, each in value.items()}
    if isinstance(value, dict) and field in value:
        return {**value, field: _at(value[field], inner, change)}
    if isinstance(value, list):
        return [
            _at(item, inner, change)
            if field in (EACH, before)
            else _with_equals(item, field, change)
            for before, item in zip(["", *value], value, strict=False)
        ]
    return value


def _with_equals(item: object, option: str, change: Callable[[str], str]) -> object:
    """An argument as `--option=HOST`."""
    head = f"{option}="
    if isinstance(item, str) and option.startswith("--") and item.startswith(head):
        return head + _host(item[len(head) :], change)
    return item


def _host(text: str, change: Callable[[str], str]) -> str:
    port = _PORT.search(text)
    return f"{change(text[: port.start()])}{port[0]}" if port else change(text)
