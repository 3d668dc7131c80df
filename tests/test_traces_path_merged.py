"""The critical path in the merged trace."""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("msgspec")

import msgspec
from path_cases import DATA, SHARED
from trace_changes import only_case

from repro_pp_graphs.traces.explain.step_path import TITLES
from repro_pp_graphs.traces.merge.chrome_trace import merge
from repro_pp_graphs.traces.merge.pipeline_tracks import Additions


def test_the_merged_trace_shows_the_path_as_a_track_of_every_rank_with_arrows(tmp_path):
    case = only_case(DATA / "sglang0516_sync_send")
    merged = tmp_path / "merged.json"
    merge([case], [0], Additions([case]), merged)
    events = msgspec.json.decode(merged.read_bytes())["traceEvents"]
    lanes = {
        (event["pid"], event["tid"]): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and "critical path" in str(event["args"].get("name"))
    }
    assert sorted(lanes.values()) == ["PP0 · critical path", "PP1 · critical path"]
    slices = [
        event for event in events if event["ph"] == "X" and (event["pid"], event["tid"]) in lanes
    ]
    slices.sort(key=lambda event: event["ts"])
    # one thing at a time, from the first launch to the last: without a gap
    for one, other in pairwise(slices):
        assert one["ts"] + one["dur"] == pytest.approx(other["ts"], abs=0.01)
    assert {"graph", "host", "launch", "transfer"} <= {event["name"] for event in slices}
    assert {TITLES[event["name"]] for event in slices} == {e["args"]["what"] for e in slices}
    hops = sum(one["pid"] != other["pid"] for one, other in pairwise(slices))
    flows = [event for event in events if event.get("cat") == "path"]
    assert [event["ph"] for event in flows] == ["s", "f"] * hops
    assert hops > 10


@pytest.mark.parametrize("name", ["sglang0516_sync_send", "sglang052_graphs_off", *SHARED])
def test_each_arrow_of_the_path_binds_to_the_slice_it_leaves_and_the_one_it_arrives_at(
    name, tmp_path
):
    """As Perfetto binds flows: a start to the slice on its track that holds its time, an end with
    bp=e likewise; a slice holds its begin and not its end."""
    case = only_case(DATA / name)
    merged = tmp_path / "merged.json"
    merge([case], [0], Additions([case]), merged)
    events = msgspec.json.decode(merged.read_bytes())["traceEvents"]
    flows = [event for event in events if event.get("cat") == "path"]
    lanes = {(flow["pid"], flow["tid"]) for flow in flows}
    slices = [e for e in events if e["ph"] == "X" and (e["pid"], e["tid"]) in lanes]
    slices.sort(key=lambda event: event["ts"])

    def bound(flow: dict[str, object]) -> list[int]:
        return [
            number
            for number, each in enumerate(slices)
            if (each["pid"], each["tid"]) == (flow["pid"], flow["tid"])
            and each["ts"] <= flow["ts"] < each["ts"] + each["dur"]
        ]

    assert len(flows) > 20
    for start, end in zip(flows[::2], flows[1::2], strict=True):
        assert (start["ph"], end["ph"], end["bp"]) == ("s", "f", "e")
        assert start["id"] == end["id"]
        assert start["pid"] != end["pid"]
        assert start["ts"] <= end["ts"]
        (left,), (arrived,) = bound(start), bound(end)
        assert arrived == left + 1  # the path's next slice, of another rank
    ids = [flow["id"] for flow in flows[::2]]
    assert len(set(ids)) == len(ids)
