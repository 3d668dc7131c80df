"""The events of an array that is no JSON: each that is whole, and what is damaged.

The text is cut where one object ends and the next begins, whatever the layout. A piece that is no
JSON is looked through for whole events, as the damage may be the very place of the cut.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

# Deep nesting is valid JSON, but no event has it.
NO_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
GAP = re.compile(rb'\}\s*,\s*(?=\{\s*")')
BETWEEN = b", \t\r\n"
OBJECT = re.compile(r'\{\s*"')
PHASE = re.compile(rb'"ph"\s*:')
NON_JSON_NUMBER = re.compile(rb"([:\[,]\s*)[-+]?(?:inf|nan|Infinity|NaN)\b")
# A name with quotes in it ends where the event's next key begins.
NAME = re.compile(
    rb'"name":\s*"(.*?)"?\s*(?:,\s*"(?:ph|cat|pid|tid|ts|dur|args|id)":|$)', re.DOTALL
)
TS = re.compile(rb'"ts":\s*"?(-?[\d.eE+]+)')
LONGEST_NAME = 50
ONE_VALUE = json.JSONDecoder()


class _Phase(msgspec.Struct):
    ph: str


ANY_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
EVENT = msgspec.json.Decoder(_Phase)


class Damage(NamedTuple):
    """Text that is no event, and where in the array it begins."""

    at: int
    text: bytes

    @property
    def events(self) -> int:
        """How many events it was, as far as can be seen; 0 for a comma that is damaged."""
        return len(PHASE.findall(self.text)) or int(b'"' in self.text)

    def about(self, start: int = 0) -> str:
        """Name, ts and place, counted from 1, in a file where the array begins at byte `start`."""
        name, ts = NAME.search(self.text), TS.search(self.text)
        said = [f"named {_shown(name[1])}"] if name else []
        said += [f"ts {ts[1].decode(errors='replace')}"] if ts else []
        return ", ".join([*said, f"byte {start + self.at + 1} of the JSON"])


def _shown(name: bytes) -> str:
    text = name.decode(errors="replace")
    return ascii(text[:LONGEST_NAME] + "..." * (len(text) > LONGEST_NAME))


def utf_8(text: bytes) -> bytes:
    """The text, what is no UTF-8 in it replaced."""
    return text if text.isascii() else text.decode(errors="replace").encode()


def mend(text: bytes) -> bytes:
    """The text with numbers JSON has no word for (inf, nan) as null, and as UTF-8. Slow: for a text
    that does not decode as it is."""
    return utf_8(NON_JSON_NUMBER.sub(rb"\1null", text))


def whole(text: bytes, kind: msgspec.json.Decoder[Any]) -> bytes | None:
    """The text, mended where it has to be; None where it is none of its kind."""
    for version in (bytes, mend):
        try:
            kind.decode(found := version(text))
        except NO_JSON:
            continue
        return found
    return None


def take_apart(array: bytes) -> tuple[list[bytes], list[Damage]]:
    """The whole events of a text between an array's brackets, and the stretches that are none.

    A stretch may be several events, or none (a comma that is missing between two whole ones).
    """
    events: list[bytes] = []
    damage: list[Damage] = []
    begin = None  # of pieces in a row that are no events
    for start, end in _pieces(array):
        event = whole(array[start:end], EVENT if begin is not None else ANY_OBJECT)
        if event is None:
            begin = start if begin is None else begin
            continue
        if begin is not None:
            _look_through(array, begin, start, events, damage)
            begin = None
        events.append(event)
    if begin is not None:
        _look_through(array, begin, len(array), events, damage)
    return events, damage


def _pieces(array: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in GAP.finditer(array):
        yield start, gap.start() + 1
        start = gap.end()
    yield start, len(array)


def _look_through(
    array: bytes, begin: int, end: int, events: list[bytes], damage: list[Damage]
) -> None:
    """Add the whole events between two places, and what stands between those."""
    text = array[begin:end].decode("latin-1")  # a letter a byte
    done = 0
    for found in OBJECT.finditer(text):
        if found.start() < done:
            continue
        try:
            _, over = ONE_VALUE.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            continue
        event = whole(array[begin + found.start() : begin + over], EVENT)
        if event is not None:
            _add(Damage(begin + done, array[begin + done : begin + found.start()]), damage)
            events.append(event)
            done = over
    _add(Damage(begin + done, array[begin + done : end]), damage)


def _add(found: Damage, damage: list[Damage]) -> None:
    if found.text.strip(BETWEEN):
        damage.append(found)
