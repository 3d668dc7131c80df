"""One rank's events given processes, threads and ids of their own."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from repro_pp_graphs.traces.merge.numbering import Facts, Gloo, Numbering
from repro_pp_graphs.traces.read.blocks import Value, plain
from repro_pp_graphs.traces.read.decoding import Decoding, Times
from repro_pp_graphs.traces.read.salvage import NO_JSON, utf_8

SIDE_BY_SIDE = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "overhead"})
GLOO: dict[str, Gloo] = {"gloo:send": "send", "gloo:recv": "recv"}
RANK_IDS = re.compile(rb'("(?:correlation|External id)":\s*"?)(?=\d)')


class WireEvent(msgspec.Struct, gc=False, omit_defaults=True):
    """Any event of the Trace Event format; what is not read of it stays as it is written."""

    ph: str = ""
    cat: str | UnsetType = UNSET
    name: Value | UnsetType = UNSET
    pid: Value | UnsetType = UNSET
    tid: Value | UnsetType = UNSET
    ts: float | UnsetType = UNSET
    dur: float | UnsetType = UNSET
    id: Value | UnsetType = UNSET
    bp: Raw | UnsetType = UNSET
    s: Raw | UnsetType = UNSET
    tts: Raw | UnsetType = UNSET
    tdur: Raw | UnsetType = UNSET
    cname: Raw | UnsetType = UNSET
    scope: Raw | UnsetType = UNSET
    bind_id: Value | UnsetType = UNSET
    flow_in: Raw | UnsetType = UNSET
    flow_out: Raw | UnsetType = UNSET
    id2: Raw | UnsetType = UNSET
    sf: Raw | UnsetType = UNSET
    stack: Raw | UnsetType = UNSET
    esf: Raw | UnsetType = UNSET
    estack: Raw | UnsetType = UNSET
    args: Raw | UnsetType = UNSET


ENCODER = msgspec.json.Encoder()
# Kineto marks moments for the whole trace; Perfetto shows such as "Unnamed SliceTrack", above all.
WHOLE_TRACE, OWN_TRACK = Raw(b'"g"'), Raw(b'"t"')
ARGUMENTS = msgspec.json.Decoder(dict[str, Any])


class Reading(NamedTuple):
    """What was found when the file was first read.

    `times` the first and last possible ts, `left_out_ns` ts and length of further events that
    cannot be; `span_us`: the ts that are asked for, None for all.
    """

    times: Times | None = None
    left_out_ns: frozenset[tuple[int, int]] = frozenset()
    span_us: tuple[float, float] | None = None


class Rewritten(NamedTuple):
    """Encoded events, comma separated, and how many they are."""

    body: bytes
    events: int


class RankRewriter:
    """Maps one rank's pids, tids, flow ids and correlations to numbers no other rank has.

    `key` has three digits and is written in front of an id: no two ranks' ids can meet.
    """

    def __init__(self, numbering: Numbering, key: int, shift_ns: int, reading: Reading) -> None:
        self.numbering = numbering
        self.key = str(key)
        self.shift_ns = shift_ns
        self.reading = reading
        self.decoding = Decoding(WireEvent, reading.times)
        self.held: list[WireEvent] = []

    def rewrite(self, block: memoryview) -> Rewritten | None:
        """The block's events in their new numbers; names of processes and threads are held back.

        What reading the ranks could not use, and has reported, is left out.
        """
        events = self._decode(utf_8(bytes(block)))
        kept = [event for event in events if event.ph != "M" and _is_whole(event)]
        if span := self.reading.span_us:
            kept = [event for event in kept if _touches(event, span)]
        self.held += [event for event in events if event.ph == "M"]
        key, shift, numbering = self.key, self.shift_ns, self.numbering
        for event in kept:
            old = _lane_of(event)
            numbering.admit(old, event.cat, event.name)
            event.pid, event.tid = numbering.pids[old[0]], numbering.tids[old]
            gloo: Gloo = GLOO.get(str(event.name), "") if event.cat == "user_annotation" else ""
            if gloo or event.cat in SIDE_BY_SIDE:
                event.tid = numbering.track(old, _ns(event.ts), _ns(event.dur), gloo)
            if event.id is not UNSET:
                own = isinstance(event.id, int) and event.id >= 0
                event.id = int(f"{key}{event.id}") if own else f"{key}:{event.id}"
            if event.s == WHOLE_TRACE:
                event.s = OWN_TRACK
            if event.bind_id is not UNSET:
                event.bind_id = f"{key}:{event.bind_id}"
            if shift and event.ts is not UNSET:
                event.ts = (_ns(event.ts) + shift) / 1000
        return Rewritten(ENCODER.encode(kept)[1:-1], len(kept)) if kept else None

    def _decode(self, text: bytes) -> list[WireEvent]:
        parts, key = RANK_IDS.split(text), self.key.encode()
        parts[1::2] = [before + key for before in parts[1::2]]  # a template is slower before 3.12
        events = self.decoding.events(b"".join(parts))
        if not self.reading.left_out_ns:
            return events
        return [event for event in events if not self._left_out(event)]

    def _left_out(self, event: WireEvent) -> bool:
        """Whether reading has left it out; lengths are good to a ns, as ends are rounded."""
        ts, dur = _ns(event.ts), _ns(event.dur)
        return any((ts, dur + off) in self.reading.left_out_ns for off in (-1, 0, 1))

    def metadata(self) -> list[Facts]:
        """Names and order of the processes and threads that hold events."""
        threads: dict[tuple[Any, Any], dict[str, Facts]] = {}
        for event in self.held:
            args: Facts = {}
            with suppress(*NO_JSON):
                args = ARGUMENTS.decode(event.args) if isinstance(event.args, Raw) else {}
            lane = _lane_of(event)
            if event.name == "process_labels":
                self.numbering.trust_label(lane[0], str(args.get("labels", "")))
            if str(event.name).startswith("thread_"):
                threads.setdefault(lane, {})[str(event.name)] = args
        return self.numbering.processes() + self.numbering.named_threads(threads)


def _is_whole(event: WireEvent) -> bool:
    """Whether an event has what the format asks of one with a time."""
    return not (
        event.ts is UNSET
        or event.pid is UNSET
        or event.tid is UNSET
        or not isinstance(event.name, str)
        or (event.ph == "X" and event.dur is UNSET)
    )


def _touches(event: WireEvent, span_us: tuple[float, float]) -> bool:
    """Whether a part of the event lies in a time; the profiler's own slice of all that it recorded
    does in none: the viewer would show that time, and a sliver of it with the rest."""
    if event.cat == "Trace":
        return False
    begin = event.ts if isinstance(event.ts, float | int) else span_us[0]
    length = event.dur if isinstance(event.dur, float | int) else 0
    return begin <= span_us[1] and begin + length >= span_us[0]


def _lane_of(event: WireEvent) -> tuple[Any, Any]:
    pid, tid = event.pid, event.tid
    return plain(pid) if type(pid) is str else pid, plain(tid) if type(tid) is str else tid


def _ns(time_us: float | UnsetType) -> int:
    return 0 if isinstance(time_us, UnsetType) else round(time_us * 1000)
