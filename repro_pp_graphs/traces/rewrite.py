"""One rank's events given processes, threads and ids of their own."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, UnsetType

from repro_pp_graphs.traces.events import Value, mend

GPU_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"})
PROFILER_CATEGORIES = frozenset({"", "Trace", "overhead"})
# Kind of process -> its place in the rank's group; 0 is for the tracks that merging adds.
ORDER = {"CPU": 1, "GPU": 2, "profiler": 3}
PROCESSES_PER_RANK = 10
# Work that runs side by side though its lane is one stream or thread. Perfetto drops a slice that
# overlaps another of its thread in part.
SIDE_BY_SIDE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
GLOO = frozenset({"gloo:send", "gloo:recv"})
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


# (pid, tid) in the file -> (pid, tid) in the merged trace.
Lanes = dict[tuple[Any, Any], tuple[int, int]]
WIRE = msgspec.json.Decoder(list[WireEvent])
ENCODER = msgspec.json.Encoder()


class Rewritten(NamedTuple):
    """Encoded events, comma separated, and how many they are."""

    body: bytes
    events: int


class RankRewriter:
    """Maps one rank's pids, tids, flow ids and correlations to numbers no other rank has.

    `key` has three digits and is written in front of an id: no two ranks' ids can meet. Pids count
    from `first_pid` (ten a rank), tids are the pid and two digits.
    """

    def __init__(self, title: str, key: int, shift_ns: int, first_pid: int) -> None:
        self.title = title
        self.key = str(key)
        self.shift_ns = shift_ns
        self.first_pid = first_pid
        self.pids: dict[Any, int] = {}
        self.tids: dict[tuple[Any, Any], int] = {}
        self.threads: dict[int, int] = {}
        self.kinds: dict[Any, str] = {}
        self.held: list[WireEvent] = []
        # Lane in the file -> its tracks for work side by side: [tid, end of the last slice in ns].
        self.beside: dict[tuple[Any, Any, bool], list[list[int]]] = {}

    def rewrite(self, block: bytes) -> Rewritten | None:
        """The block's events in their new numbers; names of processes and threads are held back.

        A block that is no JSON is left out (reading the ranks has reported it).
        """
        events = self._decode(block)
        kept = [event for event in events if event.ph != "M"]
        self.held += [event for event in events if event.ph == "M"]
        key, shift = self.key, self.shift_ns
        last_pid: Value | UnsetType = UNSET
        last_tid: Value | UnsetType = UNSET
        pid = tid = 0
        for event in kept:
            if event.tid != last_tid or event.pid != last_pid:
                last_pid, last_tid = event.pid, event.tid
                if (last_pid, last_tid) not in self.tids:
                    self._admit(event)
                pid, tid = self.pids[last_pid], self.tids[last_pid, last_tid]
            event.pid, event.tid = pid, tid
            if event.cat in SIDE_BY_SIDE or (event.name in GLOO and event.cat == "user_annotation"):
                event.tid = self._beside(event, (last_pid, last_tid))
            if event.id is not UNSET:
                own = isinstance(event.id, int) and event.id >= 0
                event.id = int(f"{key}{event.id}") if own else f"{key}:{event.id}"
            if event.bind_id is not UNSET:
                event.bind_id = f"{key}:{event.bind_id}"
            if shift and event.ts is not UNSET:
                event.ts = (round(event.ts * 1000) + shift) / 1000
        return Rewritten(ENCODER.encode(kept)[1:-1], len(kept)) if kept else None

    def _decode(self, block: bytes) -> list[WireEvent]:
        keyed, key = block, self.key.encode()
        for name in RANK_IDS:
            written = name + b" " if name + b" " in keyed else name
            keyed = keyed.replace(written, written + key)
        for text in (keyed, block, mend(block)):
            try:
                return WIRE.decode(text)
            except msgspec.DecodeError:
                continue
        return []

    def _admit(self, event: WireEvent) -> None:
        """Number an event's process and thread when they are first seen."""
        old = event.pid
        if old not in self.pids:
            category = event.cat if isinstance(event.cat, str) else ""
            kind = (
                "GPU"
                if category in GPU_CATEGORIES
                else "profiler"
                if category in PROFILER_CATEGORIES
                else "CPU"
            )
            self.kinds[old] = kind
            pid = self.first_pid + ORDER[kind]
            if kind != "profiler" and pid in self.pids.values():
                pid = self.first_pid + len(ORDER) + len(set(self.pids.values()))
            self.pids[old] = pid
        self.tids[old, event.tid] = self._thread(self.pids[old])

    def _thread(self, pid: int) -> int:
        self.threads[pid] = self.threads.get(pid, 0) + 1
        return pid * 100 + self.threads[pid]

    def _beside(self, event: WireEvent, lane: tuple[Any, Any]) -> int:
        """A track of the lane on which nothing runs when the event starts; gloo has its own."""
        is_gloo = event.name in GLOO
        tracks = self.beside.setdefault((*lane, is_gloo), [] if is_gloo else [[self.tids[lane], 0]])
        start = round(event.ts * 1000) if event.ts is not UNSET else 0
        end = start + (round(event.dur * 1000) if event.dur is not UNSET else 0)
        for track in tracks:
            if track[1] <= start:
                track[1] = end
                return track[0]
        tracks.append([self._thread(self.pids[lane[0]]), end])
        return tracks[-1][0]

    def metadata(self) -> list[dict[str, Any]]:
        """Names and order of the processes and threads that hold events."""
        self._trust_labels()
        named: list[dict[str, Any]] = []
        for pid, old in {pid: old for old, pid in self.pids.items()}.items():
            kind = self.kinds[old]
            label = {"GPU": f"device {old}", "CPU": f"process {old}"}.get(kind, kind)
            facts = {
                "process_name": {"name": f"{self.title} · {kind}"},
                "process_labels": {"labels": label},
                "process_sort_index": {"sort_index": self.first_pid + ORDER[kind]},
            }
            named += [
                {"ph": "M", "name": name, "pid": pid, "tid": 0, "args": args}
                for name, args in facts.items()
            ]
        return named + self._threads()

    def lanes(self) -> Lanes:
        """Where the file's (pid, tid) went."""
        return {lane: (self.pids[lane[0]], tid) for lane, tid in self.tids.items()}

    def _trust_labels(self) -> None:
        """Kineto labels its processes CPU or GPU n: surer than the category of the first event."""
        for event in self.held:
            if event.name == "process_labels" and event.pid in self.kinds:
                label = str(_args(event).get("labels", ""))[:3]
                if label in ORDER:
                    self.kinds[event.pid] = label

    def _threads(self) -> list[dict[str, Any]]:
        kept: dict[tuple[Any, Any], dict[Any, dict[str, Any]]] = {
            (pid, tid): {"thread_name": {"name": tid}} if tid and isinstance(tid, str) else {}
            for pid, tid in self.tids
        }
        for event in self.held:
            if (event.pid, event.tid) in kept and str(event.name).startswith("thread_"):
                kept[event.pid, event.tid][event.name] = _args(event)
        rows = [
            (pid, self.tids[pid, tid], name, args)
            for (pid, tid), facts in kept.items()
            for name, args in facts.items()
        ]
        for (pid, tid, is_gloo), tracks in self.beside.items():
            own = str(kept[pid, tid].get("thread_name", {}).get("name", tid)).strip()
            suffix = "gloo" if is_gloo else "overlapping"
            rows += [
                (pid, track, "thread_name", {"name": f"{own} · {suffix}"})
                for track, _ in tracks
                if track != self.tids[pid, tid]
            ]
        return [
            {"ph": "M", "name": name, "pid": self.pids[pid], "tid": tid, "args": args}
            for pid, tid, name, args in rows
        ]


def _args(event: WireEvent) -> dict[str, Any]:
    found = msgspec.json.decode(event.args) if isinstance(event.args, Raw) else {}
    return found if isinstance(found, dict) else {}
