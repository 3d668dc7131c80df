"""Parts of a text: where a match ends, and other words in their place."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable


def end(pattern: re.Pattern[str], text: str, start: int, limit: int = sys.maxsize) -> int:
    """Where a match at `start` ends; `start` without one."""
    match = pattern.match(text, start, limit)
    return match.end() if match else start


def lower(text: str) -> str:
    """Small letters, as many characters as before."""
    return text.lower() if text.isascii() else re.sub("[A-Z]+", lambda m: m[0].lower(), text)


def replaced(text: str, parts: Iterable[tuple[int, int, str]]) -> str:
    """The text with parts of it, (start, end, instead) in order, replaced."""
    out, done = [], 0
    for start, end, instead in parts:
        out += [text[done:start], instead]
        done = end
    return "".join([*out, text[done:]]) if out else text
