"""Ranks that share a GPU: while one's work runs, in its time slice, another's does not begin."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.path.build import RankLine
from repro_pp_graphs.traces.time_sets import Intervals, intervals, merged


def others_work(ranks: list[RankLine]) -> list[Intervals]:
    """For each rank when other ranks have work on a GPU that goes by the same number in their files
    and on the same host, as a set, ns of the graph; empty where each has a number of its own."""
    devices = [_device(line) for line in ranks]
    works = [
        np.concatenate([line.host.work.compute, line.host.rank.p2p_kernels]) - line.ahead_ns
        for line in ranks
    ]
    return [
        merged(
            np.concatenate(
                [
                    intervals([]),
                    *(
                        work
                        for work, other, device in zip(works, ranks, devices, strict=True)
                        if other is not line and device is not None and device == own
                    ),
                ]
            )
        )
        for line, own in zip(ranks, devices, strict=True)
    ]


def numbered_alike(ranks: list[RankLine]) -> bool:
    """Whether ranks of one host have GPUs of the same number, as their files have it: they share
    it, or each sees its own as the first."""
    devices = [device for line in ranks if (device := _device(line)) is not None]
    return len(set(devices)) < len(devices)


def _device(line: RankLine) -> tuple[str, object] | None:
    """The host and the device that a rank's NCCL operations ran on; None where there are several,
    or none."""
    lanes = {op.lane[0] for op in line.host.rank.p2p if op.backend == "nccl"}
    return (line.host.rank.host, lanes.pop()) if len(lanes) == 1 else None
