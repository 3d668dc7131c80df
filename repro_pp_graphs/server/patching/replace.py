"""Another function in place of a method of one object, whatever its class allows.

Some of sglang's objects take no attributes: `SchedulerRequestReceiver` is a frozen dataclass with
slots. Other objects of the same class keep the method that they have.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

Method = Callable[..., Any]


class _ForOne:
    """An attribute of a class that is a function for one object, and for others what it was."""

    def __init__(self, owner: object, function: Method, before: object) -> None:
        self._owner, self._function, self._before = owner, function, before

    def __get__(self, found: object, kind: type | None = None) -> Any:  # noqa: ANN401
        if found is self._owner:
            return self._function
        get = getattr(type(self._before), "__get__", None)
        return get(self._before, found, kind) if get else self._before


def _on_its_class(owner: object, name: str, function: Method) -> None:
    kind = type(owner)
    setattr(kind, name, _ForOne(owner, function, inspect.getattr_static(kind, name)))


# a frozen dataclass with slots raises TypeError where others raise AttributeError
_WAYS: tuple[Callable[[Any, str, Method], None], ...] = (setattr, object.__setattr__, _on_its_class)


def replace(owner: object, name: str, function: Method) -> None:
    """From now on `owner.name` is `function`; for a module or an object.

    Raises TypeError where neither the object nor its class lets anything be put there.
    """
    for way in _WAYS:
        with contextlib.suppress(Exception):  # an own __setattr__ may raise anything
            way(owner, name, function)
            if getattr(owner, name) is function:
                return
    raise TypeError(f"{type(owner).__name__} lets no other function be its {name}")
