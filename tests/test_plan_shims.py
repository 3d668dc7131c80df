"""The shims of a launch: those that its release and GPUs need, those that its file names."""

from __future__ import annotations

import pytest
from plan_harness import plan_of

from repro_pp_graphs.run.plan.refusal import PlanError


def test_on_enough_gpus_nothing_stands_between_the_user_and_sglang(tmp_path):
    for launch in plan_of(tmp_path, "--no-pp-clock").launches:
        assert launch.argv[:3] == ["/usr/bin/python3", "-m", "sglang.launch_server"]
        assert launch.env == {}
        split, sends = [note.split(":")[0] for note in launch.notes]
        assert split == "--pp-max-micro-batch-size 4" and "are asynchronous" in sends
        assert launch.model == "meta-llama/Llama-3.1-70B-Instruct"


def test_the_clock_alone_stands_there_by_default_where_there_is_a_pipeline(tmp_path):
    for launch in plan_of(tmp_path).launches:
        assert launch.argv[:3] == ["/usr/bin/python3", "-m", "repro_pp_graphs.server.launch"]
        assert launch.env == {"REPRO_SHIMS": "pp_clock"}
    (one,) = plan_of(tmp_path, "--pp-size", "1", mine="").launches
    assert "REPRO_SHIMS" not in one.env


def test_ranks_on_one_gpu_get_the_shim_and_a_small_cache(tmp_path):
    launch = plan_of(tmp_path, "--one-gpu", count=1).launches[0]
    assert "one_gpu" in launch.env["REPRO_SHIMS"]
    assert "--max-total-tokens" in launch.args
    assert any("share a GPU" in note for note in launch.notes)
    assert launch.expects_graphs is True


@pytest.mark.parametrize(
    ("release", "pp_size", "needed"),
    [
        ("0.5.2", "4", True),
        ("0.5.3", "4", True),
        ("0.5.4", "4", False),
        ("0.5.6.post2", "4", False),
        ("0.5.10rc0", "4", False),
        ("0.5.10.post1", "4", False),
        ("0.5.2", "1", False),
    ],
)
def test_old_releases_get_the_pp_rank_into_their_traces(tmp_path, release, pp_size, needed):
    argv = ("--no-pp-clock", "--pp-size", pp_size)
    launch = plan_of(tmp_path, *argv, release=release).launches[0]
    assert ("trace_rank" in launch.env.get("REPRO_SHIMS", "")) == needed
    assert ("repro_pp_graphs.server.launch" in launch.argv) == needed
    assert any("trace_rank" in note for note in launch.notes) == needed


def test_the_reason_for_the_trace_shim_names_the_right_releases(tmp_path):
    # 0.5.3 leaves the PP rank out, 0.5.3.post3 and 0.5.4 write it
    note = plan_of(tmp_path, release="0.5.2").launches[0].notes[-1]
    assert "0.5.3" in note or "0.5.4" in note


def test_a_shim_that_the_user_names_is_kept_beside_ours(tmp_path):
    text = "REPRO_SHIMS=keep_profilers\n"
    (launch,) = plan_of(tmp_path, release="0.5.2", mine=text).launches
    assert launch.env["REPRO_SHIMS"].split(",") == ["keep_profilers", "trace_rank", "pp_clock"]
    with pytest.raises(PlanError, match="no such shim"):
        plan_of(tmp_path, mine="REPRO_SHIMS=nope\n")


@pytest.mark.parametrize(
    ("model", "dummy", "needed"),
    [
        ("deepseek-ai/DeepSeek-V3", "--dummy-weights", True),
        ("deepseek-ai/DeepSeek-V3", "", False),
        ("mistralai/Mixtral-8x7B-v0.1", "--dummy-weights", False),
        ("meta-llama/Llama-3.1-70B", "--dummy-weights", False),
    ],
)
def test_dummy_weights_of_a_router_with_a_bias_get_it_to_be_0(tmp_path, model, dummy, needed):
    words = ("--model", model, "--layers", "8", *filter(None, [dummy]))
    for launch in plan_of(tmp_path, *words if dummy else words[:2]).launches:
        assert ("even_router" in launch.env["REPRO_SHIMS"].split(",")) == needed
        assert any("even_router" in note for note in launch.notes) == needed
