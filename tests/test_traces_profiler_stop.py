"""The end of a recording: what sglang does while its profiler stops is no batch and no wait."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("msgspec")

import msgspec
from trace_changes import analysis_of, only_case, texts
from trace_maker import TraceMaker

from repro_pp_graphs.traces.explain.analysis import analyze

MS = 1000


@pytest.mark.parametrize("name", ["h200_case_A", "h200_case_B"])
def test_a_real_recording_s_last_run_batch_without_an_operator_is_no_batch(name: str):
    """sglang 0.5.16, four ranks, as its profiler wrote them."""
    facts = analysis_of(name)
    for text in texts(name).values():
        events = [
            event for event in msgspec.json.decode(text)["traceEvents"] if event.get("ph") == "X"
        ]
        runs = sorted((e["ts"], e["dur"]) for e in events if e["name"] == "run_batch")
        operators = [e["ts"] for e in events if e.get("cat") == "cpu_op"]
        works = [any(ts <= at <= ts + dur for at in operators) for ts, dur in runs]
        assert works == [True] * 24 + [False]
    assert [rank.batches for rank in facts.ranks.values()] == [24] * 4


def of_a_cpu(folder: Path, stop_ms: float) -> None:
    """Two ranks without a GPU; each rank's batches take 5 of 10 ms, its last but the stop."""
    for rank in range(2):
        maker = TraceMaker(rank, 2)
        for n in range(20):
            maker.span("run_batch", 10 * MS * n, 5 * MS)
            maker.add("cpu_op", "aten::mm", 10 * MS * n + 10, 5 * MS - 20)
        maker.span("run_batch", 200 * MS, stop_ms * MS)
        maker.write(folder)


def test_stopping_the_profiler_is_no_work_of_a_host(tmp_path: Path):
    of_a_cpu(tmp_path, stop_ms=400)
    facts = analyze(only_case(tmp_path))
    assert facts.window_us == 195 * MS
    for rank in facts.ranks.values():
        assert rank.batches == 20
        assert rank.busy_fraction == pytest.approx(100 / 195, abs=1e-4)


def test_a_last_batch_without_operators_stays_where_no_batch_has_some(tmp_path: Path):
    for rank in range(2):
        maker = TraceMaker(rank, 2)
        for n in range(20):
            maker.span("run_batch", 10 * MS * n, 5 * MS)
        maker.write(tmp_path)
    facts = analyze(only_case(tmp_path))
    assert [rank.batches for rank in facts.ranks.values()] == [20, 20]


def test_a_message_that_waits_for_a_rank_that_stops_to_record_is_no_late_receive(tmp_path: Path):
    sender, receiver = TraceMaker(0, 2), TraceMaker(1, 2)
    for n in range(30):
        sender.add("cpu_op", "aten::mm", MS * n, 50)
        sender.p2p("send", 1, MS * n + 60, 310 if n < 29 else 50 * MS)
        at = MS * n + 360 if n < 29 else 79 * MS
        receiver.add("cpu_op", "aten::mm", at - 100, 50)
        receiver.p2p("recv", 0, at, 10)
    receiver.add("cpu_op", "aten::mm", 90 * MS, 50)
    sender.add("cpu_op", "aten::mm", 30 * MS, 50)
    for maker in (sender, receiver):
        maker.write(tmp_path)
    (edge,) = analyze(only_case(tmp_path)).p2p
    assert edge.pairs == 30, edge.unpairable
    assert edge.send_wait_us is not None
    assert edge.send_wait_us.max == pytest.approx(300)
