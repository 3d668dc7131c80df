"""The memory of GPUs: what cannot fit is refused, what is not known for certain is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gpu_plans import deep, h100s, h200s, launch
from made_up_run import plan

from repro_pp_graphs.run.checks import preflight


def test_a_model_that_fits_is_no_problem():
    assert preflight.check_memory(plan(launch()), h100s(4)) == []


def test_a_model_that_cannot_fit_is_refused_with_both_sizes():
    (problem,) = preflight.check_memory(plan(launch(pp_size=1)), h100s(1))
    assert "141 GB" in problem and "86 GB" in problem and "--dummy-weights" in problem


def test_only_the_gpus_of_the_ranks_count():
    (problem,) = preflight.check_memory(plan(launch(pp_size=1)), h100s(8))
    assert "141 GB" in problem


def test_dropped_layers_weigh_nothing():
    args = ["--json-model-override-args", '{"num_hidden_layers": 16}']
    assert preflight.check_memory(plan(launch(pp_size=1, args=args)), h100s(1)) == []


def test_each_node_holds_its_share():
    model = "deepseek-ai/DeepSeek-V3"  # 673 GB, eight GPUs have 684 and need some for other things
    assert preflight.check_memory(plan(launch(model=model, tp_size=2)), h100s(8))
    assert preflight.check_memory(plan(launch(model=model, tp_size=4, nodes=2)), h100s(8)) == []


def test_a_busy_gpu_is_named_and_an_unused_one_is_not():
    (problem,) = preflight.check_memory(plan(launch(pp_size=2, model="x/y")), h100s(1, 40000))
    assert "GPU 0" in problem and "40000 of 81559 MiB" in problem
    idle, busy = h100s(1)[0], h100s(2, 40000)[1]
    assert preflight.check_memory(plan(launch(pp_size=1, model="x/y")), [idle, busy]) == []


@pytest.mark.parametrize(
    "model",
    [
        "hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4",  # 40 GB
        "neuralmagic/Meta-Llama-3.1-70B-Instruct-quantized.w4a16",
    ],
)
def test_a_quantised_model_on_the_hub_is_not_taken_for_bf16(model):
    assert preflight.check_memory(plan(launch(pp_size=1, model=model)), h100s(1)) == []


@pytest.mark.parametrize("method", ["awq", "gptq", "mxfp4", "compressed-tensors"])
def test_a_quantised_local_model_is_not_taken_for_bf16(tmp_path, method):
    config = json.loads(
        (Path(preflight.__file__).parents[2] / "models" / "llama-3.1-70b.json").read_text("utf-8")
    )
    config["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert preflight.check_memory(plan(launch(pp_size=1, model=str(tmp_path))), h100s(1)) == []


def test_a_shape_that_is_not_counted_exactly_is_not_refused(tmp_path):
    folder = Path(preflight.__file__).parents[2] / "models"
    config = json.loads((folder / "deepseek-v3.json").read_text("utf-8"))
    for name, refused in (("DeepseekV3ForCausalLM", True), ("AnotherForCausalLM", False)):
        config["architectures"] = [name]
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        found = preflight.check_memory(plan(deep("0.5.2", model=str(tmp_path))), h200s(8))
        assert bool(found) == refused


def test_idle_gpus_are_a_remedy_only_where_they_are_enough():
    deep = plan(launch(model="deepseek-ai/DeepSeek-V3"))
    (text,) = preflight.check_memory(deep, h100s(8))
    assert "more GPUs" in text and "all 8 GPUs" not in text
    (text,) = preflight.check_memory(deep, h100s(16))
    assert "all 16 GPUs (--pp-size" in text


@pytest.mark.parametrize(
    "config",
    [
        "{}",
        "not json",
        '{"text_config": {"hidden_size": 1}}',
        '{"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 27, '
        '"vocab_size": 102400, "kv_lora_rank": 512, "q_lora_rank": null, "qk_rope_head_dim": 64, '
        '"qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 1, '
        '"n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1408, '
        '"intermediate_size": 10944}',
    ],
    ids=["empty", "not JSON", "nested", "DeepSeek-V2-Lite"],
)
def test_a_config_of_another_shape_is_no_obstacle(tmp_path, config):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert preflight.check_memory(plan(launch(pp_size=1, model=str(tmp_path))), h100s(1)) == []
