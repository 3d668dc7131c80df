"""How many bytes a model's weights take, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def _embeddings(config: Mapping[str, Any]) -> int:
    """Weights of the embedding and the head; of tied ones, that are one matrix, once."""
    return (1 if config.get("tie_word_embeddings") else 2) * _embedding(config)


def _embedding(config: Mapping[str, Any]) -> int:
    return int(config["vocab_size"] * config["hidden_size"])


def _of_layers(config: Mapping[str, Any], first: int, count: int) -> int:
    """Weights of so many layers from the `first` on, which counts from 0."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    if "kv_lora_rank" in config:
        rope, nope = config["qk_rope_head_dim"], config["qk_nope_head_dim"]
        value, kv_rank = config["v_head_dim"], config["kv_lora_rank"]
        q_rank = config.get("q_lora_rank")
        queries = heads * (nope + rope)
        attention = q_rank * (hidden + queries) if q_rank else hidden * queries
        attention += hidden * (kv_rank + rope)
        attention += kv_rank * heads * (nope + value) + heads * value * hidden
        dense = min(max(config["first_k_dense_replace"] - first, 0), count)
        experts = config["n_routed_experts"] + config["n_shared_experts"]
        moe = 3 * hidden * config["moe_intermediate_size"] * experts
        moe += hidden * config["n_routed_experts"]
        mlps = dense * 3 * hidden * config["intermediate_size"] + (count - dense) * moe
        return int(count * attention + mlps)
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads", heads)
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    experts = config.get("num_local_experts", 1)
    router = hidden * experts if experts > 1 else 0
    mlp = 3 * hidden * config["intermediate_size"] * experts + router
    return int(count * (attention + mlp))


def kv_bytes(config: Mapping[str, Any], tp_size: int = 1) -> float:
    """Bytes of a token in a TP rank's KV cache, over all layers, at two bytes a value.

    Keys and values of each KV head, which ranks share out; of DeepSeek's latent attention the
    compressed pair and the rotary part, which every rank has whole. Llama-3.1-70B gives 327,680,
    DeepSeek-V3 70,272. Raises KeyError, TypeError or ZeroDivisionError for another shape.
    """
    layers = config["num_hidden_layers"]
    if "kv_lora_rank" in config:
        return float(2 * layers * (config["kv_lora_rank"] + config["qk_rope_head_dim"]))
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads", heads) / tp_size
    return float(2 * 2 * layers * max(1, kv_heads) * head_dim)


def weight_bytes(config: Mapping[str, Any]) -> int:
    """Bytes of the weights: one each in FP8, two otherwise; two of embedding and head always.

    Of a Llama-, Mixtral- or DeepSeek-shaped model, norms left out: attention, MLP and embedding
    matrices as the model classes of those names build them. Llama-3.1-70B has 70.5e9 weights,
    Mixtral-8x7B 46.7e9, DeepSeek-V3 671e9.
    """
    layers = _of_layers(config, 0, config["num_hidden_layers"])
    return 2 * _embeddings(config) + _each(config) * layers


def rank_bytes(config: Mapping[str, Any], split: Sequence[int]) -> list[int]:
    """Bytes of each PP rank's weights, all its TP ranks together; `split`: layers of each.

    The first rank has the embedding. Every rank has a head, though the last one alone needs it: so
    build sglang's Llama and Mixtral it in 0.5.2 and 0.5.23, and its DeepSeek in 0.5.2 (in 0.5.23
    on the last rank, which is its fullest either way). Tied ones: on the first and the last rank.
    """
    matrix, found, begin = 2 * _embedding(config), [], 0
    for rank, count in enumerate(split):
        is_last = rank == len(split) - 1
        tied = bool(config.get("tie_word_embeddings"))
        heads = (is_last and rank > 0) if tied else True
        bytes_ = _each(config) * _of_layers(config, begin, count)
        found.append(bytes_ + matrix * ((rank == 0) + heads))
        begin += count
    return found


def _each(config: Mapping[str, Any]) -> int:
    """Bytes of a weight in a layer."""
    method = (config.get("quantization_config") or {}).get("quant_method", "")
    return 1 if method == "fp8" else 2
