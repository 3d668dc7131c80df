"""A block of Kineto's own layout given other numbers without decoding it.

The text is cut where ids and lanes (a pid and its tid) stand and joined again with what takes their
place. What cannot be told from the text alone raises Irregular: such a block is decoded instead.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from operator import itemgetter

from repro_pp_graphs.traces.read.blocks import BOUNDARY

DIGITS = frozenset(b"0123456789")
RANK_IDS = (b'"correlation": ', b'"External id": ')
FLOW_ID = b'"id": '
BEFORE_FLOW_ID = re.compile(rb'"ph": "[stf]",\s*$')
LONGEST_BEFORE = 16
METADATA = b'"ph": "M"'
_NUMBER_OR_TEXT = rb'(?:-?\d+|"[^"\\]*")'
# A pid without its tid beside it is matched too, so that it is not overlooked.
LANE = re.compile(
    rb'("pid": (?:' + _NUMBER_OR_TEXT + rb',\s*"tid": ' + _NUMBER_OR_TEXT + rb"(?=,|\s))?)"
)
SIDE_BY_SIDE = (b'"cat": "kernel"', b'"cat": "gpu_mem')
GLOO = b'"gloo:'
OPENS_GLOO = re.compile(rb'"user_annotation",\s*"name": "gloo:(send|recv)",\s*$')
NAME = re.compile(rb'"name": "([^"\\]*)",\s*$')
TIMES = re.compile(rb',\s*"ts": (-?[\d.]+),\s*"dur": (-?[\d.]+)')
TS = re.compile(rb'("ts": )(-?[\d.]+)(?=,|\s)')


class Irregular(ValueError):
    """The text holds what these cuts do not cover."""


def around_metadata(text: bytes) -> Iterator[tuple[bytes, bool]]:
    """Events comma separated in up to three parts, and whether a part can be spliced.

    The part from the first to the last `M` event has to be decoded.
    """
    if BOUNDARY not in text:
        yield text, False
        return
    first = text.find(METADATA)
    if first < 0:
        yield text, True
        return
    begin = text.rfind(BOUNDARY, 0, first)
    end = text.find(BOUNDARY, text.rfind(METADATA))
    if begin >= 0:
        yield text[: begin + 1], True
    yield text[begin + 2 if begin >= 0 else 0 : end + 1 if end >= 0 else len(text)], False
    if end >= 0:
        yield text[end + 2 :], True


def key_ids(text: bytes, key: bytes) -> bytes:
    """The text with `key` before every id of events and flows."""
    for name in (*RANK_IDS, FLOW_ID):
        pieces = text.split(name)
        if not set(map(itemgetter(0), pieces[1:])) <= DIGITS:
            raise Irregular
        if name == FLOW_ID:
            before = {piece[-LONGEST_BEFORE:] for piece in pieces[:-1]}
            if not all(map(BEFORE_FLOW_ID.search, before)):
                raise Irregular
        text = (name + key).join(pieces)
    return text


class Cut:
    """Events as what stands between their lanes, and their lanes as they are written."""

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.pieces = LANE.split(text)
        self.lanes = self.pieces[1::2]

    def joined(self, lanes: list[bytes]) -> bytes:
        """The text with other lanes."""
        self.pieces[1::2] = lanes
        return b"".join(self.pieces)

    def first_name(self, lane: bytes) -> str:
        """The name of the lane's first event, where it is written plainly."""
        found = NAME.search(self.pieces[2 * self.lanes.index(lane)])
        return found[1].decode(errors="replace") if found else ""

    def side_by_side(self) -> Iterator[tuple[int, int, int, str]]:
        """Events that may overlap others of their lane in part, in the order of the file.

        Each as its index, start and length in ns, and `send` or `recv` where it is gloo's.
        """
        found = [(at, False) for category in SIDE_BY_SIDE for at in _places(self.text, category)]
        found += [(at, True) for at in _places(self.text, GLOO)]
        if not found:
            return
        # A piece ends with the category and name of the event whose lane follows it.
        ends = list(accumulate(map(len, self.pieces)))[::2]
        for place, is_gloo in sorted(found):
            at = bisect_left(ends, place)
            opens = OPENS_GLOO.search(self.pieces[2 * at]) if is_gloo else None
            if is_gloo and not opens:
                continue
            times = TIMES.match(self.pieces[2 * at + 2]) if at < len(self.lanes) else None
            if times is None:
                raise Irregular
            start_ns, dur_ns = (round(float(time) * 1000) for time in times.groups())
            yield at, start_ns, dur_ns, opens[1].decode() if opens else ""


def _places(text: bytes, words: bytes) -> Iterator[int]:
    at = text.find(words)
    while at >= 0:
        yield at
        at = text.find(words, at + 1)


def moved(text: bytes, events: int, shift_ns: int) -> bytes:
    """The text with shift_ns added to every ts (us); each of so many events has one."""
    pieces = TS.split(text)
    if len(pieces) != 3 * events + 1:
        raise Irregular
    pieces[2::3] = [
        repr((round(float(ts) * 1000) + shift_ns) / 1000).encode() for ts in pieces[2::3]
    ]
    return b"".join(pieces)
