"""Mask secrets, and what names people, in texts and JSON: all masking of this project.

A secret is known by its value (environment variables and arguments named like secrets), by what
stands around it (`--api-key x`, `"password": "x"`, `https://user:x@host`) or by its shape (a
vendor's prefix, a long random word). The time grows linearly with the text: a pattern starts at
a literal found in it, and a character that a pattern has read is not read again from there.
"""

from __future__ import annotations

import json
import os
import pwd
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from repro_pp_graphs.environment import named_secrets, secret_words, spans
from repro_pp_graphs.environment.named_secrets import LONGEST, bare, is_secret, pairs
from repro_pp_graphs.environment.people import People

MASK = secret_words.MASK
SHORTEST = 8  # characters: a shorter value is not looked for elsewhere
_ONE_WORD = re.compile("[A-Za-z0-9_.-]+")
_NAMED_BY_A_FIELD = frozenset({"value", "before", "after"})

# --- what stands around a secret, or is its shape ---

_ANSI = re.compile("\x1b\\[[0-9;]*[a-zA-Z]")
_NOT_PRINTABLE = re.compile("[^ -~\n]")
_KEY_CHARS = 20_000  # of a private key with all its lines
_KEY_BODY = re.compile(
    r"[A-Z ]*-*[\\\s]*(?:[A-Z][A-Za-z-]*: [^\n]*\n)*[A-Za-z0-9+/=\\\s]*", re.ASCII
)


def without_private_keys(text: str) -> str:
    """The text with each private key masked as a whole: to its end, or what looks like one."""
    if "PRIVATE KEY" not in text:
        return text
    return spans.replaced(text, _private_keys(text))


def _private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    ends = [match.end() for match in secret_words.KEY_END.finditer(text)]
    at = done = 0
    for begin in secret_words.KEY_BEGIN.finditer(text):
        if begin.start() < done:
            continue
        while at < len(ends) and ends[at] < begin.end():
            at += 1
        done = spans.end(_KEY_BODY, text, begin.end())
        if at < len(ends) and ends[at] - begin.end() <= _KEY_CHARS:
            done = ends[at]
        yield begin.start(), done, MASK


def _found(text: str, literals: Iterable[str]) -> Iterator[int]:
    """Where any of the literals is in the text, in order."""
    places: list[int] = []
    for literal in literals:
        at = text.find(literal)
        while at >= 0:
            places.append(at)
            at = text.find(literal, at + len(literal))
    yield from sorted(places)


def _mask_around(text: str, lower: str, around: secret_words.Around) -> str:
    def found() -> Iterator[tuple[int, int, str]]:
        done = 0
        for at in _found(lower, around.literals):
            match = around.pattern.match(text, at) if at >= done else None
            if match:
                done = match.end()
                yield match.end(1), done, MASK

    return spans.replaced(text, found())


_URL = re.compile(r"://[^\s\"']*", re.ASCII)
_URL_USER = re.compile(r"[^/:@]*")
_URL_ENCODED = re.compile(r"%3A%2F%2F[^\s\"'/]*", re.ASCII | re.IGNORECASE)


def _mask_url(match: re.Match[str]) -> str:
    """Of an address, and of those inside it, user and password: all up to the last @ before a
    slash, or where a password may hold a slash up to the last @."""
    text = match[0]
    last = text.rfind("@")
    out, at = [], 0
    while 0 <= at < last:
        out.append("://")
        start = at + 3
        colon = spans.end(_URL_USER, text, start)
        if text[colon : colon + 1] == ":":
            out.append(MASK)
            at = last
            break
        slash = text.find("/", start)
        end = text.rfind("@", start, slash if slash >= 0 else len(text))
        if end >= 0:
            out.append(MASK)
            start = end
        following = text.find("://", start)
        at = following if following >= 0 else len(text)
        out.append(text[start:at])
    return "".join([*out, text[at:]])


def _mask_encoded_url(match: re.Match[str]) -> str:
    text = match[0]
    at = text.rfind("%40")
    return text if at < 0 else text[:9] + MASK + text[at + 3 :]


def _discord_tokens(text: str) -> Iterator[tuple[int, int, str]]:
    done = 0
    for match in secret_words.DISCORD.finditer(text):
        before = max(done, match.start() - 26)
        head = secret_words.DISCORD_HEAD.search(text[before : match.start()])
        if head:
            done = match.end()
            yield before + head.start(), done, MASK


_LONG = re.compile("[A-Za-z0-9_.=~/+-]{13,}")
_TELLING = re.compile("[A-Z0-9]")
_RANDOM = (re.compile("[A-Za-z0-9+/]{40,}"), re.compile("[A-Za-z0-9]{24,}"))
_WORDS = re.compile("/|[A-Z][a-z]{2,}|[a-z]{3,}")


def _mask_vendor(match: re.Match[str]) -> str:
    return MASK if _TELLING.search(match[0], 3) else match[0]


def _mask_random(match: re.Match[str]) -> str:
    """Long words of upper case, lower case and digits are keys more often than names or paths,
    unless words make up most of them, as in DeepseekV3ForCausalLMNextN."""
    word = match[0]
    if not all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9]")):
        return word
    rest = word if len(word) > 300 else _WORDS.sub("", word)
    return MASK if 4 * len(rest) > len(word) else word


def _mask_long(match: re.Match[str]) -> str:
    word = match[0]
    return _long_masked(word) if _TELLING.search(word) else word


def _mask_shapes(word: str) -> str:
    word = secret_words.VENDOR.sub(_mask_vendor, word)
    for pattern in _RANDOM:
        word = pattern.sub(_mask_random, word)
    return word


_short_masked = lru_cache(maxsize=65536)(_mask_shapes)  # logs say the same over and over


def _long_masked(word: str) -> str:
    return _short_masked(word) if len(word) < 200 else _mask_shapes(word)


def holds_secret(text: str) -> bool:
    """Whether what stands around it, or a vendor's prefix, betrays a secret in a text, which is
    not the path of something that is there."""
    masked = secret_words.VENDOR.sub(_mask_vendor, _mask_surrounded(text))
    return masked.count(MASK) > text.count(MASK) and not _is_path("", text)


def mask_secrets(text: str) -> str:
    """The text without secrets that what stands around them, or their shape, betrays."""
    text = secret_words.UUID.sub("-...", _mask_surrounded(text))
    return _LONG.sub(_mask_long, text)


def _mask_surrounded(text: str) -> str:
    text = without_private_keys(text)
    if "://" in text:
        text = _URL.sub(_mask_url, text)
    if "%40" in text:
        text = _URL_ENCODED.sub(_mask_encoded_url, text)
    # first: what stands around a secret may hold the name of the next
    text = named_secrets.masked(text, spans.lower(text))
    lower = spans.lower(text)
    for around in secret_words.AROUND:
        masked = _mask_around(text, lower, around)
        if masked is not text:
            text, lower = masked, spans.lower(masked)
    text = spans.replaced(text, _discord_tokens(text))
    return secret_words.TELEGRAM.sub(f":{MASK}", text)


def printable(text: str) -> str:
    """ASCII without terminal escapes, tabs or control characters but line feeds: what else there
    is, is a ? for each byte."""
    text = _ANSI.sub("", text) if "\x1b" in text else text
    text = text.replace("\t", " ")
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _NOT_PRINTABLE.sub("?", text)


# --- all of it ---


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

    def host(self, name: str) -> str:
        """What stands in place of a host's name; a name that is not known as it is."""
        return self._people.host(name) if self._people else name

    def own_words(self) -> list[str]:
        """Users and hosts that stay in texts: these use the same word."""
        return self._people.own_words() if self._people else []

    def string(self, text: str) -> str:
        """The text masked, its other characters as they are."""
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


def _is_path(name: str, value: str) -> bool:
    """A folder, as that of $PWD, or a file that holds the secret."""
    try:
        return name.endswith("PWD") or Path(value).exists()
    except (OSError, ValueError):
        return False


def _spelled(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


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
