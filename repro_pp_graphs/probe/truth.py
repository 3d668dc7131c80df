"""The trace analyser held against what the ranks noted while they were traced.

A pair is right when both of its operations carry the same message. Waits and transfers fit when
they are within 5 % or 20 us of those that the ranks' own times give.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

TOLERANCE, TOLERANCE_US = 0.05, 20.0


class Transfer(NamedTuple):
    """One transfer as a rank noted it: message (what, turn, part); times in us, 0 where untimed.

    A kernel begins at an unknown moment of the call that launches it: from `soonest_us` (the call
    is entered and the stream has got to it) to `latest_us` (the call is over).
    """

    message: tuple[str, int, int]
    soonest_us: float = 0.0
    latest_us: float = 0.0
    end_us: float = 0.0


Edge = tuple[str, int, int]  # nccl or gloo, from rank, to rank


def read_truth(folder: Path) -> dict[Edge, dict[str, list[Transfer]]]:
    """Noted transfers by edge and side (send, recv), in the order of each rank's program."""
    edges: dict[Edge, dict[str, list[Transfer]]] = {}
    for path in sorted(folder.glob("truth_rank*.jsonl")):
        head, *calls = (json.loads(line) for line in path.read_text("utf-8").splitlines())
        for call in calls:
            for part, group in enumerate(call["transfers"]):
                backend = head["backend"] if group == "device" else "gloo"
                ends = (head["rank"], call["peer"])
                src, dst = ends if call["op"] == "send" else ends[::-1]
                timed = part == len(call["transfers"]) - 1 and call["began_ns"]
                message = (call["what"], call["turn"], part)
                edges.setdefault((backend, src, dst), {"send": [], "recv": []})[call["op"]].append(
                    Transfer(message, *_times_us(call, head, backend))
                    if timed
                    else Transfer(message)
                )
    return edges


def _times_us(call: dict[str, Any], head: dict[str, Any], backend: str) -> list[float]:
    """Soonest and latest begin, and end, on rank 0's clock."""
    hosts = [call["began_ns"], call["posted_ns"]] if backend == "nccl" else [0, 0]
    begins = [max(call["gpu_begin_ns"], host) for host in hosts]
    return [(each + head["clock_ns"]) / 1e3 for each in (*begins, call["gpu_end_ns"])]


def waits_us(send: Sequence[float], recv: Sequence[float]) -> tuple[float, float, float]:
    """Transfer, send wait and recv wait of a pair of (begin, end); docs/traces.md."""
    late = recv[0] - send[0]
    return max(send[1], recv[1]) - max(send[0], recv[0]), max(0.0, late), max(0.0, -late)


def fits(found_us: float, low_us: float, high_us: float) -> bool:
    """Whether a reading is in the interval that the truth lies in, give or take the tolerance."""
    off_us = max(low_us - found_us, found_us - high_us)
    return off_us <= max(TOLERANCE_US, TOLERANCE * abs(found_us))


def check_folder(folder: Path) -> dict[str, Any]:
    """Counts over all edges of a traced run; `skipped` says why nothing could be checked."""
    try:
        from repro_pp_graphs.traces.pair.edge import sent_ns  # noqa: PLC0415
        from repro_pp_graphs.traces.pair.edges import edges_of  # noqa: PLC0415 - needs msgspec
        from repro_pp_graphs.traces.read.cases import cases_of, read_case  # noqa: PLC0415
    except ModuleNotFoundError as error:
        return {"skipped": f"the analyser needs {error.name}"}
    ((name, members),) = cases_of([folder]).items()
    case = read_case(name, members)
    truth = read_truth(folder)
    found: dict[str, Any] = {
        "messages": sum(len(sides["send"]) for sides in truth.values()),
        "pairs": 0,
        "right": 0,
        "times": 0,
        "within": 0,
        "without_peer": sum(rank.unlabelled_p2p for rank in case.ranks),
        "uneven": [],
    }
    for edge in edges_of(case):
        key = (edge.backend, edge.src_rank, edge.dst_rank)
        noted = truth.get(key, {"send": [], "recv": []})
        # by program order, whatever groups the analyser sorts an edge's operations into
        sends = sorted((op for c in edge.channels for op in c.sends), key=lambda op: op.start_ns)
        recvs = sorted((op for c in edge.channels for op in c.recvs), key=lambda op: op.start_ns)
        sides = (("sends", sends, noted["send"]), ("recvs", recvs, noted["recv"]))
        uneven = [f"{len(ops)} {side} traced, {len(rows)} noted" for side, ops, rows in sides
                  if len(ops) != len(rows)]  # fmt: skip
        if uneven:
            found["uneven"].append(f"{edge.backend} {key[1]}->{key[2]}: {', '.join(uneven)}")
            continue
        message = {id(op): row for _, ops, rows in sides for op, row in zip(ops, rows, strict=True)}
        for send, recv in edge.paired():
            sent, received = message[id(send)], message[id(recv)]
            found["pairs"] += 1
            found["right"] += sent.message == received.message
            if not (sent.end_us and received.end_us):
                continue
            seen = waits_us(
                (send.start_ns / 1e3, sent_ns(send, recv) / 1e3),
                (recv.start_ns / 1e3, recv.end_ns / 1e3),
            )
            # gloo: the sender hears of the end only when it waits for it
            over_us = min(sent.end_us, received.end_us) if edge.backend == "gloo" else sent.end_us
            truths = [
                waits_us((send_us, over_us), (recv_us, received.end_us))
                for send_us in (sent.soonest_us, sent.latest_us)
                for recv_us in (received.soonest_us, received.latest_us)
            ]
            found["times"] += len(seen)
            found["within"] += sum(
                fits(us, min(true), max(true))
                for us, true in zip(seen, zip(*truths, strict=True), strict=True)
            )
    return found
