"""When the host posted a send: told by its launch call, by what else the trace has, or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("msgspec")

from trace_changes import (
    DATA,
    Change,
    Event,
    analysed,
    only_case,
    texts,
    with_events,
    write,
    written_of,
)
from trace_maker import TraceMaker

LAUNCH = "cuLaunchKernelEx"


def changed(folder: Path, change: Change) -> Path:
    """The reference traces with each event changed, or left out where None comes back."""
    return write(folder, {name: with_events(text, change) for name, text in texts().items()})


def delivery(facts: dict[str, Any]) -> tuple[float, float]:
    """Mean time until the last byte left and, of that, while the own decode graph runs; ms."""
    told = facts["token_return"]
    means = told["delivery_us"]["send"]["mean"], told["delivery_split_us"]["own_graph"]["mean"]
    return round(means[0] / 1000, 2), round(means[1] / 1000, 2)


def test_the_reference_trace_shows_what_the_whole_one_does(tmp_path):
    facts = written_of("h200_case_A")
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

    facts = analysed(only_case(changed(tmp_path, renamed)))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


def without_driver_calls(event: Event) -> Event | None:
    return None if event.get("cat") == "cuda_driver" else event


def test_without_driver_calls_a_send_is_posted_at_its_c10d_operator(tmp_path):
    facts = analysed(only_case(changed(tmp_path, without_driver_calls)))
    assert delivery(facts) == (6.69, 4.33)
    assert facts["warnings"] == []


def test_without_operators_either_a_send_is_posted_at_the_annotation_around_it(tmp_path):
    def bare(event: Event) -> Event | None:
        if event["name"] == "record_param_comms":
            return None
        return without_driver_calls(event)

    facts = analysed(only_case(changed(tmp_path, bare)))
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
    assert sum("when the host posted them is not known" in text for text in case.warnings) == 4


def test_kernels_whose_name_tells_no_operation_are_told_by_what_launched_them(tmp_path):
    """RCCL calls all its kernels ncclDevKernel_Generic; roctracer knows no arguments of them."""

    def generic(event: Event) -> Event:
        if event.get("cat") == "kernel":
            is_p2p = "SendRecv" in event["name"]
            if is_p2p or event["name"].startswith("void at::native::index"):
                event["name"] = "ncclDevKernel_Generic(ncclDevComm*, channelMasks, ncclWork*)"
            for key in ("Collective name", "Dst Rank", "Src Rank", "In msg nelems", "dtype"):
                event["args"].pop(key, None)
        return event

    case = only_case(changed(tmp_path, generic))
    assert case.warnings == []
    for rank, whole in zip(case.ranks, only_case(DATA / "h200_case_A").ranks, strict=True):
        assert rank.p2p == whole.p2p
        assert len(rank.kernels.times) == len(whole.kernels.times)


@pytest.mark.parametrize("name", ["cudaMemsetAsync", "cuMemsetD32Async", "hipMemsetAsync"])
def test_memory_that_is_set_was_posted_by_the_call_that_sets_it(tmp_path, name):
    maker = TraceMaker(0, world_size=1)
    maker.call("cudaLaunchKernel", 100, 5, 1)
    maker.kernel("k", 110, 20, 1)
    maker.call(name, 300, 15, 2)
    maker.add("gpu_memset", "Memset (Device)", 320, 1, stream=21, correlation=2)
    rank = only_case(maker.write(tmp_path)).ranks[0]
    assert (rank.kernels.posted - rank.base_ns).tolist() == [100_000, 300_000]
