"""Facts that a process of its own finds: it prints them as it goes, a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

LOOK_AT = "look at"  # the key of what looks wrong; may come several times
_LINE_FEED = "\x1e"  # in a value
_SECTIONS = ("summary", "network", "software", "server")


class Fact(NamedTuple):
    """One line: section, key and value, with a tab between each two."""

    section: str
    key: str
    value: str


def print_facts(*finders: Callable[[], Iterable[Fact]]) -> None:
    """Print each fact as it comes: a finder that dies, foreign libraries last, takes none along."""
    for finder in finders:
        last = "the start"
        try:
            for fact in finder():
                last = fact.key
                print(*map(_on_one_line, fact), sep="\t", flush=True)
        except Exception as error:
            print("software", f"failed after {last}", repr(error), sep="\t", flush=True)


def _on_one_line(text: str) -> str:
    return _LINE_FEED.join(" ".join(line.split()) for line in text.split("\n"))


def read_facts(text: str) -> Iterator[Fact]:
    """The facts of such lines; other lines are passed over."""
    for line in text.split("\n"):
        section, _, rest = line.partition("\t")
        key, _, value = rest.partition("\t")
        if section in _SECTIONS and value:
            yield Fact(section, key, value.replace(_LINE_FEED, "\n"))
