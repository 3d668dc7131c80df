"""Cases whose critical path is known, by how their ranks are on GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("msgspec")

from trace_changes import explained_of as analysis

from repro_pp_graphs.traces.analysis_record import RingPath

DATA = Path(__file__).parent / "data" / "traces"


A_GPU_EACH = [
    "sglang0516_graphs_on",
    "sglang0516_sync_send",
    "sglang0516_sync_send_numbered",
    "sglang0516_event_send_numbered",
    "sglang052_graphs_on",
    "sglang052_graphs_off",
    "sglang056_graphs_on",
]


IN_TIME_SLICES = ["h200_case_A", "h200_case_B"]


SHARED = [*IN_TIME_SLICES, "sglang052_pp4"]  # the last: two ranks a GPU, under MPS


def path_of(name: str) -> RingPath:
    path = analysis(name).ring_path
    assert path is not None, analysis(name).ring_path_unknown
    return path
