"""How a release sends, and how long its token sends took: said where it is known."""

from __future__ import annotations

import pytest
from made_up_run import plan
from measured_runs import launch, measured, rows, told

from repro_pp_graphs.report.summary import from_traces
from repro_pp_graphs.report.tables import launch_table


@pytest.mark.parametrize(
    ("version", "sends"),
    [
        ("0.4.6", "unknown: not looked up for this release"),
        ("0.5.2", "blocking: the host waits for its decode graph in the send"),
        ("0.5.3", "synchronous: the host waits for its decode graph in the receive"),
        ("0.5.6.post2", "synchronous: the host waits for its decode graph in the receive"),
        ("0.5.7", "asynchronous: the host does not wait in the send"),
        ("0.5.10rc0", "asynchronous: the host does not wait in the send"),
        ("0.5.10.post1", "asynchronous: the host does not wait in the send"),
        ("0.5.21.dev3+g1234567", "asynchronous: the host does not wait in the send"),
        ("0.5.21+cu130", "asynchronous: the host does not wait in the send"),
    ],
)
def test_the_release_decides_how_sends_go(tmp_path, version, sends):
    text = told(tmp_path, plan(launch("A", "on", sglang_version=version)))
    assert f"sglang {version}: PP sends are {sends}" in " ".join(text.split())


def test_how_sends_go_on_gpus_is_not_said_of_a_rehearsal(tmp_path):
    text = told(tmp_path, plan(launch("A", "on", sglang_version="0.5.21"), mode="cpu"))
    assert "PP sends are asynchronous: on GPUs the host does not wait" in " ".join(text.split())


def token_return(steps: int = 22) -> dict:
    def us(mean: float) -> dict:
        return {"mean": mean, "median": mean - 1, "p99": 2 * mean, "max": 3 * mean}

    delivery = {"send": us(100_000), "overlapped_with_graph": us(30_000), "idle": us(70_000)}
    seen = {"steps": steps, "enough": steps > 0, "delivery_known": steps > 0}
    return {**seen, "host_us": {"send": us(95_000)}, "delivery_us": delivery}


def test_the_token_send_is_told_in_milliseconds():
    analysis = {"token_return": token_return(), "ranks": {"0": {"basis": "gpu"}}}
    sent = from_traces.token_send_ms(analysis)
    assert sent == {"host": 95, "sent": 100, "under_graph": 30, "idle": 70}
    assert from_traces.token_send_ms({}) == {}
    assert from_traces.token_send_ms({**analysis, "token_return": token_return(steps=0)}) == {}


def test_a_release_without_a_version_is_not_said_to_send_in_any_way(tmp_path):
    text = told(tmp_path, plan(launch("A", "on", sglang_version="")))
    assert "PP sends are unknown: not looked up for this release" in " ".join(text.split())


def test_a_delivery_that_clocks_leave_open_is_not_given():
    found = token_return() | {"delivery_known": False}
    analysis = {"token_return": found, "ranks": {"0": {"basis": "gpu"}}}
    assert from_traces.token_send_ms(analysis) == {"host": 95}


def test_an_analysis_without_the_figure_gives_none():
    sparse = {"enough": True, "delivery_known": True, "host_us": {"send": {"median": 5.0}}}
    assert from_traces.token_send_ms({"token_return": sparse, "ranks": {}}) == {}


def test_without_kernels_no_idle_time_is_claimed():
    ranks = {"0": {"basis": "gpu"}, "1": {"basis": "cpu"}}
    sent = from_traces.token_send_ms({"token_return": token_return(), "ranks": ranks})
    assert sent == {"host": 95, "sent": 100}


def test_token_sends_stand_in_the_table(tmp_path):
    two = plan(launch("A", "on"), launch("B", "off"))
    result = measured(tmp_path, two, [30, 20])
    for one, ms in zip(result["launches"], (100, 4), strict=True):
        one["token_send_ms"] = {"sent": ms}
    (cells,) = rows(launch_table.lines(result), "  until last byte ms")
    assert cells == ["100", "4"]


def test_cases_on_two_releases_are_told_apart(tmp_path):
    two = plan(launch("A", "on", sglang_version="0.5.2"), launch("B", "on2"))
    text = told(tmp_path, two)
    assert "0.5.2 (A): PP sends are blocking" in text
    assert "0.5.21 (B): PP sends are async" in text
