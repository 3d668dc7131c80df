"""The processes and threads of one rank under numbers of their own, and what they are called."""

from __future__ import annotations

from typing import Any

GPU_CATEGORIES = frozenset({"kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation"})
PROFILER_CATEGORIES = frozenset({"", "Trace", "overhead"})
# Kind of process -> its place in the rank's group; 0 is for the tracks that merging adds.
ORDER = {"CPU": 1, "GPU": 2, "profiler": 3}
PROCESSES_PER_RANK = 10

# (pid, tid) in the file -> (pid, tid) in the merged trace.
Lanes = dict[tuple[Any, Any], tuple[int, int]]
Facts = dict[str, Any]


class Numbering:
    """New numbers in the order of first appearance.

    Pids count from `first_pid` (ten a rank), tids are the pid and two digits.
    """

    def __init__(self, title: str, first_pid: int) -> None:
        self.title = title
        self.first_pid = first_pid
        self.pids: dict[Any, int] = {}
        self.tids: dict[tuple[Any, Any], int] = {}
        self.threads: dict[int, int] = {}
        self.kinds: dict[Any, str] = {}
        # Lane in the file -> its tracks for work side by side: [tid, end of the last slice in ns].
        self.beside: dict[tuple[Any, Any, bool], list[list[int]]] = {}

    def admit(self, lane: tuple[Any, Any], category: object) -> None:
        """Number a process and thread first seen in an event of the category."""
        pid, tid = lane
        if lane in self.tids:
            return
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
        self.tids[pid, tid] = self._thread(self.pids[pid])

    def _thread(self, pid: int) -> int:
        self.threads[pid] = self.threads.get(pid, 0) + 1
        return pid * 100 + self.threads[pid]

    def track(self, lane: tuple[Any, Any], start_ns: int, dur_ns: int, *, is_gloo: bool) -> int:
        """The tid of a track of the lane on which nothing runs at the start; gloo has its own.

        Work side by side on one stream or thread must not share one: Perfetto drops a slice that
        overlaps another of its thread in part.
        """
        tracks = self.beside.get((*lane, is_gloo))
        if tracks is None:
            tracks = self.beside[(*lane, is_gloo)] = [] if is_gloo else [[self.tids[lane], 0]]
        for track in tracks:
            if track[1] <= start_ns:
                track[1] = start_ns + dur_ns
                return track[0]
        tracks.append([self._thread(self.pids[lane[0]]), start_ns + dur_ns])
        return tracks[-1][0]

    def lanes(self) -> Lanes:
        """Where the file's (pid, tid) went."""
        return {lane: (self.pids[lane[0]], tid) for lane, tid in self.tids.items()}

    def trust_label(self, pid: object, label: str) -> None:
        """Kineto labels its processes CPU or GPU n: surer than the category of the first event."""
        if pid in self.kinds and label[:3] in ORDER:
            self.kinds[pid] = label[:3]

    def processes(self) -> list[Facts]:
        """Metadata events: names and order of the processes."""
        named: list[Facts] = []
        for pid, old in {pid: old for old, pid in self.pids.items()}.items():
            kind = self.kinds[old]
            label = {"GPU": f"device {old}", "CPU": f"process {old}"}.get(kind, kind)
            facts: dict[str, Facts] = {
                "process_name": {"name": f"{self.title} · {kind}"},
                "process_labels": {"labels": label},
                "process_sort_index": {"sort_index": self.first_pid + ORDER[kind]},
            }
            named += [_metadata(pid, 0, name, args) for name, args in facts.items()]
        return named

    def named_threads(self, told: dict[tuple[Any, Any], dict[str, Facts]]) -> list[Facts]:
        """Metadata events: what the file tells of its threads, and names of tracks beside them."""
        kept: dict[tuple[Any, Any], dict[str, Facts]] = {
            (pid, tid): ({"thread_name": {"name": tid}} if tid and isinstance(tid, str) else {})
            | told.get((pid, tid), {})
            for pid, tid in self.tids
        }
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
        return [_metadata(self.pids[pid], tid, name, args) for pid, tid, name, args in rows]


def _metadata(pid: int, tid: int, name: str, args: Facts) -> Facts:
    return {"ph": "M", "name": name, "pid": pid, "tid": tid, "args": args}
