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
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

MASK = "<masked>"
SHORTEST = 8  # characters: a shorter value is not looked for elsewhere
LONGEST = 8000  # characters: a quote that is not closed within masks no more than this

# --- is it a secret by its name ---

_NO_VALUE = {
    "", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null",
    # the next word of a sentence about an option
    "a", "an", "and", "as", "at", "by", "for", "if", "in", "is", "it", "must", "not", "of", "or",
    "so", "than", "that", "the", "then", "this", "to", "was", "which", "will", "with",
}  # fmt: skip
_SECRET_NAME = re.compile(
    "secret|passw|passphrase|token|credential|cookie|authoriz|bearer|signature|webhook|jwt|mnemonic"
    "|api_?key|access_?key|session_?(?:id|key)|key_|_keys_|connection_?string"
    "|_(?:auth|oauth2?|pass|pwd|pw|pat|sas|sig|dsn|pin|otp|creds?|salt|serial)_"
)
_OF_SECRETS = "api|access|auth|bearer|hf_|key|refresh|secret|session"
_NO_SECRET = re.compile(
    "tokeniz|token_ids|token_count|key_value|forward_pass|ib_pkey"
    "|token_map|first_token|inter_token|token_usage|token_num"
    "|tokens_(?:buckets|ratio|histogram|to|per)"
    "|tiktoken|asttokens|pyjwt|monkey"  # packages, and a word that ends in key
    # counts
    "|(?<![a-z0-9])(?:max|min|num|total)_"
    f"(?:(?!{_OF_SECRETS})[a-z0-9]+_){{0,6}}?tokens(?![a-z0-9])"
    "|(?<![a-z0-9])(?:num|per|(?:max|min)_(?:new|num|total))_token(?![a-z0-9])"
    "|(?<![a-z0-9])(?:draft|prefill|decode|input|output|prompt|completion)_tokens(?![a-z0-9])"
    # words of a vocabulary, and keys by which something is found
    "|(?:bos|eos|pad|unk|sep|cls|mask|image|video|audio)_tokens?(?![a-z0-9])"
    "|(?:watermark|hashing|sort|cache|partition|foreign|routing|graph)_keys?(?![a-z0-9])"
)
_NUMBERS = re.compile(r"[\]\[0-9., ]+")
_ONE_WORD = re.compile("[A-Za-z0-9_.-]+")
_NAMED_BY_A_FIELD = frozenset({"value", "before", "after"})
_FRACTION_OR_LIST = re.compile(r"[0-9]+[.][0-9]+$|[{]|\[$")


# a key of something that has none to hide, unless its value is as long as a key
_MAY_BE_PLAIN = re.compile(
    "(?!.*(?:api|access|account|admin|auth|client|crypt|licen|master|priv|secret|serv|session|shared"
    "|sign|ssh|ssl|token|pass|user)).*_key_$"
)
_PLAIN_VALUE = re.compile("[a-z]{1,7}|[0-9]{1,9}|[0-9]+[.][0-9]+")


class _Promise(NamedTuple):
    """Whether a name promises a secret, and whether it still does beside such a value."""

    secret: bool
    beside_numbers: bool
    beside_fraction_or_list: bool
    beside_plain: bool  # a short word, a number


@lru_cache(maxsize=4096)
def _promise(name: str) -> _Promise:
    words = _NO_SECRET.sub("", "_" + re.sub("[^a-z0-9]", "_", name.lower()) + "_")
    if not _SECRET_NAME.search(words):
        return _Promise(False, False, False, False)
    no_counts = re.sub("token_id|tokens", "", words)
    kinds = (words, no_counts, no_counts.replace("token", ""))
    secret, numbers, fraction = (bool(_SECRET_NAME.search(kind)) for kind in kinds)
    return _Promise(secret, numbers, fraction, not _MAY_BE_PLAIN.match(words))


def bare(value: str) -> str:
    """The value without quotes, and without what follows a value in a list."""
    return re.sub(r"[\"'\\]", "", value).rstrip("],;:)}")


def is_secret(name: str, value: str) -> bool:
    """Whether the name of an option, variable or field promises that the value is a secret."""
    kinds = _promise(name)
    if not kinds.secret:
        return False
    text = bare(value).lower()
    if text in _NO_VALUE:
        return False
    if not kinds.beside_plain and _PLAIN_VALUE.fullmatch(text):
        return False
    if _FRACTION_OR_LIST.match(text):
        return kinds.beside_fraction_or_list
    return kinds.beside_numbers or not _NUMBERS.fullmatch(text)


# --- names and values in a text ---

_HINTS = (
    "key|token|secret|pass|pwd|pw|auth|cred|cookie|bearer|sig|webhook|jwt|session|pat|dsn|pin|otp"
    "|salt|serial|mnemonic|connection"
)
_NAME = re.compile(f"(?:{_HINTS})[a-z0-9_.-]*")
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
        plain = _end(_PLAIN, text, start)
        first = plain if plain > start else self._quoted_end(start)
        line = text.find("\n", start, first)
        return _Word(self._end_from(plain), line if line >= 0 else first)

    def _quoted_end(self, at: int) -> int:
        """Past the quote that closes the one there; the limit where none does."""
        mark = self._text[at : at + 1]
        end = _end(_QUOTED[mark], self._text, at, at + LONGEST) if mark in _QUOTED else at
        return end + 1 if end > at and self._text[end : end + 1] == mark else end

    def _end_from(self, at: int) -> int:
        text, passed = self._text, []
        while at not in self._ends and text[at : at + 1] in ("'", '"'):
            passed.append(at)
            end = self._quoted_end(at)
            closed = end - at > 1 and text[end - 1] == text[at]
            at = _end(_PLAIN, text, end) if closed else end
            if not closed:
                break
        end = self._ends.get(at, at)
        self._ends.update(dict.fromkeys(passed, end))
        return end


def _end(pattern: re.Pattern[str], text: str, start: int, limit: int = sys.maxsize) -> int:
    """Where a match at `start` ends; `start` without one."""
    match = pattern.match(text, start, limit)
    return match.end() if match else start


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


def _lower(text: str) -> str:
    """Small letters, as many characters as before."""
    return text.lower() if text.isascii() else re.sub("[A-Z]+", lambda m: m[0].lower(), text)


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
    opens = text.startswith("{", _end(_MARKS, text, start))
    if opens and not _promise(name).beside_fraction_or_list:
        return True
    return text.startswith(MASK, start) and _end(_PLAIN, text, start) == start + len(MASK)


def _mask_pairs(text: str, lower: str) -> str:
    spans: list[tuple[int, int, str]] = []
    for pair in pairs(text, lower):
        if spans and pair.start <= spans[-1][1]:
            start, end, _ = spans.pop()
            spans.append((start, max(end, pair.end), MASK))
        else:
            spans.append((pair.start, pair.end, MASK))
    return _replaced(text, spans)


def _replaced(text: str, spans: Iterable[tuple[int, int, str]]) -> str:
    """The text with spans of it, in order, replaced."""
    out, done = [], 0
    for start, end, instead in spans:
        out += [text[done:start], instead]
        done = end
    return "".join([*out, text[done:]]) if out else text


# --- what stands around a secret, or is its shape ---

_ANSI = re.compile("\x1b\\[[0-9;]*[a-zA-Z]")
_NOT_PRINTABLE = re.compile("[^ -~\n]")
_KEY_BEGIN = re.compile("-{4,5} ?BEGIN[A-Z0-9 ]{0,40}PRIVATE KEY")
_KEY_END = re.compile("-{4,5} ?END[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{0,5}")
_KEY_CHARS = 20_000  # of a private key with all its lines
_KEY_BODY = re.compile(
    r"[A-Z ]*-*[\\\s]*(?:[A-Z][A-Za-z-]*: [^\n]*\n)*[A-Za-z0-9+/=\\\s]*", re.ASCII
)


def without_private_keys(text: str) -> str:
    """The text with each private key masked as a whole: to its end, or what looks like one."""
    if "PRIVATE KEY" not in text:
        return text
    return _replaced(text, _private_keys(text))


def _private_keys(text: str) -> Iterator[tuple[int, int, str]]:
    ends = [match.end() for match in _KEY_END.finditer(text)]
    at = done = 0
    for begin in _KEY_BEGIN.finditer(text):
        if begin.start() < done:
            continue
        while at < len(ends) and ends[at] < begin.end():
            at += 1
        done = _end(_KEY_BODY, text, begin.end())
        if at < len(ends) and ends[at] - begin.end() <= _KEY_CHARS:
            done = ends[at]
        yield begin.start(), done, MASK


class _Around(NamedTuple):
    """A secret after a literal: of what matches there, group 1 stays."""

    literals: tuple[str, ...]  # in small letters
    pattern: re.Pattern[str]


def _around(literals: str, pattern: str) -> _Around:
    return _Around(tuple(literals.split("|")), re.compile(pattern, re.IGNORECASE | re.ASCII))


_AROUND = (
    _around(
        "authorization|cookie",
        r"((?:authorization|cookie)[\"'\\]*\s*[:=][\"'\\\s]*)[^\"\n']+",
    ),
    _around("bearer", r"(bearer(?:[\s:=]|%20)+)[^\s\"',]{6,}"),
    _around("basic", r"(basic(?:\s|%20)+)[^\s\"',]{6,}"),
    _around("hooks.slack.com/", r"(hooks\.slack\.com/[a-z]+/)[^\s\"']+"),
    _around("discord", r"(discord(?:app)?\.com/api/webhooks/)[^\s\"']+"),
    _around("webhook.office.com/", r"(webhook\.office\.com/)[^\s\"']+"),
    _around(
        "-u|--user|--proxy-user",
        r"((?<!\S)(?:-u|--(?:proxy-)?user)[\s=]*(?![\s=])[^\s:/]+:)\S+",
    ),
    _around("sshpass", r"(sshpass\s+-p\s*)\S+"),
    _around("login", r"(login\s+\S+\s+password\s+)\S+"),
)


def _found(text: str, literals: Iterable[str]) -> Iterator[int]:
    """Where any of the literals is in the text, in order."""
    places: list[int] = []
    for literal in literals:
        at = text.find(literal)
        while at >= 0:
            places.append(at)
            at = text.find(literal, at + len(literal))
    yield from sorted(places)


def _mask_around(text: str, lower: str, around: _Around) -> str:
    def spans() -> Iterator[tuple[int, int, str]]:
        done = 0
        for at in _found(lower, around.literals):
            match = around.pattern.match(text, at) if at >= done else None
            if match:
                done = match.end()
                yield match.end(1), done, MASK

    return _replaced(text, spans())


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
        colon = _end(_URL_USER, text, start)
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


_UUID = re.compile("-(?<=[0-9a-fA-F]{8}-)(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_DISCORD = re.compile(r"\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}")
_DISCORD_HEAD = re.compile(r"[MNOmno][A-Za-z0-9_-]{23,25}$")


def _discord_tokens(text: str) -> Iterator[tuple[int, int, str]]:
    done = 0
    for match in _DISCORD.finditer(text):
        before = max(done, match.start() - 26)
        head = _DISCORD_HEAD.search(text[before : match.start()])
        if head:
            done = match.end()
            yield before + head.start(), done, MASK


# What vendors' tokens look like: a prefix of theirs, then letters that make no words.
_VENDOR = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk-|gl(?:pat|rt|ptt|dt|soat|ft|cbt|imt|agent)-|xox[a-z]-|xapp-|pypi-|nvapi-|xai-|tvly-"
    r"|pplx-|GOCSPX-|NRAK-|PMAK-|A[KSB]IA|ACCA|AIza|ya29\.|1//0|hv[sb]\.|SG\.|eyJ"
    r"|dapi|ATATT3|ATBB|AGE-SECRET-KEY-|[A-Za-z0-9_~.-]{3}[0-9]Q~)[A-Za-z0-9_.=-]{10,}"
    r"|(?:hf|api_org|[srp]k(?:_live|_test)?|whsec|gh[pousr]|github_pat|npm|gsk|r8|dckr_[a-z]{1,20}"
    r"|do[opr]_v1|wandb_v1|lin_api|shp(?:at|ss|ca)|sntry[su]|glsa|rpa|figd|sb[pt]?|sb_secret"
    r"|pscale_tkn|ops)_[A-Za-z0-9]{10}[A-Za-z0-9_.=-]*)"
)
_TELEGRAM = re.compile(":(?<=[0-9]{8}:)AA[A-Za-z0-9_.=-]{10,}")
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
    word = _VENDOR.sub(_mask_vendor, word)
    for pattern in _RANDOM:
        word = pattern.sub(_mask_random, word)
    return word


_short_masked = lru_cache(maxsize=65536)(_mask_shapes)  # logs say the same over and over


def _long_masked(word: str) -> str:
    return _short_masked(word) if len(word) < 200 else _mask_shapes(word)


def holds_secret(text: str) -> bool:
    """Whether what stands around it, or a vendor's prefix, betrays a secret in a text, which is
    not the path of something that is there."""
    masked = _VENDOR.sub(_mask_vendor, _mask_surrounded(text))
    return masked.count(MASK) > text.count(MASK) and not _is_path("", text)


def mask_secrets(text: str) -> str:
    """The text without secrets that what stands around them, or their shape, betrays."""
    text = _UUID.sub("-...", _mask_surrounded(text))
    return _LONG.sub(_mask_long, text)


def _mask_surrounded(text: str) -> str:
    text = without_private_keys(text)
    if "://" in text:
        text = _URL.sub(_mask_url, text)
    if "%40" in text:
        text = _URL_ENCODED.sub(_mask_encoded_url, text)
    # first: what stands around a secret may hold the name of the next
    text = _mask_pairs(text, _lower(text))
    lower = _lower(text)
    for around in _AROUND:
        masked = _mask_around(text, lower, around)
        if masked is not text:
            text, lower = masked, _lower(masked)
    text = _replaced(text, _discord_tokens(text))
    return _TELEGRAM.sub(f":{MASK}", text)


def printable(text: str) -> str:
    """ASCII without terminal escapes, tabs or control characters but line feeds: what else there
    is, is a ? for each byte."""
    text = _ANSI.sub("", text) if "\x1b" in text else text
    text = text.replace("\t", " ")
    if not text.isascii():
        text = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return _NOT_PRINTABLE.sub("?", text)


# --- what names people ---

# fmt: off
_ROLES = frozenset((
    "root", "nobody", "user", "admin", "test", "ubuntu", "debian", "ec2-user", "azureuser",
    "runner", "jovyan", "docker", "cuda", "nvidia", "sglang", "vllm", "torch", "python",
    "localhost",
))
# fmt: on
_HOME = re.compile(r"(/(?:home|Users)/)[^/\s:<]+", re.ASCII)
_DOMAIN = re.compile(r"@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_LOCAL_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-")
_ADDRESS = re.compile(
    r"[0-9](?<![0-9.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?=:[0-9]{2,5}|[\]/])", re.DOTALL
)
# Addresses that no other network can reach distinguish nodes and betray nobody.
_PRIVATE = re.compile(
    r"(0|10|127|169\.254|192\.168|172\.(1[6-9]|2[0-9]|3[01])"
    r"|100\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7]))\."
)
_NCCL_HOST = re.compile(r"^([A-Za-z0-9.-]{4,255}):[0-9]+:[0-9]+ \[[0-9]+\] NCCL ", re.MULTILINE)


def _emails(text: str) -> Iterator[tuple[int, int, str]]:
    done = 0
    for match in _DOMAIN.finditer(text):
        start = match.start()
        while start > done and text[start - 1] in _LOCAL_CHARS:
            start -= 1
        if start < match.start() and not text.startswith("git@", start):
            yield start, match.end(), "<email>"
        done = match.end()


def _mask_address(match: re.Match[str]) -> str:
    return match[0] if _PRIVATE.match(match[0]) else "<address>"


@lru_cache(maxsize=512)
def _as_word(name: str) -> re.Pattern[str]:
    word = re.escape(name)
    return re.compile(f"{word}(?<![A-Za-z0-9_]{word})(?![A-Za-z0-9_])")


class People:
    """The home folder, users and hosts that are hidden wherever they turn up."""

    def __init__(self, environ: Mapping[str, str], user: str = "", host: str = "") -> None:
        self.home = environ.get("HOME", "").rstrip("/")
        users = [environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")]
        # the name of a role or a product names no person
        self.users = {name for name in [*users, user] if len(name) > 2 and name not in _ROLES}
        hosts = (environ.get("HOSTNAME", ""), host)
        self.hosts = {name for name in hosts if len(name) > 4 and name not in _ROLES}

    def hide(self, text: str) -> str:
        """The text without them, mail addresses and public addresses; hosts of NCCL's log lines
        are learnt from it."""
        if self.home:
            text = re.sub(f"{re.escape(self.home)}(?![A-Za-z0-9_.-])", "~", text)
        text = _HOME.sub(r"\1<user>", text)
        if "@" in text:
            text = _replaced(text, _emails(text))
        text = _ADDRESS.sub(_mask_address, text)
        if "] NCCL " in text:
            self.hosts.update(_NCCL_HOST.findall(text))
        for names, instead in ((self.users, "<user>"), (self.hosts, "<host>")):
            for name in sorted(names, key=len, reverse=True):
                text = _as_word(name).sub(instead, text) if name in text else text
        return text


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
        found = pairs(text, _lower(text))
        self.learn(bare(text[pair.start : min(pair.end, pair.start + LONGEST)]) for pair in found)

    def learn_from_json(self, value: object) -> None:
        """Learn what a JSON value names as secrets."""
        for name, text in _leaves(value):
            if is_secret(name, text):
                self.learn([bare(text)])
            else:
                self.learn_from(text)

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
