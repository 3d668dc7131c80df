"""Values that differ, short enough for a table, and never shown alike.

Standard library only: `collect_env.sh --bundle` runs with any Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

MOST_CHARS = 40
MOST_ALIKE = 10  # characters at the head of long values that are shown though all have them


def told_apart(texts: Sequence[str]) -> list[str]:
    """Values as they are shown: long ones cut where they are alike, so that what differs stays."""
    at = _head_of_all([text for text in dict.fromkeys(texts) if len(text) > MOST_CHARS])
    most, shown = MOST_CHARS, list(texts)
    while most == MOST_CHARS or len(set(shown)) < len(set(texts)):
        shown = [text if len(text) <= most else _short(text, at, most) for text in texts]
        most *= 2  # until no two that differ are shown alike
    return shown


def _head_of_all(texts: list[str]) -> int:
    """How many characters several texts have alike at their heads, to the end of a whole word."""
    if len(texts) < 2:
        return 0
    pairs = zip(min(texts), max(texts), strict=False)
    alike = min(texts)[: sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))]
    return max(alike.rfind(mark) + 1 for mark in " /,") if len(alike) > MOST_ALIKE else 0


def _short(text: str, at: int, most: int) -> str:
    """From `at` on; of what is still too long, both ends."""
    rest = text[at:]
    if len(rest) > most:
        rest = f"{rest[: most // 2]}...{rest[-(most // 2 - 3) :]}"
    return f"...{rest}" if at else rest
