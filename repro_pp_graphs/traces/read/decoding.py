"""Blocks of a trace as events of one type: what is no JSON, no event or at an impossible time is
left out and counted. A block with nothing of the kind costs its decoding and no more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar, cast, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from repro_pp_graphs.traces.read.blocks import BOUNDARY, EVENT_GAP, TraceFile
from repro_pp_graphs.traces.read.numbers import LATEST_NS
from repro_pp_graphs.traces.read.salvage import NO_JSON, Damage, mend, take_apart

# No profile is as long: an event further from the first ones of its file has an impossible time.
HOUR_US = 3600e6
LATEST_US = LATEST_NS / 1000
# So much of a block is looked at to find out when a file begins.
SAMPLE_BYTES = 1 << 14

ODD = "odd"
NO_TIME = "whose time is no number"
FAR = "at ts 0 or more than an hour from the file's first"
NEGATIVE = "of negative length"
LONG = "longer than two hours"

# So many types with bounds are kept, for files that are read again.
KINDS = 256

EventType = TypeVar("EventType", bound=msgspec.Struct)


# The Trace Event format's; Kineto writes X, M, s, f and i.
Phase = Literal[
    "X", "M", "s", "f", "t", "i", "I", "B", "E", "C", "b", "e", "n", "S", "F", "T", "p", "P", "N",
    "O", "D", "V", "v", "R", "c", "(", ")",
]  # fmt: skip
PHASES = frozenset(get_args(Phase))


class Times(NamedTuple):
    """The earliest and the latest ts that an event of a file can have, us."""

    first: float
    last: float


class _Clock(msgspec.Struct):
    """What is looked at of an event that has been refused."""

    ph: str = ""
    ts: object = None
    dur: object = 0.0


CLOCK = msgspec.json.Decoder(_Clock)
CLOCKS = msgspec.json.Decoder(list[_Clock])


@dataclass(slots=True)
class LeftOut:
    """Events left out: by reason, and those whose text is damaged, with a word on the first."""

    reasons: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    first_damage: str = ""

    def add_damage(self, damage: list[Damage], start: int) -> None:
        """Count stretches of an array that begins at byte `start` of the JSON."""
        for found in damage:
            if found.events and not self.damaged:
                self.first_damage = found.about(start)
            self.damaged += found.events


class Decoding(Generic[EventType]):
    """Decodes the blocks of one file into events of a type with the fields ph, ts and dur.

    `times` are known from the first block on that holds an event with a time.
    """

    def __init__(self, kind: type[EventType], times: Times | None = None) -> None:
        self.kind = kind
        self.times = times
        self.left_out = LeftOut()
        self._any_time = _decoders(kind)
        self._use(kind if times is None else _timed(kind, times))

    def events(self, block: memoryview | bytes, start: int = 0) -> list[EventType]:
        """The events of a JSON array that begins at byte `start` of the file's JSON."""
        if self.times is None:
            self._find_times(block)
        try:
            if self.times:
                return self._strict.decode(block)
        except NO_JSON:
            pass
        return self._slowly(bytes(block), start)

    def _use(self, kind: type[EventType]) -> None:
        self._strict = msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]
        self._lax = msgspec.json.Decoder(list[kind], strict=False)  # type: ignore[valid-type]
        self._singly = _decoders(kind)

    def _find_times(self, block: memoryview | bytes) -> None:
        """Bound times by an hour around the middle one of the first events that have one."""
        for size in (SAMPLE_BYTES, len(block)):
            clocks = _clocks(bytes(block[1:size]))
            moments = [ts for clock in clocks if clock.ph == "X" and (ts := _ts(clock.ts))]
            if moments:
                middle = sorted(moments)[len(moments) // 2]
                self.times = Times(middle - HOUR_US, middle + HOUR_US)
                self._use(_timed(self.kind, self.times))
                return

    def _slowly(self, block: bytes, start: int) -> list[EventType]:
        """The events of a block that does not decode as it is written."""
        try:  # numbers that are strings, or none that JSON knows
            if self.times:
                return self._lax.decode(mend(block))
        except NO_JSON:
            pass
        texts, damage = take_apart(block[1:-1])
        self.left_out.add_damage(damage, start + 1)
        return [event for text in texts if (event := self._decoded(text)) is not None]

    def _decoded(self, text: bytes) -> EventType | None:
        """One event; None and counted where it cannot be used."""
        clock = _clock(text)
        # of a process or thread: its time says nothing
        why = "" if clock.ph == "M" else self._impossible(clock)
        why = why if clock.ph in PHASES else ODD
        for decoder in () if why else self._singly if clock.ph == "X" else self._any_time:
            try:
                return decoder.decode(text)
            except NO_JSON:
                pass
        self.left_out.reasons[why or ODD] += 1
        return None

    def _impossible(self, clock: _Clock) -> str:
        """What is wrong with an event's time, empty where nothing is."""
        ts, dur = _ts(clock.ts), _us(clock.dur)
        if ts is None or dur is None:
            return NO_TIME
        if not self.times:
            return FAR if clock.ph == "X" else ""  # all that the block has are at 0
        if not self.times.first <= ts <= self.times.last:
            return FAR
        if dur < 0:
            return NEGATIVE
        return LONG if dur > 2 * HOUR_US else ""


def _decoders(kind: type[EventType]) -> tuple[msgspec.json.Decoder[EventType], ...]:
    """For one event: as it is written, then with strings for numbers."""
    return msgspec.json.Decoder(kind), msgspec.json.Decoder(kind, strict=False)


def events_of(trace: TraceFile, decoding: Decoding[EventType]) -> Iterator[list[EventType]]:
    """The events of a trace, block by block; complete but for what `decoding` left out."""
    for block in trace.blocks():
        yield decoding.events(block, trace.at)
    decoding.left_out.add_damage(trace.damage, trace.at + 1)


def _clock(event: bytes) -> _Clock:
    try:
        return CLOCK.decode(event)
    except NO_JSON:
        return _Clock()


def _clocks(array: bytes) -> list[_Clock]:
    """Of the events of an array without its brackets, whose last one may be cut."""
    cut = array.rfind(BOUNDARY) + 1
    try:
        clocks = CLOCKS.decode(b"[%b]" % array[:cut])
    except NO_JSON:
        clocks, cut = [], 0
    rest = array[cut + len(EVENT_GAP) :] if cut else array
    return clocks + [_clock(event) for event in take_apart(rest)[0]]


def _us(value: object) -> float | None:
    """A time as a number, None where it is none."""
    if not isinstance(value, int | float | str) or isinstance(value, bool):
        return None
    try:
        time = float(value)
    except (ValueError, OverflowError):
        return None
    return time if math.isfinite(time) else None


def _ts(value: object) -> float | None:
    """A moment as a number, None where it is none, or after all that int64 holds in ns."""
    time = _us(value)
    return time if time is not None and abs(time) <= LATEST_US else None


@lru_cache(maxsize=KINDS)
def _timed(kind: type[EventType], times: Times) -> type[EventType]:
    """The type with bounds on its times for the decoder to check, and a phase that must be there;
    where it has no word for what is absent, so must all else that every event has."""
    fields = {each.name: each for each in msgspec.structs.fields(kind)}
    ts = Annotated[float, Meta(ge=times.first, le=times.last)]
    dur = Annotated[float, Meta(ge=0, le=2 * HOUR_US)] | UnsetType
    optional = fields["ts"].default is UNSET
    needed = [] if optional else [(name, fields[name].type) for name in ("name", "pid", "tid")]
    timed = msgspec.defstruct(
        kind.__name__,
        [
            ("ph", Phase),
            ("ts", ts | UnsetType, UNSET) if optional else ("ts", ts),
            ("dur", dur, fields["dur"].default),
            *needed,
        ],
        bases=(kind,),
        gc=False,
        kw_only=not optional,
    )
    return cast(type[EventType], timed)
