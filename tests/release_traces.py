"""Real traces of each release, their events, and how their sends behave.

The traces in data/traces are cut (cut.py) from runs on two H100s (0.5.2, 0.5.6.post2, 0.5.16; PP 2,
and PP 4 with two ranks a GPU) and on one H200 (0.5.16, four ranks).
"""

from __future__ import annotations

from pathlib import Path

from kept_traces import documents
from trace_changes import DATA, Event, end

# folder -> how its sends behave, what the host waits for most in them
RELEASES = {
    "sglang052_graphs_on": ("on_device", "own_graph"),
    "sglang052_graphs_off": ("on_device", "own_compute"),
    "sglang052_pp4": ("on_device", "own_graph"),
    "sglang052_deepseek_on": ("on_device", "own_graph"),
    "sglang052_deepseek_off": ("on_device", "transfer"),
    "sglang056_graphs_on": ("synchronous", "peer_late"),
    "sglang0516_graphs_on": ("asynchronous", "no wait"),
    "sglang0516_sync_send": ("on_device", "own_graph"),
    # requests over NCCL, outside of any annotation of a message
    "sglang0516_sync_send_numbered": ("on_device", "own_graph"),
    "sglang0516_event_send_numbered": ("on_device", "peer_late"),
    "sglang0516_batched_p2p": ("batched", "no wait"),
    "h200_case_A": ("asynchronous", "no wait"),
    "h200_case_B": ("asynchronous", "no wait"),
}


def events_of(path: Path) -> list[Event]:
    return [e for e in documents(path.parent.name)[path.name]["traceEvents"] if "dur" in e]


def last_rank(name: str) -> Path:
    return max((DATA / name).iterdir())


def recorded_by_all(name: str) -> tuple[float, float]:
    """From the last rank's first kernel or copy to the first rank's last, us."""
    begins, ends = [], []
    for path in (DATA / name).iterdir():
        work = [e for e in events_of(path) if e["cat"] in ("kernel", "gpu_memcpy", "gpu_memset")]
        begins.append(min(e["ts"] for e in work))
        ends.append(max(map(end, work)))
    return max(begins), min(ends)
