"""The critical path of real decode steps: it adds up, little is unexplained, and timed again
unchanged it is what was measured. (test_traces_path_truth.py holds it against known rings.)"""

from __future__ import annotations

from itertools import pairwise

import pytest

pytest.importorskip("msgspec")

from kept_traces import case_of, ranks_of
from msgspec.structs import replace
from path_cases import A_GPU_EACH, DATA, IN_TIME_SLICES, SHARED, path_of
from trace_changes import explained_of as analysis
from trace_changes import only_case, texts

from repro_pp_graphs.traces.analysis_record import Analysis, RingPath
from repro_pp_graphs.traces.explain import step_path
from repro_pp_graphs.traces.explain.analysis_lines import lines
from repro_pp_graphs.traces.path import followed
from repro_pp_graphs.traces.path.clock_leads import CannotTell
from repro_pp_graphs.traces.path.path_slices import path_slices
from repro_pp_graphs.traces.path.whole_analysis import explained, studied


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED])
def test_categories_add_up_and_little_is_unexplained(name):
    path = path_of(name)
    whole = path.step_us.mean
    parts = {category: part.mean for category, part in path.categories.items()}
    assert sum(parts.values()) == pytest.approx(whole, rel=1e-3)
    assert sum(us for row in path.ranks.values() for us in row.values()) == pytest.approx(whole)
    assert sum(path.host.values()) == pytest.approx(parts["host"], rel=1e-3)
    assert min(parts.values()) >= 0
    assert parts["unexplained"] < 0.05 * whole


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED])
def test_the_step_is_the_one_found_by_following_messages(name):
    step = analysis(name).decode_step
    path = path_of(name)
    assert step is not None
    assert path.micro_batches == step.micro_batches
    assert path.step_us.mean == pytest.approx(step.mean, rel=0.05)  # other steps at the edges


@pytest.mark.parametrize("name", A_GPU_EACH)
def test_timed_again_unchanged_a_step_is_what_was_measured_and_no_remedy_makes_it_longer(name):
    path = path_of(name)
    assert path.retimed_us == pytest.approx(path.steady_us, rel=0.02)
    assert path.what_if
    assert all(0 < us <= path.steady_us + 0.001 for us in path.what_if.values())


@pytest.mark.parametrize("name", IN_TIME_SLICES)
def test_what_ranks_wait_for_while_another_has_the_gpu_is_a_part_of_its_own(name):
    path = path_of(name)
    assert path.categories["shared_gpu"].mean > 0.1 * path.step_us.mean


@pytest.mark.parametrize("name", SHARED)
def test_where_ranks_may_share_a_gpu_there_is_no_what_if_but_a_reason(name):
    assert not path_of(name).what_if
    known = name == "sglang052_pp4"
    reason = "ranks share a GPU" if known else "the GPU of several ranks has the same number"
    assert reason in " ".join(" ".join(lines(analysis(name))).split())


def test_the_graph_on_the_path_is_as_long_as_the_graph_is():
    path = path_of("sglang0516_graphs_on")
    graph_us = analysis("sglang0516_graphs_on").ranks["1"].graph_us
    assert path.ranks["1"]["graph"] == pytest.approx(graph_us, rel=0.01)
    assert path.ranks["1"]["queueing"] == pytest.approx(graph_us, rel=0.01)  # the other batch's


@pytest.mark.parametrize("name", A_GPU_EACH)
def test_whose_graph_is_on_the_path_of_how_many_steps_is_what_its_mean_is_made_of(name):
    path = path_of(name)
    assert path.graph_steps is not None and set(path.graph_steps) == set(path.ranks)
    for label, row in path.ranks.items():
        graph_us = analysis(name).ranks[label].graph_us or 0
        whole = path.graph_steps[label] * graph_us / path.steps
        assert row.get("graph", 0) == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize(
    ("graph_steps", "said"),
    [
        (
            {"0": 5, "1": 40},
            "of some of the 44 steps: PP0's of 5, PP1's of 40, of at least 1 both.",
        ),
        ({"0": 0, "1": 44}, ""),
        ({"0": 0, "1": 0}, ""),
        (None, ""),
        ({str(n): n + 3 for n in range(8)}, "44 steps: each of 8 ranks' of 3 to 10."),
    ],
)
def test_a_graph_on_the_path_of_some_steps_is_said_to_be(graph_steps, said):
    path = replace(path_of("sglang052_graphs_on"), steps=44, graph_steps=graph_steps)
    text = " ".join(" ".join(step_path.lines(_with(path))).split())
    assert said in text
    assert ("Own decode graphs are on the path of some" in text) == bool(said)
    assert "+-: 95 % interval of the mean, over the steps" in text


def _with(path: RingPath) -> Analysis:
    return replace(analysis("sglang052_graphs_on"), ring_path=path)


def test_without_graphs_what_a_graph_would_be_is_kernels_and_launching():
    path = path_of("sglang052_graphs_off")
    assert path.categories["graph"].mean == 0
    assert path.categories["eager"].mean > 0.3 * path.step_us.mean
    assert path.what_if["launch=0"] < 0.98 * path.steady_us


def test_blocking_sends_without_their_cost_are_asynchronous_sends():
    """Both measured, two launches on the same GPUs: the same release with the sends of 0.5.2."""
    blocking, released = path_of("sglang0516_sync_send"), path_of("sglang0516_graphs_on")
    assert blocking.what_if["send=0"] == pytest.approx(released.steady_us, rel=0.1)
    assert blocking.what_if["send=0"] <= released.steady_us
    assert blocking.what_if["send=0"] < 0.9 * blocking.steady_us


@pytest.mark.parametrize("ahead_us", [250, -400, 3000])
def test_a_rank_whose_clock_is_ahead_on_another_host_changes_nothing(ahead_us):
    name = "sglang0516_graphs_on"
    ranks = ranks_of(name)
    for file, document in ranks.items():
        document["host_name"] = f"host of {file}"
        if "PP-1" in file:
            document["baseTimeNanoseconds"] += ahead_us * 1000
    moved = explained(case_of(name, ranks))
    assert moved.ring_path is not None, moved.ring_path_unknown
    for category, part in path_of(name).categories.items():
        there = moved.ring_path.categories[category].mean
        assert there == pytest.approx(part.mean, abs=0.02 * path_of(name).step_us.mean), category


@pytest.mark.parametrize("name", ["cpu_prefill", "sglang0516_async_depth"])
def test_where_steps_cannot_be_followed_there_is_a_reason_instead(name):
    found = analysis(name)
    assert found.ring_path is None
    assert found.ring_path_unknown


def test_a_missing_rank_is_the_reason(tmp_path):
    (name, text), *_ = texts("sglang052_graphs_on").items()
    (tmp_path / name).write_text(text)
    assert explained(only_case(tmp_path)).ring_path_unknown == "not every rank has a trace"


@pytest.mark.parametrize("name", [*A_GPU_EACH, *SHARED, "sglang0516_batched_p2p"])
def test_the_path_is_one_thing_at_a_time_without_a_gap(name):
    """Slices that overlap would stand on top of one another in the merged trace."""
    followed = studied(only_case(DATA / name)).followed
    assert not isinstance(followed, CannotTell)
    slices = path_slices(followed)
    ahead = {line.host.rank.rank: line.ahead_ns for line in followed.ring.ranks}
    for one, other in pairwise(slices):
        assert one.start_ns < one.end_ns
        assert one.end_ns - ahead[one.rank] == other.start_ns - ahead[other.rank]


def test_of_a_long_trace_the_steps_in_the_middle_are_followed_and_it_is_said(monkeypatch):
    whole = path_of("sglang052_graphs_on")
    monkeypatch.setattr(followed, "MOST", 8)
    found = explained(only_case(DATA / "sglang052_graphs_on"))
    part = found.ring_path
    assert part is not None, found.ring_path_unknown
    assert part.steps < whole.steps
    assert part.batches_there == whole.batches_there
    assert f"in the middle of {part.batches_there} batches" in " ".join(
        " ".join(lines(found)).split()
    )
    assert part.categories["graph"].mean == pytest.approx(whole.categories["graph"].mean, rel=0.05)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("sglang0516_sync_send", "cudaStreamSynchronize"),
        ("sglang052_graphs_on", "cudaStreamSynchronize"),
        ("sglang0516_graphs_on", "cudaEventSynchronize"),
        ("sglang0516_sync_send", "gloo:recv"),
        ("sglang0516_sync_send", "gloo:send"),
        ("sglang052_graphs_on", "c10d::send"),
        ("sglang052_graphs_on", "cudaGraphLaunch"),
        ("sglang052_graphs_off", "cudaLaunchKernel"),
        ("sglang052_graphs_off", "cudaStreamSynchronize"),
    ],
)
def test_events_missing_from_a_trace_change_little_or_are_the_reason_that_there_is_no_path(
    name, missing
):
    ranks = ranks_of(name)
    for rank in ranks.values():
        rank["traceEvents"] = [e for e in rank["traceEvents"] if e.get("name") != missing]
    found = explained(case_of(name, ranks))
    if found.ring_path is None:
        assert found.ring_path_unknown
        return
    whole, path = path_of(name), found.ring_path
    lost = path.categories["peer_late"].mean + path.categories["unexplained"].mean
    for category, part in whole.categories.items():
        off = abs(path.categories[category].mean - part.mean)
        assert off <= 0.05 * whole.step_us.mean + lost, category
    assert not path.what_if or path.what_if["send=0"] == pytest.approx(
        whole.what_if["send=0"], rel=0.05
    )
