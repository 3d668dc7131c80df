"""Small traces for tests, laid out as Kineto lays them out."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE_NS = 1_790_857_026_000_000_000
STEP_US = 200_000
GRAPH_KERNEL = "decode_kernel"


@dataclass
class TraceMaker:
    """Builds one rank's trace; times in us since base_ns. Every method returns the correlation."""

    rank: int
    world_size: int = 4
    base_ns: int = BASE_NS
    pid: int = 500
    events: list[dict[str, Any]] = field(default_factory=list)
    header: dict[str, Any] = field(default_factory=dict)
    last_id: int = 0

    def add(self, cat: str, name: str, ts: float, dur: float, **more: Any) -> int:
        self.last_id += 1
        lane = (
            {"pid": 0, "tid": more.pop("stream")}
            if "stream" in more
            else {"pid": self.pid, "tid": more.pop("tid", self.pid)}
        )
        args = {"External id": self.last_id, **more}
        self.events.append(
            {"ph": "X", "cat": cat, "name": name, **lane, "ts": ts, "dur": dur, "args": args}
        )
        return self.last_id

    def span(self, name: str, ts: float, dur: float) -> int:
        return self.add("user_annotation", name, ts, dur)

    def p2p(
        self,
        kind: str,
        peer: int,
        ts: float,
        dur: float,
        *,
        elements: int = 8,
        dtype: str = "Long",
        posted: float | None = None,
        **more: Any,
    ) -> int:
        """An NCCL send or recv kernel with its metadata, and the call that launched it."""
        self.last_id += 1
        corr = self.last_id
        self.call("cuLaunchKernelEx", ts if posted is None else posted, 5, corr)
        side = {"Dst Rank": peer} if kind == "send" else {"Src Rank": peer}
        facts = {
            "Collective name": kind,
            "In msg nelems": elements,
            "dtype": dtype,
            "Process Group Name": "11",
            **side,
            **more,
        }
        self.add(
            "kernel",
            "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
            ts,
            dur,
            stream=45,
            correlation=corr,
            **facts,
        )
        return corr

    def kernel(self, name: str, ts: float, dur: float, correlation: int, **more: Any) -> int:
        return self.add("kernel", name, ts, dur, stream=21, correlation=correlation, **more)

    def call(self, name: str, ts: float, dur: float, correlation: int) -> int:
        return self.add("cuda_runtime", name, ts, dur, correlation=correlation)

    def arrow(self, number: int, source: float, target: float) -> None:
        for ph, ts, lane in (("s", source, (self.pid, self.pid)), ("f", target, (0, 21))):
            self.events.append(
                {
                    "ph": ph,
                    "id": number,
                    "pid": lane[0],
                    "tid": lane[1],
                    "ts": ts,
                    "cat": "ac2g",
                    "name": "ac2g",
                    "bp": "e",
                }
            )

    def document(self) -> dict[str, Any]:
        names = [(self.pid, "CPU"), (0, "GPU 0")]
        meta = [
            {
                "name": "process_labels",
                "ph": "M",
                "ts": 0.0,
                "pid": pid,
                "tid": 0,
                "args": {"labels": label},
            }
            for pid, label in names
        ]
        info = {"backend": "nccl", "rank": self.rank, "world_size": self.world_size}
        return {
            "schemaVersion": 1,
            "distributedInfo": info,
            "baseTimeNanoseconds": self.base_ns,
            **self.header,
            "traceEvents": [*self.events, *meta],
            "traceName": "made up",
        }

    def text(self) -> str:
        """The document with Kineto's indentation: every event begins on a line of its own."""
        document = self.document()
        events = document.pop("traceEvents")
        head = ",\n".join(
            f'  "{key}": {json.dumps(value)}'
            for key, value in document.items()
            if key != "traceName"
        )
        body = ",\n".join("  {\n    " + json.dumps(event)[1:-1] + "\n  }" for event in events)
        return (
            f'{{\n{head},\n  "traceEvents": [\n{body}\n  ],\n'
            f'  "traceName": {json.dumps(document["traceName"])}\n}}'
        )

    def write(self, folder: Path, name: str = "") -> Path:
        """Write as sglang names its files, gzipped where the name ends in .gz."""
        path = folder / (name or f"CASE-TP-0-PP-{self.rank}.trace.json.gz")
        data = self.text().encode()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path


def ring(
    pp_size: int = 2, steps: int = 6, period_us: float = 1000, jitter_us: float = 0
) -> list[TraceMaker]:
    """A ring whose every edge sends one message a step; rank r starts r steps late in its file.

    Message n of the edge from r goes out at n * period + 100 * r, later by up to 30 jitters, and is
    received at once.
    """
    makers = [TraceMaker(rank, pp_size, pid=500 + rank) for rank in range(pp_size)]
    for rank, maker in enumerate(makers):
        for n in range(rank, steps + rank):
            before = (rank - 1) % pp_size
            begin = n * period_us + n**3 % 31 * jitter_us
            sent, arrives = begin + 100 * rank, begin + 100 * before
            maker.span("run_batch", sent - 60, 50)
            maker.span("step[DECODE bs=8]", sent - 58, 45)
            maker.p2p("recv", before, arrives - 20, 50, elements=8)
            maker.kernel("compute", sent - 50, 40, maker.last_id + 1)
            maker.p2p("send", (rank + 1) % pp_size, sent, 30, elements=8)
    return makers


def of_two_base_times() -> tuple[TraceMaker, TraceMaker]:
    """A ring of two whose files count from base times 7 s apart, at the same moments."""
    first, second = ring(2)
    second.base_ns = BASE_NS - 7_000_000_000
    for event in second.events:
        event["ts"] += 7_000_000
    return first, second


def sync_release(named: bool, steps: int = 4) -> tuple[TraceMaker, TraceMaker]:
    """The last of two ranks as releases before 0.5.7 send: blocked, then waiting for rank 0.

    As send_tensor_dict does it: the pickled metadata is uploaded, gloo sends its size, then NCCL
    the metadata and each tensor. A step of 200 ms: the graph runs from 1 to 31 ms; the upload, from
    pageable memory, waits for it from 2 ms on; the NCCL send of the metadata starts at 31.54 ms
    and spins until rank 0 posts its recv at 101.8 ms; that of the token ids, posted at once, runs
    behind it on the stream until 101.9 ms.
    """
    first, last = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(steps):
        at = n * STEP_US
        graph = 10_000 + n
        last.call("cudaGraphLaunch", at + 100, 200, graph)
        for part in range(3):
            last.kernel(GRAPH_KERNEL, at + 1000 + 10_000 * part, 10_000, graph)
        if named:
            last.span("send_res_dict_to_next_stage", at + 2000, 29_600)
        upload = 20_000 + n
        last.call("cudaMemcpyAsync", at + 2000, 29_005, upload)
        last.add(
            "gpu_memcpy",
            "Memcpy HtoD (Pageable -> Device)",
            at + 31_000,
            2,
            stream=21,
            correlation=upload,
        )
        last.add("cpu_op", "c10d::send", at + 31_050, 20)
        last.span("gloo:send", at + 31_060, 440)
        first.span("gloo:recv", at + 31_000, 480)
        last.add("cpu_op", "c10d::send", at + 31_510, 40)
        last.p2p("send", 0, at + 31_540, 70_310, posted=at + 31_530, elements=300, dtype="Byte")
        last.add("cpu_op", "c10d::send", at + 31_560, 40)
        last.p2p("send", 0, at + 101_850, 50, posted=at + 31_570)
        last.add("cpu_op", "c10d::recv_", at + 120_000, 10)
        first.p2p("recv", 1, at + 101_800, 50, elements=300, dtype="Byte")
        first.p2p("recv", 1, at + 101_850, 50)
    return first, last
