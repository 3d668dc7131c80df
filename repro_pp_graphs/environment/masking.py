"""Mask secrets, and what names people, in texts and JSON: all masking of this project.

A secret is known by its value (environment variables and arguments named like secrets), by what
stands around it (`--api-key x`, `"password": "x"`, `https://user:x@host`) or by its shape (a
vendor's prefix, a long random word).
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import isfinite
from pathlib import Path
from urllib.parse import quote

from repro_pp_graphs.environment import spans, text_secrets
from repro_pp_graphs.environment.named_secrets import LONGEST, bare, is_secret, pairs
from repro_pp_graphs.environment.people import NCCL, People
from repro_pp_graphs.environment.secret_words import MASK
from repro_pp_graphs.environment.text_secrets import mask_secrets, printable

SHORTEST = 8  # characters: a shorter value is not looked for elsewhere
# Records say the same over and over: so many texts, shorter than so many characters, are kept.
MOST_KEPT, KEPT_BELOW = 1 << 15, 200
_ONE_WORD = re.compile("[A-Za-z0-9_.-]+")
_NAMED_BY_A_FIELD = frozenset({"value", "before", "after"})


def _spellings(secret: str) -> set[str]:
    """A secret as it stands in URLs, in JSON, and in what collect_env.sh prints."""
    return {
        secret,
        quote(secret, safe="", errors="surrogateescape"),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        " ".join(secret.split()),
        printable(secret),
    }


class Masker:
    """Masks texts and JSON; knows the secrets of this process's environment variables, and those
    that learn() was given."""

    def __init__(
        self, environ: Mapping[str, str], people: bool = True, user: str = "", host: str = ""
    ) -> None:
        self._known: dict[str, None] = {}
        self._kept: dict[str, str] = {}  # what has been made of texts
        self._people = People(environ, user, host) if people else None
        self.learn(
            value
            for name, value in environ.items()
            if len(value) >= SHORTEST and is_secret(name, value) and not _is_path(name, value)
        )

    def learn(self, secrets: Iterable[str]) -> None:
        """Mask these wherever they turn up. Short ones are left aside: they stand for too much."""
        known = {word for each in secrets if len(each) >= SHORTEST for word in _spellings(each)}
        # the longest first: a part of another would leave the rest of it
        self._known = dict.fromkeys(sorted({*self._known, *known}, key=len, reverse=True))
        self._kept.clear()

    def learn_from(self, text: str) -> None:
        """Learn what a text, such as a command, names as secrets."""
        found = pairs(text, spans.lower(text))
        self.learn(bare(text[pair.start : min(pair.end, pair.start + LONGEST)]) for pair in found)

    def learn_from_json(self, value: object) -> None:
        """Learn what a JSON value names as secrets."""
        for name, text in _leaves(value):
            if is_secret(name, text):
                self.learn([bare(text)])
            else:
                self.learn_from(text)

    def learn_hosts(self, names: Iterable[str] = (), logged: str = "") -> None:
        """Hide these hosts too, and those that NCCL's lines of a log begin with."""
        if self._people:
            self._people.learn_hosts(names)
            self._people.learn_hosts_of(logged)
        self._kept.clear()

    def host(self, name: str) -> str:
        """What stands in place of a host's name; a name that is not known as it is."""
        return self._people.host(name) if self._people else name

    def own_words(self) -> list[str]:
        """Users and hosts that stay in texts: these use the same word."""
        return self._people.own_words() if self._people else []

    def string(self, text: str) -> str:
        """The text masked, its other characters as they are."""
        if NCCL in text:  # it may name hosts that other texts hold
            self._kept.clear()
            return self._masked(text)
        if len(text) >= KEPT_BELOW:
            return self._masked(text)
        masked = self._kept.get(text)
        if masked is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            masked = self._kept[text] = self._masked(text)
        return masked

    def _masked(self, text: str) -> str:
        for secret in self._known:
            text = text.replace(secret, MASK)
        text = mask_secrets(text)
        return self._people.hide(text) if self._people else text

    def text(self, text: str) -> str:
        """The text masked, in printable ASCII and line feeds."""
        for secret in self._known:  # before it is spelled otherwise
            text = text.replace(secret, MASK)
        return self.string(printable(text))

    def value(self, name: str, text: str) -> str:
        """The text masked as `text` does; all of it where its name promises a secret."""
        return MASK if is_secret(name, text) else self.text(text)

    def json(self, value: object, name: str = "") -> object:
        """A JSON value with its keys and values masked. What was masked is a string. `name` is
        what may tell that it is a secret: its key, or the option before it in a list."""
        if isinstance(value, dict):
            fields = _fields(value)
            return {self.string(key): self.json(inner, told) for key, told, inner in fields}
        if isinstance(value, list):
            return [self.json(inner, option) for option, inner in _items(value, name)]
        text = _spelled(value)
        if is_secret(name, text):
            return MASK
        # some options' values hold a secret in part: -u name:password
        lead = f"{name} " if name.startswith("-") else ""
        masked = self.string(lead + text)[len(lead) :]
        return value if masked == text else masked


def of_this_process(people: bool = True) -> Masker:
    """A Masker that knows this process's variables, user and host."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user without a name
        user = ""
    return Masker(os.environ, people, user, os.uname().nodename)


@lru_cache(maxsize=1)
def _of_secrets() -> Masker:
    return of_this_process(people=False)


def excerpt(text: str) -> str:
    """A piece of a log without its secrets, for the terminal and a run's records."""
    return _of_secrets().string(text)


def holds_secret(text: str) -> bool:
    """Whether what stands around it, or a vendor's prefix, betrays a secret in a text, which is
    not the path of something that is there."""
    masked = text_secrets.without_surrounded(text)
    return masked.count(MASK) > text.count(MASK) and not _is_path("", text)


def _is_path(name: str, value: str) -> bool:
    """A folder, as that of $PWD, or a file that holds the secret."""
    try:
        return name.endswith("PWD") or Path(value).exists()
    except (OSError, ValueError):
        return False


def _spelled(value: object) -> str:
    if isinstance(value, str):
        return value
    # what json.dumps makes of it, in a third of the time
    is_usual = type(value) is int or (type(value) is float and isfinite(value))
    return repr(value) if is_usual else json.dumps(value)


def _items(values: list[object], name: str) -> Iterator[tuple[str, object]]:
    """Each item of a list with what may tell that it is a secret: the option before it
    (`--api-key`), else the list's own name."""
    option = ""
    for value in values:
        yield option or name, value
        option = value if isinstance(value, str) and value.startswith("-") else ""


def _fields(value: dict[str, object]) -> Iterator[tuple[str, str, object]]:
    """(key, what may tell that it is a secret, value) of each field: its key, but in a row as
    {"key": "HF_TOKEN", "value": "x"}, whose field names the others, that name."""
    others = _NAMED_BY_A_FIELD & value.keys()
    names = [each for each in ("key", "name") if isinstance(value.get(each), str)]
    of_a_row = names[0] if names and others else ""
    row = str(value[of_a_row]) if of_a_row else ""
    for key, inner in value.items():
        if key == of_a_row:
            yield key, "", inner
        else:
            yield key, row if key in others and _ONE_WORD.fullmatch(row) else key, inner


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """(name, text) of each plain value of a JSON value."""
    if isinstance(value, dict):
        for _, told, inner in _fields(value):
            yield from _leaves(inner, told)
    elif isinstance(value, list):
        for option, inner in _items(value, name):
            yield from _leaves(inner, option)
    else:
        yield name, _spelled(value)
