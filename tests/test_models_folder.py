"""Models without weights: a tokenizer that gives back what it got, shapes, sizes."""

from __future__ import annotations

import json

import pytest

from repro_pp_graphs.client import options
from repro_pp_graphs.client.prompts import Prompts
from repro_pp_graphs.models import folder, size

TEXTS = ["Hello, world", "流水线并行", "tabs\tand\nlines  ", "é🙂\x00\x7f", " leading"]


def parameters(config: dict, layers: int | None = None) -> float:
    """How many weights are counted: two bytes each where none is in FP8."""
    changes = {"quantization_config": None} | ({"num_hidden_layers": layers} if layers else {})
    return size.weight_bytes({**config, **changes}) / 2


@pytest.mark.parametrize("shape", folder.shapes())
def test_a_written_folder_agrees_with_itself(tmp_path, shape):
    folder.write(shape, tmp_path / "m")
    files = {path.name: json.loads(path.read_text("utf-8")) for path in (tmp_path / "m").iterdir()}
    config, vocab = files["config.json"], files["tokenizer.json"]["model"]["vocab"]
    ids = list(vocab.values())
    assert len(set(ids)) == len(ids) and max(ids) < config["vocab_size"]
    for name in ("bos", "eos"):
        token = files["tokenizer_config.json"][f"{name}_token"]
        assert vocab[token] == config[f"{name}_token_id"]
        assert vocab[token] == files["generation_config.json"][f"{name}_token_id"]
    assert config["hidden_size"] % config["num_attention_heads"] == 0
    assert files["tokenizer_config.json"]["model_max_length"] == config["max_position_embeddings"]


def test_an_unknown_shape_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(KeyError):
        folder.write("llama-9", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_byte_symbols_are_gpt_2s():
    tokens = folder.byte_tokens()
    assert len(set(tokens)) == 256
    # from GPT-2's vocabulary
    known = {0x20: "Ġ", 0x0A: "Ċ", 0x09: "ĉ", 0x41: "A", 0x00: "Ā", 0xAD: "Ń", 0x7F: "ġ", 0xE4: "ä"}
    assert {byte: tokens[byte] for byte in known} == known


def test_the_tokenizer_loads_and_gives_back_every_text(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    folder.write("tiny", tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    for text in TEXTS[1:4]:
        assert len(tokenizer.encode(text).ids) == len(text.encode()), text  # one token a byte
    assert tokenizer.encode("<s>a</s>").ids[::2] == [0, 1]
    assert tokenizer.decode(tokenizer.encode("<s>a</s>").ids) == "a"


@pytest.mark.parametrize("asked", [1, 100, 4000])
def test_a_synthetic_prompt_has_as_many_tokens_as_were_asked_for(tmp_path, asked):
    tokenizers = pytest.importorskip("tokenizers")
    folder.write("tiny", tmp_path)
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    words = ["--base-url", "http://h:1", "--input-len", str(asked)]
    prompts = Prompts(options.parse_options(words))
    for text in (prompts[0], prompts[1], prompts[-3]):
        ids = tokenizer.encode(text).ids
        # the first word has no blank before it, and is of as many tokens as letters
        assert len(ids) == asked - 1 + len(text.split()[0])
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "llama-3.1-70b"),
        ("/models/Meta-Llama-3.1-8B", "llama-3.1-8b"),
        ("/models/meta_llama_3.1_8b/", "llama-3.1-8b"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
        ("tiny", "tiny"),
        ("Qwen/Qwen3-8B", None),
        ("meta-llama/Llama-3.1-405B", None),
        ("mistralai/Mixtral-8x22B-v0.1", None),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", None),
        ("", None),
    ],
)
def test_a_models_name_stands_for_a_shape_or_for_none(model, shape):
    assert folder.shape_of(model) == shape


def config_of(shape: str) -> dict:
    return json.loads(folder.config_path(shape).read_text("utf-8"))


@pytest.mark.parametrize(
    ("shape", "published"),
    [
        # as their model cards count them
        ("llama-3.1-8b", 8.030e9),
        ("llama-3.1-70b", 70.554e9),
        ("mixtral-8x7b", 46.703e9),
        ("deepseek-v3", 671.03e9),
    ],
)
def test_sizes_are_the_published_parameter_counts(shape, published):
    assert parameters(config_of(shape)) == pytest.approx(published, rel=1e-3)


@pytest.mark.parametrize(
    ("model", "tp_size", "expected"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", 1, 80 * 2 * 8 * 128 * 2),
        ("meta-llama/Llama-3.1-70B-Instruct", 4, 80 * 2 * 2 * 128 * 2),
        ("meta-llama/Llama-3.1-70B-Instruct", 16, 80 * 2 * 1 * 128 * 2),  # a head each, twice
        ("deepseek-ai/DeepSeek-V3", 1, 61 * (512 + 64) * 2),
        ("deepseek-ai/DeepSeek-V3", 8, 61 * (512 + 64) * 2),  # every rank has it whole
    ],
)
def test_bytes_of_a_token_in_the_kv_cache(model, tp_size, expected):
    assert size.kv_bytes(config_of(folder.shape_of(model)), tp_size) == expected


def test_fewer_layers_weigh_less_by_whole_layers():
    config = config_of("llama-3.1-8b")
    counts = [parameters(config, layers) for layers in (1, 2, 3)]
    assert counts[2] - counts[1] == counts[1] - counts[0] == 218_103_808  # q k v o, gate up down
    assert parameters({**config, "num_hidden_layers": 3}) == counts[2]
    # DeepSeek's first three layers are dense
    deep = config_of("deepseek-v3")
    assert parameters(deep, 3) - parameters(deep, 2) < 1e9
    assert parameters(deep, 4) - parameters(deep, 3) > 10e9


def test_tied_embeddings_count_once():
    config = config_of("llama-3.1-8b")
    tied = parameters({**config, "tie_word_embeddings": True})
    assert parameters(config) - tied == config["vocab_size"] * config["hidden_size"]


def test_fp8_weights_take_a_byte_and_bf16_two():
    # embedding and head stay BF16: 0.93e9 parameters each
    assert size.weight_bytes(config_of("deepseek-v3")) == pytest.approx(672.9e9, rel=1e-3)
    assert size.weight_bytes(config_of("llama-3.1-8b")) == pytest.approx(16.06e9, rel=1e-3)
    assert size.weight_bytes({**config_of("llama-3.1-8b"), "quantization_config": None}) > 16e9


@pytest.mark.parametrize(
    ("layers", "split", "logged_gib"),
    [
        # "Load weight end": sglang 0.5.2 on two H100s; 0.5.16 on one H200, 16 layers
        (64, [32, 32], [54.98, 53.02]),
        (16, [4, 4, 4, 4], [10.35, 8.46, 8.39, 8.39]),
    ],
)
def test_each_pp_rank_weighs_what_its_server_logged(layers, split, logged_gib):
    config = {**config_of("llama-3.1-70b"), "num_hidden_layers": layers}
    made = [bytes_ / 2**30 for bytes_ in size.rank_bytes(config, split)]
    assert made == pytest.approx(logged_gib, rel=0.02)


def test_the_weights_of_all_pp_ranks_are_those_of_the_model_and_the_heads_that_are_not_needed():
    for name in ("llama-3.1-8b", "mixtral-8x7b", "deepseek-v3"):
        config = config_of(name)
        matrix = 2 * config["vocab_size"] * config["hidden_size"]
        layers = config["num_hidden_layers"]
        for first in (1, 2, 5):
            made = size.rank_bytes(config, [first, layers - first - 3, 3])
            assert sum(made) == size.weight_bytes(config) + 2 * matrix
        assert size.rank_bytes(config, [layers]) == [size.weight_bytes(config)]
    tied = {**config_of("llama-3.1-8b"), "tie_word_embeddings": True}
    assert size.rank_bytes(tied, [32]) == [size.weight_bytes(tied)]
    first, middle, last = size.rank_bytes(tied, [10, 10, 10])
    assert first == last > middle


def test_deepseek_v2_lite_projects_its_queries_in_one_step():
    # its config.json has "q_lora_rank": null; 15.7e9 parameters
    config = {
        **{"hidden_size": 2048, "num_attention_heads": 16, "num_hidden_layers": 27},
        **{"vocab_size": 102400, "intermediate_size": 10944, "moe_intermediate_size": 1408},
        **{"kv_lora_rank": 512, "q_lora_rank": None, "qk_rope_head_dim": 64},
        **{"qk_nope_head_dim": 128, "v_head_dim": 128, "first_k_dense_replace": 1},
        **{"n_routed_experts": 64, "n_shared_experts": 2},
    }
    assert parameters(config) == pytest.approx(15.7e9, rel=1e-2)
