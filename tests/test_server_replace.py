"""A function in place of a method, on objects of every kind that refuse it, sglang's own among
them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from repro_pp_graphs.server.patching.replace import replace

ROOT = Path(__file__).resolve().parents[1]
RELEASES = json.loads((ROOT / "tests/data/pp_clock/hooks.json").read_text(encoding="utf-8"))


class Plain:
    def ask(self, limit: int = 0) -> int:
        return limit


@dataclass(kw_only=True, slots=True, frozen=True)
class FrozenSlots:
    name: str = ""

    def ask(self, limit: int = 0) -> int:
        return limit


@dataclass(frozen=True)
class Frozen:
    name: str = ""

    def ask(self, limit: int = 0) -> int:
        return limit


@dataclass(slots=True)
class DataSlots:
    name: str = ""

    def ask(self, limit: int = 0) -> int:
        return limit


class Slots:
    __slots__ = ()

    def ask(self, limit: int = 0) -> int:
        return limit


class Refuses(Plain):
    def __setattr__(self, name: str, value: Any) -> None:
        raise RuntimeError("not in this house")


class Swallows(Plain):
    def __setattr__(self, name: str, value: Any) -> None:
        pass


class Property:
    @property
    def ask(self) -> Any:
        return lambda limit=0: limit


class Inherited(Slots):
    __slots__ = ()


class Static:
    __slots__ = ()

    @staticmethod
    def ask(limit: int = 0) -> int:
        return limit


class Pair(NamedTuple):
    name: str = ""

    def ask(self, limit: int = 0) -> int:
        return limit


KINDS = [Plain, FrozenSlots, Frozen, DataSlots, Slots, Refuses, Swallows, Property, Inherited]
KINDS += [Static, Pair]


@pytest.mark.parametrize("kind", KINDS)
def test_one_object_gets_it_and_others_of_its_class_keep_theirs(kind):
    one, other = kind(), kind()
    inner = one.ask
    replace(one, "ask", lambda *args, **more: inner(*args, **more) + 1)
    assert one.ask(4) == 5 and one.ask(limit=6) == 7
    assert other.ask(4) == 4 == kind().ask(4)
    again = one.ask
    replace(one, "ask", lambda limit: again(limit) + 10)
    replace(other, "ask", lambda limit: 0)
    assert (one.ask(4), other.ask(4), kind().ask(4)) == (15, 0, 4)


def test_a_module_or_a_namespace_gets_it():
    module = SimpleNamespace(ask=lambda: 1)
    replace(module, "ask", lambda: 2)
    assert module.ask() == 2


@pytest.mark.parametrize("owner", [3, "", None, object()])
def test_what_takes_nothing_anywhere_is_refused_by_name(owner):
    with pytest.raises(TypeError, match=f"{type(owner).__name__} lets no other"):
        replace(owner, "ask", lambda: 0)


def made_as(decorators: list[str]) -> Any:
    """An object of a class with those decorators, as the release's source has them."""
    text = "\n".join(
        [*decorators, "class Found:", "    def recv_requests(self):", "        return 1"]
    )
    namespace: dict[str, Any] = {"dataclass": dataclass, "__name__": __name__}
    exec(text, namespace)
    return namespace["Found"]()


@pytest.mark.parametrize("group", RELEASES, ids=lambda group: group["releases"][0])
def test_the_classes_of_every_release_take_it(group):
    for found in group["classes"].values():
        assert all(each.startswith("@") for each in found)  # neither __slots__ nor __setattr__
        one = made_as(found)
        replace(one, "recv_requests", lambda: 2)
        assert one.recv_requests() == 2
