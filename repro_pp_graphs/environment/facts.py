"""The facts of one collection, masked as they come, and how they are printed."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator

from repro_pp_graphs.environment.masking import Masker

SECTIONS = ("summary", "system", "gpus", "network", "software", "environment", "server")
_TITLES = {"gpus": "GPUs", "environment": "Environment variables"}
_REMARKS = {
    "environment": "Only variables of known names are here (SGLANG_*, NCCL_*, CUDA_* and the like)."
}
_COLUMN, _WIDTH = 38, 80  # characters: the widest column of keys, a line
_MOST_CHARS = 16_000  # of a value
_NOT_IN_KEYS = re.compile("[^A-Za-z0-9 .,:/()_-]")


class Facts:
    """Facts by section and key, in the order in which their keys first came. The only way in is
    `add`, which masks: nothing else is printed."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._sections: dict[str, dict[str, str]] = {name: {} for name in SECTIONS}
        self._notes: dict[str, None] = {}

    def add(self, section: str, key: str, value: str) -> None:
        """A fact; a later one of the same key replaces it, an empty one keeps a place for it."""
        text = self._masker.value(key, _cut(value))
        self._sections[section][_NOT_IN_KEYS.sub("?", key)] = text.rstrip(" \n")

    def note(self, text: str) -> None:
        """What looks wrong: a line of the summary, once."""
        self._notes[text] = None

    def by_section(self) -> dict[str, dict[str, str]]:
        """Section -> key -> text of all that is known."""
        if self._notes:
            self.add("summary", "look at", "\n".join(self._notes))
        return {
            section: {key: text for key, text in facts.items() if text}
            for section, facts in self._sections.items()
        }


def _cut(value: str) -> str:
    """A value of bearable length, cut between words: half a secret would match no pattern."""
    if len(value) <= _MOST_CHARS:
        return value
    kept = value[:_MOST_CHARS]
    words = kept.rsplit(None, 1)
    whole = words[0] if len(words) == 2 and len(words[1]) < 1000 else kept
    return f"{whole} (cut)"


def as_json(found: dict[str, dict[str, str]]) -> str:
    """One JSON object with a line a fact."""
    return json.dumps({"schema": 1, **found}, indent=1) + "\n"


def as_text(found: dict[str, dict[str, str]]) -> str:
    """Markdown: a heading and a block of code a section, 80 columns but for long words."""
    return "".join(f"{line}\n" for section in found for line in _section(section, found[section]))


def _section(section: str, facts: dict[str, str]) -> Iterator[str]:
    yield f"## {_TITLES.get(section, section.capitalize())}"
    if section in _REMARKS:
        yield _REMARKS[section]
    yield "```text"
    width = min(max(map(len, facts), default=0), _COLUMN)
    for key, text in facts.items():
        if "\n" not in text:
            yield from _wrapped(f"{key:<{width}}  ", width + 2, text)
            continue
        yield key
        for line in text.split("\n"):
            # rows of tables stay as they are
            fits = len(line) + 2 <= _WIDTH or "  " in line
            yield from [f"  {line}"] if fits else _wrapped("  ", 2, line)
    yield from ("```", "")


def _wrapped(lead: str, indent: int, text: str) -> list[str]:
    """The text after a lead, its further lines indented; only words, as paths, stick out."""
    lines = textwrap.wrap(
        " ".join(text.split()), _WIDTH - indent, break_long_words=False, break_on_hyphens=False
    )
    return [(lead if number == 0 else " " * indent) + line for number, line in enumerate(lines)]


def spread(values: list[str]) -> str:
    """One text over several GPUs: "a" when all agree, "a, b, c" when none do, else
    "a (0,1), b (2)"."""
    where: dict[str, list[str]] = {}
    for number, value in enumerate(values):
        where.setdefault(value, []).append(str(number))
    if len(where) in (1, len(values)):
        return ", ".join(where)
    return ", ".join(f"{value} ({','.join(numbers)})" for value, numbers in where.items())


def count(words: Iterable[str]) -> str:
    """ "2 x a, 1 x b", in the order of the alphabet."""
    return ", ".join(f"{number} x {word}" for word, number in sorted(Counter(words).items()))
