"""The processes and threads of one rank under numbers of their own, and what they are called."""

from __future__ import annotations

from typing import Any

from repro_pp_graphs.traces.merge.track_names import Lane, Lanes, Names

GPU_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"})
PROFILER_CATEGORIES = frozenset({"", "Trace", "overhead"})
# Kind of process -> its place in the rank's group; 0 is for the tracks that merging adds.
ORDER = {"CPU": 1, "GPU": 2, "profiler": 3}
PROCESSES_PER_RANK = 10
# What torch's NCCL watchdog does all the time: ask whether the last operation's event has passed.
POLLING = frozenset({"EventQuery", "ThreadExchangeStreamCaptureMode"})

Facts = dict[str, Any]
Gloo = str  # "send" or "recv", empty for an event that is not gloo's


class Numbering:
    """New numbers in the order of first appearance.

    Pids count from `first_pid` (ten a rank), tids are the pid and two digits.
    """

    def __init__(self, names: Names, first_pid: int) -> None:
        self.names = names
        self.first_pid = first_pid
        self.pids: dict[Any, int] = {}
        self.tids: dict[tuple[Any, Any], int] = {}
        self.threads: dict[int, int] = {}
        self.kinds: dict[Any, str] = {}
        self.first_events: dict[Lane, str] = {}
        # Lane in the file -> its tracks for work side by side: [tid, end of the last slice in ns].
        self.beside: dict[tuple[Lane, Gloo], list[list[int]]] = {}
        self.gloo_recvs: dict[tuple[Lane, int], int] = {}

    def admit(self, lane: Lane, category: object, name: object) -> None:
        """Number a process and thread first seen in an event of that category and name."""
        if lane in self.tids:
            return
        pid = lane[0]
        if pid not in self.pids:
            kind = (
                "GPU"
                if category in GPU_CATEGORIES
                else "profiler"
                if not isinstance(category, str) or category in PROFILER_CATEGORIES
                else "CPU"
            )
            self.kinds[pid] = kind
            number = self.first_pid + ORDER[kind]
            if kind != "profiler" and number in self.pids.values():
                number = self.first_pid + len(ORDER) + len(set(self.pids.values()))
            self.pids[pid] = number
        self.tids[lane] = self._thread(self.pids[pid])
        self.first_events[lane] = str(name or "")

    def _thread(self, pid: int) -> int:
        self.threads[pid] = self.threads.get(pid, 0) + 1
        return pid * 100 + self.threads[pid]

    def track(self, lane: Lane, start_ns: int, dur_ns: int, gloo: Gloo) -> int:
        """The tid of a track of the lane on which nothing runs at the start; gloo's sends and recvs
        have their own.

        Work side by side on one stream or thread must not share one: Perfetto drops a slice that
        overlaps another of its thread in part.
        """
        end_ns = start_ns + dur_ns
        tracks = self.beside.get((lane, gloo))
        if tracks is None:
            tracks = self.beside[lane, gloo] = [] if gloo else [[self.tids[lane], 0]]
        for track in tracks:
            if track[1] <= start_ns:
                track[1] = end_ns
                break
        else:
            track = [self._thread(self.pids[lane[0]]), end_ns]
            tracks.append(track)
        if gloo == "recv":
            self.gloo_recvs[lane, start_ns] = track[0]
        return track[0]

    def lanes(self) -> Lanes:
        """Where the file's lanes and gloo operations went."""
        moved = {lane: (self.pids[lane[0]], tid) for lane, tid in self.tids.items()}
        return Lanes(moved, self.gloo_recvs)

    def trust_label(self, pid: object, label: str) -> None:
        """Kineto labels its processes CPU or GPU n: surer than the category of the first event."""
        if pid in self.kinds and label[:3] in ORDER:
            self.kinds[pid] = label[:3]

    def processes(self) -> list[Facts]:
        """Metadata events: names and order of the processes."""
        named: list[Facts] = []
        case = f" ({self.names.case})" if self.names.case else ""
        for pid, old in {pid: old for old, pid in self.pids.items()}.items():
            kind = self.kinds[old]
            label = {"GPU": f"device {old}", "CPU": f"process {old}"}.get(kind, kind)
            facts: dict[str, Facts] = {
                "process_name": {"name": f"{self.names.title} · {kind}{case}"},
                "process_labels": {"labels": label},
                "process_sort_index": {"sort_index": self.first_pid + ORDER[kind]},
            }
            named += [_metadata(pid, 0, name, args) for name, args in facts.items()]
        return named

    def named_threads(self, in_file: dict[Lane, dict[str, Facts]]) -> list[Facts]:
        """Metadata events: what the file says of its threads, and a name for every track."""
        rows: list[tuple[Lane, int, str, Facts]] = []
        own: dict[Lane, str] = {}
        for lane, tid in self.tids.items():
            facts = in_file.get(lane, {})
            own[lane] = self._thread_name(lane, str(facts.get("thread_name", {}).get("name", "")))
            facts = facts | {"thread_name": {"name": f"{self.names.title} · {own[lane]}"}}
            rows += [(lane, tid, name, args) for name, args in facts.items()]
        for (lane, gloo), tracks in self.beside.items():
            added = [tid for tid, _ in tracks if tid != self.tids[lane]]
            name = f"gloo {gloo}s" if gloo else f"{own[lane]} · overlapping"
            for count, tid in enumerate(added, 1):
                number = f" {count}" if len(added) > 1 else ""
                args = {"name": f"{self.names.title} · {name}{number}"}
                rows.append((lane, tid, "thread_name", args))
        return [_metadata(self.pids[lane[0]], tid, name, args) for lane, tid, name, args in rows]

    def _thread_name(self, lane: Lane, name: str) -> str:
        """A thread's name in the file, else one made of what runs there."""
        pid, tid = lane
        if lane in self.names.streams:
            return f"{name.strip() or f'stream {tid}'} {self.names.streams[lane]}"
        if name.strip():
            is_main = name.startswith(f"thread {pid} (")
            return "main thread" if is_main else name.strip()
        if tid and isinstance(tid, str):
            return tid
        first = self.first_events[lane]
        if self.kinds[pid] == "CPU":
            polls = first.removeprefix("cuda").removeprefix("hip") in POLLING
            return "NCCL watchdog (polls events)" if polls else f"thread {tid} ({first}, ...)"
        return first or f"track {tid}"


def _metadata(pid: int, tid: int, name: str, args: Facts) -> Facts:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}
