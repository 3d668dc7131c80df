"""Cut a rank's trace to what a small test needs: the text of the events kept is Kineto's own.

USAGE       python cut.py TRACE.json.gz TARGET.json.gz [BEGIN_MS END_MS]
LEFT OUT    flow arrows; CUDA calls that only ask, record or look up and take less than 50 us;
            host operators inside others, but for copies and c10d's; of the arguments what a kernel
            needs of the GPU and the profiler's own counters; of a kernel's name all but its start
KEPT        all else with its times, so that the analysis is that of the whole trace, or of the
            part that begins between BEGIN_MS and END_MS of the file's clock (its `ts`)
"""

from __future__ import annotations

import gzip
import re
import sys
from pathlib import Path

BOUNDARY = "},\n  {"
QUIET = re.compile(r"Query|Capturing|EventRecord|GetFunc|Peek|Occupancy|GetAttribute|CaptureMode")
COPIES = re.compile(r"c10d::|record_param_comms|aten::(to|_to_copy|copy_)$")
NEEDLESS = re.compile(
    r'\s*"(?:queued|device|context|registers per thread|shared memory|blocks per SM|warps per SM|'
    r"grid|block|est\. achieved occupancy %|cbid|Record function id|Ev Idx|(?:In|Out) split size|"
    r"Out msg nelems|Group size|Process Group Description|Process Group Ranks|Global rank start|"
    r'Global rank stride|Rank|Src split size)": (?:\[[^\]]*\]|"[^"]*"|[^,\s]+)(,?)'
)
NAME = re.compile(r'"name": "([^"]*)"')
LONGEST_NAME = 32


def value(event: str, key: str) -> str:
    found = re.search(rf'"{key}": ("[^"]*"|[^,\s]+)', event)
    return found[1].strip('"') if found else ""


def kept(event: str, reach: dict[str, float], begin_us: float, end_us: float) -> bool:
    """Whether to keep an event; `reach` is where each thread's outermost operator ends, us."""
    category, name = value(event, "cat"), value(event, "name")
    if category == "ac2g":
        return False
    if value(event, "ph") == "X" and not begin_us <= float(value(event, "ts")) <= end_us:
        return False
    if category in ("cuda_runtime", "cuda_driver"):
        return not QUIET.search(name) or float(value(event, "dur")) >= 50
    if category == "cpu_op":
        thread, start = value(event, "tid"), float(value(event, "ts"))
        outermost = start >= reach.get(thread, 0.0)
        if outermost:
            reach[thread] = start + float(value(event, "dur"))
        return outermost or bool(COPIES.match(name))
    return True


def slim(event: str) -> str:
    """An event without needless arguments, a kernel with the start of its name."""
    event = re.sub(r",(\s*\})", r"\1", NEEDLESS.sub("", event))
    if value(event, "cat") == "kernel":
        event = NAME.sub(lambda found: f'"name": "{found[1][:LONGEST_NAME]}"', event, count=1)
    return event


def cut(text: str, begin_us: float = 0, end_us: float = float("inf")) -> str:
    head, events = re.split(r'"traceEvents": \[\s*\{', text, maxsplit=1)
    events, tail = events.rsplit("}\n  ],", 1)
    head = re.sub(r'"deviceProperties": \[.*?\n    \],\s*', "", head, flags=re.DOTALL)
    reach: dict[str, float] = {}
    found = (e for e in events.split(BOUNDARY) if kept(e, reach, begin_us, end_us))
    rest = [slim(event) for event in found]
    tail = re.sub(r'"traceName": "[^"]*"', '"traceName": "cut"', tail)
    return head + '"traceEvents": [\n  {' + BOUNDARY.join(rest) + "}\n  ]," + tail


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:3])
    span_us = [float(ms) * 1000 for ms in sys.argv[3:]]
    whole = gzip.decompress(source.read_bytes()).decode()
    target.write_bytes(gzip.compress(cut(whole, *span_us).encode(), mtime=0))
