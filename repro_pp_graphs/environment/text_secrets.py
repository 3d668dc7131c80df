"""Secrets in a text that what stands around them, or their shape, betrays.

The time grows linearly with the text: a pattern starts at a literal found in it, and a character
that a pattern has read is not read again from there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from repro_pp_graphs.environment import named_secrets, secret_words, spans
from repro_pp_graphs.environment.secret_words import MASK

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
    if not any(map(lower.__contains__, around.literals)):
        return text

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


def mask_secrets(text: str) -> str:
    """The text without secrets that what stands around them, or their shape, betrays."""
    text = secret_words.UUID.sub("-...", _mask_surrounded(text))
    return _LONG.sub(_mask_long, text)


def without_surrounded(text: str) -> str:
    """The text without secrets that what stands around them, or a vendor's prefix, betrays."""
    return secret_words.VENDOR.sub(_mask_vendor, _mask_surrounded(text))


def _mask_surrounded(text: str) -> str:
    return _short_surrounded(text) if len(text) < 200 else _surrounded(text)


def _surrounded(text: str) -> str:
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


_short_surrounded = lru_cache(maxsize=8192)(_surrounded)  # records of launches say the same too


def printable(text: str) -> str:
    """ASCII without terminal escapes, tabs or control characters but line feeds: what else there
    is, is a ? for each byte."""
    text = _ANSI.sub("", text) if "\x1b" in text else text
    text = text.replace("\t", " ")
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _NOT_PRINTABLE.sub("?", text)
