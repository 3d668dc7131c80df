"""Ranks on several hosts: how far the hosts' clocks are apart, and times put right by it."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

from trace_changes import DATA, analysed, analysis_of, only_case, texts, with_header

from repro_pp_graphs.traces.explain.analysis import analyze
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.pair.host_clocks import move
from repro_pp_graphs.traces.path.whole_analysis import studied
from repro_pp_graphs.traces.rank_trace import RankTrace

pytestmark = pytest.mark.slow

BASE_NS = re.compile(r'"baseTimeNanoseconds": (\d+)')
NUMBERED = "cpu_numbered"  # two ranks, every message numbered
TWO, FOUR = ("a", "b"), ("a", "a", "b", "b")


def on_hosts(
    folder: Path, ahead_ms: dict[str, float], hosts: tuple[str, ...] = TWO, name: str = NUMBERED
) -> Path:
    """A real case whose ranks are each on one of the hosts, which are ahead by so much."""
    folder.mkdir()
    for (file, text), host in zip(texts(name).items(), hosts, strict=True):
        base_ns = int(BASE_NS.search(text)[1]) + round(ahead_ms.get(host, 0) * 1e6)
        (folder / file).write_text(with_header(text, host_name=host, baseTimeNanoseconds=base_ns))
    return folder


def clocks(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["a"], each["b"]): each for each in found["host_clocks"]}


def test_one_host_has_no_clocks_to_compare():
    assert analysis_of("h200_case_A").host_clocks == []


@pytest.mark.parametrize("ahead_ms", [40.0, -7.5])
def test_the_interval_holds_the_true_difference_of_two_hosts(tmp_path: Path, ahead_ms: float):
    folder = on_hosts(tmp_path / "t", {"b": ahead_ms})
    found = clocks(analysed(only_case(folder)))["a", "b"]
    assert found["low_us"] < 1000 * ahead_ms < found["high_us"]
    assert found["high_us"] - found["low_us"] < 2000
    assert found["messages"] == found["numbered"] > 0


@pytest.mark.parametrize("ahead_ms", [40.0, -7.5])
def test_times_between_hosts_are_put_right(tmp_path: Path, ahead_ms: float):
    """Within what the interval leaves open, waits are those of the clocks that agree."""
    right = analysed(only_case(on_hosts(tmp_path / "r", {})))
    moved = analysed(only_case(on_hosts(tmp_path / "m", {"b": ahead_ms})))
    assert clocks(right)["a", "b"]["moved_us"] == 0
    assert clocks(moved)["a", "b"]["moved_us"] == pytest.approx(-1000 * ahead_ms, abs=600)
    for one, other in zip(right["p2p"], moved["p2p"], strict=True):
        assert one["pairs"] == other["pairs"]
        doubt_us = max(abs(us) for us in other["clock_us"].values())
        for name in ("send_wait_us", "recv_wait_us", "lag_us"):
            assert one[name]["mean"] == pytest.approx(other[name]["mean"], abs=doubt_us + 1)
    assert right["turns"]["1"]["mean"] == pytest.approx(moved["turns"]["1"]["mean"], rel=1e-6)


def test_of_three_hosts_each_is_put_right(tmp_path: Path):
    """Without numbers: as far as order and times pair them (2 ms apart at most)."""
    hosts = ("a", "b", "b", "c")
    folder = on_hosts(tmp_path / "t", {"b": 0.4, "c": -0.9}, hosts, "h200_case_A")
    found = clocks(analysed(only_case(folder)))
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    for ends, true_us in ((("a", "b"), 400), (("a", "c"), -900), (("b", "c"), -1300)):
        assert found[ends]["low_us"] < true_us < found[ends]["high_us"]


def test_clocks_that_may_agree_stay_as_recorded(tmp_path: Path):
    case = only_case(on_hosts(tmp_path / "t", {}, FOUR, "h200_case_A"))
    bases = [rank.base_ns for rank in case.ranks]
    studied(case)
    assert [rank.base_ns for rank in case.ranks] == bases
    assert case.moved_us == {}


def test_a_rank_is_moved_as_a_whole():
    """Every field of a rank that holds times is known to `move`."""
    (one, *_), (other, *_) = (only_case(DATA / "sglang052_graphs_on").ranks for _ in range(2))
    by_ns = 5_000_000
    move(other, by_ns)
    kept = {"path", "pp", "tp", "rank", "host", "world_size", "events", "unlabelled_p2p"}
    kept |= {"uploads", "launched_share", "problems", "times_us", "left_out_ns", "tp_size"}
    kept |= {"rank_known", "gpu", "gpu_only", "gpu_unknown", "gpu_model", "gpus_seen"}
    assert {each.name for each in fields(RankTrace)} - kept == {
        *("base_ns", "kernels", "p2p_kernels", "p2p", "spans", "launches", "calls", "syncs"),
        *("sends", "recvs", "nccl_marks", "operators", "sent_waits"),
    }
    assert other.base_ns - one.base_ns == by_ns
    assert (other.kernels.times - one.kernels.times == by_ns).all()
    posted = one.kernels.posted >= 0
    assert (other.kernels.posted - one.kernels.posted == by_ns * posted).all()
    assert (other.p2p_kernels - one.p2p_kernels == by_ns).all()
    assert (other.operators - one.operators == by_ns).all()
    assert other.launches[0][0] - one.launches[0][0] == by_ns
    for name in ("p2p", "spans", "calls", "syncs", "sends", "recvs", "nccl_marks"):
        pairs = list(zip(getattr(one, name), getattr(other, name), strict=True))
        assert all(b.start_ns - a.start_ns == b.end_ns - a.end_ns == by_ns for a, b in pairs)


def test_the_report_says_how_far_hosts_are_apart_and_how_good_waits_are(tmp_path: Path):
    folder = on_hosts(tmp_path / "t", {"b": 40.0})
    text = " ".join("\n".join(lines(analyze(only_case(folder)))).split())
    assert "b's clock against a's: 39." in text
    assert "ms earlier." in text
    assert "+-: what the clocks of the two ranks may change of each" in text
