"""Ranks that share a GPU: while one's work runs, in its time slice, another's does not begin."""

from __future__ import annotations

import numpy as np

from repro_pp_graphs.traces.path.rank_line import RankLine
from repro_pp_graphs.traces.time_sets import Intervals, intervals, merged


def others_work(ranks: list[RankLine]) -> list[Intervals]:
    """For each rank when other ranks have work on a GPU that it shares with them, or may share
    (explain/gpus.py), as a set, ns of the graph; empty where it has its own."""
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
                        for work, other in zip(works, ranks, strict=True)
                        if any(other.host is each for each in line.host.beside)
                    ),
                ]
            )
        )
        for line in ranks
    ]
