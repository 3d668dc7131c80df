"""When the host posted a send: told by its launch call, by what else the trace has, or unknown."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

from test_traces_reading import only_case

from repro_pp_graphs.traces.analyze import analyze

DATA = Path(__file__).parent / "data" / "traces"
LAUNCH = "cuLaunchKernelEx"
Event = dict[str, Any]


def changed(folder: Path, change: Callable[[Event], Event | None]) -> Path:
    """Case A of the reference traces with each event changed, or left out where None comes back."""
    for path in sorted((DATA / "h200_case_A").iterdir()):
        document = json.loads(gzip.decompress(path.read_bytes()))
        events = map(change, document["traceEvents"])
        document["traceEvents"] = [event for event in events if event is not None]
        (folder / path.name.removesuffix(".gz")).write_text(json.dumps(document))
    return folder


def delivery(facts: dict[str, Any]) -> tuple[float, float]:
    """Mean time until the last byte left and, of that, while the own decode graph runs; ms."""
    told = facts["token_return"]
    means = told["delivery_us"]["send"]["mean"], told["delivery_split_us"]["own_graph"]["mean"]
    return round(means[0] / 1000, 2), round(means[1] / 1000, 2)


def test_the_reference_trace_shows_what_the_whole_one_does(tmp_path):
    facts = analyze(only_case(DATA / "h200_case_A"))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


@pytest.mark.parametrize(
    "names",
    [
        {"cuda": "hip", LAUNCH: "hipModuleLaunchKernel", "cudaMemcpyAsync": "hipMemcpyWithStream"},
        {LAUNCH: "hipLaunchKernel", "cudaGraphLaunch": "hipGraphLaunch"},
        {LAUNCH: "hipExtLaunchKernel"},
        {LAUNCH: "cudaLaunchKernelExC_ptsz", "cudaGraphLaunch": "cudaGraphLaunch_ptsz"},
        {LAUNCH: "cuLaunchCooperativeKernel"},
        {LAUNCH: "INVALID"},
    ],
    ids=lambda names: names[LAUNCH],
)
def test_a_launch_is_told_by_any_name_that_cuda_or_hip_gives_it(tmp_path, names):
    def renamed(event: Event) -> Event:
        if event.get("cat") in ("cuda_runtime", "cuda_driver"):
            event["cat"] = "cuda_runtime"  # all that ROCm's traces have
            for name in sorted(names, key=len, reverse=True):
                event["name"] = event["name"].replace(name, names[name])
        return event

    facts = analyze(only_case(changed(tmp_path, renamed)))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


def without_driver_calls(event: Event) -> Event | None:
    return None if event.get("cat") == "cuda_driver" else event


def test_without_driver_calls_a_send_is_posted_at_its_c10d_operator(tmp_path):
    facts = analyze(only_case(changed(tmp_path, without_driver_calls)))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


def test_without_operators_either_a_send_is_posted_at_the_annotation_around_it(tmp_path):
    def bare(event: Event) -> Event | None:
        if event["name"] == "record_param_comms":
            return None
        return without_driver_calls(event)

    facts = analyze(only_case(changed(tmp_path, bare)))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


def test_where_nothing_tells_when_a_send_was_posted_it_is_unknown_and_counted(tmp_path):
    def mute(event: Event) -> Event | None:
        name = event["name"]
        if name == "record_param_comms" or name.startswith("nccl:"):
            return None
        return without_driver_calls(event)

    case = only_case(changed(tmp_path, mute))
    for rank in case.ranks:
        nccl = [op for op in rank.p2p if op.backend == "nccl"]
        assert nccl
        assert {op.posted_ns for op in nccl} == {None}
    assert sum("tells when the host posted them" in text for text in case.warnings) == 4
