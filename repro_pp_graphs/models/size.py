"""How many bytes a model's weights take, from its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def parameters(config: Mapping[str, Any], layers: int | None = None) -> int:
    """Weights of a Llama-, Mixtral- or DeepSeek-shaped model, norms left out.

    Attention, MLP and embedding matrices as the model classes of those names build them;
    Llama-3.1-70B gives 70.5e9, Mixtral-8x7B 46.7e9, DeepSeek-V3 671e9.
    """
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    count = layers or config["num_hidden_layers"]
    embeddings = (1 if config.get("tie_word_embeddings") else 2) * config["vocab_size"] * hidden
    if "kv_lora_rank" in config:
        rope, nope = config["qk_rope_head_dim"], config["qk_nope_head_dim"]
        value, kv_rank = config["v_head_dim"], config["kv_lora_rank"]
        q_rank = config.get("q_lora_rank")
        queries = heads * (nope + rope)
        attention = q_rank * (hidden + queries) if q_rank else hidden * queries
        attention += hidden * (kv_rank + rope)
        attention += kv_rank * heads * (nope + value) + heads * value * hidden
        dense = min(config["first_k_dense_replace"], count)
        experts = config["n_routed_experts"] + config["n_shared_experts"]
        moe = 3 * hidden * config["moe_intermediate_size"] * experts
        moe += hidden * config["n_routed_experts"]
        mlps = dense * 3 * hidden * config["intermediate_size"] + (count - dense) * moe
        return int(embeddings + count * attention + mlps)
    head_dim = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads", heads)
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    experts = config.get("num_local_experts", 1)
    router = hidden * experts if experts > 1 else 0
    mlp = 3 * hidden * config["intermediate_size"] * experts + router
    return int(embeddings + count * (attention + mlp))


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


def weight_bytes(config: Mapping[str, Any], layers: int | None = None) -> int:
    """Bytes of the weights: one each in FP8, two otherwise."""
    method = (config.get("quantization_config") or {}).get("quant_method", "")
    return parameters(config, layers) * (1 if method == "fp8" else 2)
