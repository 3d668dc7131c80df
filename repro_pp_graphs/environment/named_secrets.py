"""Secrets that a name betrays: of an option, a variable or a field, with its value in a text.

Some words promise a secret (token, api_key), others take the promise back (max_tokens), and a
value that is a count or the next word of a sentence is none in any case.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from repro_pp_graphs.environment import secret_words, spans
from repro_pp_graphs.environment.secret_words import MASK

LONGEST = 8000  # characters: a quote that is not closed within masks no more than this

_NUMBERS = re.compile(r"[\]\[0-9., ]+")
_FRACTION_OR_LIST = re.compile(r"[0-9]+[.][0-9]+$|[{]|\[$")


class _Promise(NamedTuple):
    """Whether a name promises a secret, and whether it still does beside such a value."""

    secret: bool
    beside_numbers: bool
    beside_fraction_or_list: bool
    beside_plain: bool  # a short word, a number


@lru_cache(maxsize=4096)
def _promise(name: str) -> _Promise:
    words = secret_words.NO_SECRET.sub("", "_" + re.sub("[^a-z0-9]", "_", name.lower()) + "_")
    if not secret_words.SECRET_NAME.search(words):
        return _Promise(False, False, False, False)
    no_counts = secret_words.COUNTED.sub("", re.sub("token_id|tokens", "", words))
    kinds = (words, no_counts, no_counts.replace("token", ""))
    secret, numbers, fraction = (bool(secret_words.SECRET_NAME.search(kind)) for kind in kinds)
    return _Promise(secret, numbers, fraction, not secret_words.MAY_BE_PLAIN.match(words))


def bare(value: str) -> str:
    """The value without quotes, and without what follows a value in a list."""
    return re.sub(r"[\"'\\]", "", value).rstrip("],;:)}")


def is_secret(name: str, value: str) -> bool:
    """Whether the name of an option, variable or field promises that the value is a secret."""
    kinds = _promise(name)
    if not kinds.secret:
        return False
    text = bare(value).lower()
    if text in secret_words.NO_VALUE:
        return False
    if not kinds.beside_plain and secret_words.PLAIN_VALUE.fullmatch(text):
        return False
    if _FRACTION_OR_LIST.match(text):
        return kinds.beside_fraction_or_list
    return kinds.beside_numbers or not _NUMBERS.fullmatch(text)


# --- names and values in a text ---

_NAME = re.compile(f"(?:{secret_words.HINTS})[a-z0-9_.-]*")
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_AFTER_NAME = frozenset("\"'\\%:= \t\n\r\f\v")
_GAP = re.compile(
    r"""["'\\]*(?:%22)?\s*(?:[:=]|%3[ADad])\s*|["'\\]+,\s*(?:[bB](?=["']))?|\s+""", re.ASCII
)
_PLAIN = re.compile(r"[^\s\"']*", re.ASCII)
_ESCAPED = re.compile(r"(\\+[\"'])[^\n]*?(?<!\\)\1")
_COUNT = re.compile("[0-9]+[^0-9A-Za-z]*")
_LONG_NUMBERS = re.compile(r"[\]\[0-9.,;:)}\"'\\ ]*")
_TELLING_CHARS = 100  # of a value, unless it is made of numbers
_MARKS = re.compile(r"[\"'\\]*")
_QUOTED = {
    mark: re.compile(rf"{mark}[^{mark}\\]*(?:\\.[^{mark}\\]*)*", re.DOTALL) for mark in "\"'"
}


class Pair(NamedTuple):
    """A name that promises a secret, and where its value is in the text."""

    name: str
    start: int
    end: int


class _Word(NamedTuple):
    """Where one word to a shell, or a string of JSON, ends, and where its first part does: up to
    a quote, or to the end of its line."""

    end: int
    first_end: int


class _Words:
    """The words of a text. What looks like the quote that opens a part may be the one that closed
    another, so that words may overlap: where they share a part, it is read once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[int, int] = {}  # of the words that go on with the quote at the key

    def at(self, start: int) -> _Word:
        """The word that starts there, quotes and all."""
        text = self._text
        escaped = _ESCAPED.match(text, start, start + LONGEST)  # a string of JSON in JSON
        if escaped:
            return _Word(escaped.end(), escaped.end())
        plain = spans.end(_PLAIN, text, start)
        first = plain if plain > start else self._quoted_end(start)
        line = text.find("\n", start, first)
        return _Word(self._end_from(plain), line if line >= 0 else first)

    def _quoted_end(self, at: int) -> int:
        """Past the quote that closes the one there; the limit where none does."""
        mark = self._text[at : at + 1]
        end = spans.end(_QUOTED[mark], self._text, at, at + LONGEST) if mark in _QUOTED else at
        return end + 1 if end > at and self._text[end : end + 1] == mark else end

    def _end_from(self, at: int) -> int:
        text, passed = self._text, []
        while at not in self._ends and text[at : at + 1] in ("'", '"'):
            passed.append(at)
            end = self._quoted_end(at)
            closed = end - at > 1 and text[end - 1] == text[at]
            at = spans.end(_PLAIN, text, end) if closed else end
            if not closed:
                break
        end = self._ends.get(at, at)
        self._ends.update(dict.fromkeys(passed, end))
        return end


def _name_start(text: str, inside: int) -> int:
    while inside and text[inside - 1] in _NAME_CHARS:
        inside -= 1
    return inside


def _takes(name: str, gap: str, value: str) -> bool:
    """Whether a gap between a name and a value makes them a pair: without : or = only options
    (--a b, ["--a", "b"]) and quoted names with a hyphen (("x-a", "b")) take a value."""
    if ":" in gap or "=" in gap or "%3" in gap:
        return True
    if name.startswith("-") and not value.startswith("--"):
        return True
    return "," in gap and "-" in name


def pairs(text: str, lower: str) -> Iterator[Pair]:
    """The names in a text that promise a secret, each with its value, in order; values may
    overlap."""
    words, done = _Words(text), 0
    for match in _NAME.finditer(lower):
        end = match.end()
        if match.start() < done or lower[end : end + 1] not in _AFTER_NAME:
            continue
        start = _name_start(text, match.start())
        name = text[start:end]
        gap = _GAP.match(text, end) if _promise(name).secret else None
        if gap is None or not _takes(name, gap[0], text[gap.end() : gap.end() + 2]):
            continue
        if _is_no_value(text, gap.end(), name):
            continue
        word = words.at(gap.end())
        # names after # are counts in sglang's log
        if text[start - 1 : start] == "#" and _COUNT.fullmatch(text, gap.end(), word.end):
            continue
        # of long values, which may overlap, only numbers are read to the end
        numbers = _LONG_NUMBERS.fullmatch(text, gap.end(), word.end)
        known = word.end if numbers else min(word.end, gap.end() + _TELLING_CHARS)
        if word.end > gap.end() and is_secret(name, text[gap.end() : known]):
            yield Pair(name, gap.end(), word.end)
            done = word.first_end  # what follows may name secrets of its own


def _is_no_value(text: str, start: int, name: str) -> bool:
    """Whether a value opens a list of others, or is masked already: a quote that follows opens
    something else."""
    opens = text.startswith("{", spans.end(_MARKS, text, start))
    if opens and not _promise(name).beside_fraction_or_list:
        return True
    return text.startswith(MASK, start) and spans.end(_PLAIN, text, start) == start + len(MASK)


def masked(text: str, lower: str) -> str:
    """The text without the values of such names."""
    found: list[tuple[int, int, str]] = []
    for pair in pairs(text, lower):
        if found and pair.start <= found[-1][1]:
            start, end, _ = found.pop()
            found.append((start, max(end, pair.end), MASK))
        else:
            found.append((pair.start, pair.end, MASK))
    return spans.replaced(text, found)
