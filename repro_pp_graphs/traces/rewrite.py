"""One rank's events given processes, threads and ids of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from repro_pp_graphs.traces import splice
from repro_pp_graphs.traces.events import EVENT_GAP, NO_JSON, Value, each_of, mend
from repro_pp_graphs.traces.numbering import Facts, Gloo, Numbering

SIDE_BY_SIDE = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "overhead"})
GLOO: dict[str, Gloo] = {"gloo:send": "send", "gloo:recv": "recv"}
RANK_IDS = (b'"correlation":', b'"External id":')


class WireEvent(msgspec.Struct, gc=False, omit_defaults=True):
    """Any event of the Trace Event format; the arguments stay as they are written."""

    ph: str = ""
    cat: str | UnsetType = UNSET
    name: Value | UnsetType = UNSET
    pid: Value | UnsetType = UNSET
    tid: Value | UnsetType = UNSET
    ts: float | UnsetType = UNSET
    dur: float | UnsetType = UNSET
    id: Value | UnsetType = UNSET
    bp: str | UnsetType = UNSET
    s: str | UnsetType = UNSET
    tts: float | UnsetType = UNSET
    tdur: float | UnsetType = UNSET
    cname: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    bind_id: Value | UnsetType = UNSET
    flow_in: bool | UnsetType = UNSET
    flow_out: bool | UnsetType = UNSET
    id2: Raw | UnsetType = UNSET
    sf: Value | UnsetType = UNSET
    stack: Raw | UnsetType = UNSET
    esf: Value | UnsetType = UNSET
    estack: Raw | UnsetType = UNSET
    args: Raw | UnsetType = UNSET


WIRE = msgspec.json.Decoder(list[WireEvent])
WIRE_EVENT = msgspec.json.Decoder(WireEvent)
ENCODER = msgspec.json.Encoder()


class Rewritten(NamedTuple):
    """Encoded events, comma separated, and how many they are."""

    body: bytes
    events: int


class RankRewriter:
    """Maps one rank's pids, tids, flow ids and correlations to numbers no other rank has.

    `key` has three digits and is written in front of an id: no two ranks' ids can meet. Where the
    file is `sound` (JSON to its end, nothing to mend) blocks of Kineto's layout are not decoded.
    """

    def __init__(self, numbering: Numbering, key: int, shift_ns: int, *, sound: bool) -> None:
        self.numbering = numbering
        self.key = str(key)
        self.shift_ns = shift_ns
        self.sound = sound
        self.held: list[WireEvent] = []
        # A lane as it is written -> the same in the file, and as it is to be written.
        self.lanes: dict[bytes, tuple[tuple[Any, Any], bytes]] = {}

    def rewrite(self, block: memoryview) -> Rewritten | None:
        """The block's events in their new numbers; names of processes and threads are held back.

        A block that is no JSON is left out (reading the ranks has reported it).
        """
        text = bytes(block[1:-1])
        parts = splice.around_metadata(text) if self.sound else [(text, False)]
        done = [
            found
            for part, regular in parts
            if (found := (self._spliced(part) if regular else None) or self._recoded(part))
        ]
        if not done:
            return None
        return Rewritten(EVENT_GAP.join(each.body for each in done), sum(n for _, n in done))

    def _spliced(self, text: bytes) -> Rewritten | None:
        """Regular events with ids and lanes replaced in their text; None where there are others."""
        try:
            cut = splice.Cut(splice.key_ids(text, self.key.encode()))
            for lane in dict.fromkeys(cut.lanes):
                if lane not in self.lanes:
                    self.lanes[lane] = self._lane(lane, cut.first_name(lane))
            new = [self.lanes[lane][1] for lane in cut.lanes]
            for at, start_ns, dur_ns, gloo in cut.side_by_side():
                old = self.lanes[cut.lanes[at]][0]
                tid = self.numbering.track(old, start_ns, dur_ns, gloo)
                new[at] = self._written(old, tid)
            body = cut.joined(new)
            if self.shift_ns:
                body = splice.moved(body, len(new), self.shift_ns)
        except splice.Irregular:
            return None
        return Rewritten(body, len(new))

    def _lane(self, text: bytes, name: str) -> tuple[tuple[Any, Any], bytes]:
        """The lane behind its text, of a known process; the profiler's own slices may overlap."""
        try:
            found = msgspec.json.decode(b"{" + text + b"}")
        except msgspec.DecodeError as error:
            raise splice.Irregular from error
        old = found["pid"], found["tid"]
        if self.numbering.kinds.get(old[0], "profiler") == "profiler":
            raise splice.Irregular  # what kind of process it is the event's category tells
        self.numbering.admit(old, None, name)
        return old, self._written(old, self.numbering.tids[old])

    def _written(self, old: tuple[Any, Any], tid: int) -> bytes:
        return b'"pid": %d, "tid": %d' % (self.numbering.pids[old[0]], tid)

    def _recoded(self, text: bytes) -> Rewritten | None:
        """Any events, decoded and encoded again."""
        events = self._decode(text)
        kept = [event for event in events if event.ph != "M"]
        self.held += [event for event in events if event.ph == "M"]
        key, shift, numbering = self.key, self.shift_ns, self.numbering
        for event in kept:
            old = event.pid, event.tid
            numbering.admit(old, event.cat, event.name)
            event.pid, event.tid = numbering.pids[old[0]], numbering.tids[old]
            gloo: Gloo = GLOO.get(str(event.name), "") if event.cat == "user_annotation" else ""
            if gloo or event.cat in SIDE_BY_SIDE:
                event.tid = numbering.track(old, _ns(event.ts), _ns(event.dur), gloo)
            if event.id is not UNSET:
                own = isinstance(event.id, int) and event.id >= 0
                event.id = int(f"{key}{event.id}") if own else f"{key}:{event.id}"
            if event.bind_id is not UNSET:
                event.bind_id = f"{key}:{event.bind_id}"
            if shift and event.ts is not UNSET:
                event.ts = (_ns(event.ts) + shift) / 1000
        return Rewritten(ENCODER.encode(kept)[1:-1], len(kept)) if kept else None

    def _decode(self, text: bytes) -> list[WireEvent]:
        keyed, key = text, self.key.encode()
        for name in RANK_IDS:
            written = name + b" " if name + b" " in keyed else name
            keyed = keyed.replace(written, written + key)
        # an id that is no number takes no key; what has to be mended still takes it
        for version in (keyed, text):
            for change in (bytes, mend):
                try:
                    return WIRE.decode(b"[" + change(version) + b"]")
                except NO_JSON:
                    continue
        try:
            return each_of(b"[" + mend(keyed) + b"]", WIRE_EVENT)[0]
        except NO_JSON:
            return []

    def metadata(self) -> list[Facts]:
        """Names and order of the processes and threads that hold events."""
        told: dict[tuple[Any, Any], dict[str, Facts]] = {}
        for event in self.held:
            args = msgspec.json.decode(event.args) if isinstance(event.args, Raw) else {}
            args = args if isinstance(args, dict) else {}
            if event.name == "process_labels":
                self.numbering.trust_label(event.pid, str(args.get("labels", "")))
            if str(event.name).startswith("thread_"):
                told.setdefault((event.pid, event.tid), {})[str(event.name)] = args
        return self.numbering.processes() + self.numbering.named_threads(told)


def _ns(time_us: float | UnsetType) -> int:
    return 0 if isinstance(time_us, UnsetType) else round(time_us * 1000)
