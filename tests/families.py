"""Small shapes of model families, by transformers' names for them."""

from __future__ import annotations

from typing import Any

CONTEXT_TOKENS = 512
HIDDEN = 64

_SHAPE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
}
_HEADS_OF_16: dict[str, Any] = {**_SHAPE, "head_dim": 16}
# Else some families with random weights repeat their last token for ever.
_UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
_WINDOW: dict[str, Any] = {"sliding_window": 16}
_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}

PAGED: dict[str, dict[str, Any]] = {
    "llama": _SHAPE,
    "qwen2": _SHAPE,
    "qwen3": _HEADS_OF_16,
    "mistral": {**_SHAPE, **_WINDOW},
    # Soft-capped logits, and every other layer sees 16 tokens only.
    "gemma2": {**_HEADS_OF_16, **_WINDOW, **_UNTIED, "query_pre_attn_scalar": 16},
    # Two layers with a window for each without, and two bases of rotation.
    "gemma3_text": {
        **_HEADS_OF_16,
        **_WINDOW,
        **_UNTIED,
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 16,
    },
    "phi3": {**_SHAPE, "sliding_window": None},
    "gpt2": {"n_embd": HIDDEN, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT_TOKENS},
    "olmo2": _SHAPE,
    # Multipliers of embeddings, attention, residuals and logits.
    "granite": {
        **_SHAPE,
        "embedding_multiplier": 2.0,
        "attention_multiplier": 0.5,
        "residual_multiplier": 0.8,
        "logits_scaling": 3.0,
    },
    "qwen3_moe": {**_HEADS_OF_16, **_EXPERTS, "num_experts": 4, "norm_topk_prob": True},
    "mixtral": {**_SHAPE, "num_local_experts": 4, "num_experts_per_tok": 2},
    # Attention sinks, and experts.
    "gpt_oss": {**_HEADS_OF_16, **_WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    # Keys longer than values.
    "deepseek_v3": {
        **_SHAPE,
        **_EXPERTS,
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_routed_experts": 4,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    },
}
"""Families that run in batches over the paged KV cache."""

SERIAL: dict[str, dict[str, Any]] = {
    # An encoder and a decoder.
    "t5": {
        "d_model": HIDDEN,
        "d_kv": 16,
        "d_ff": 256,
        "feed_forward_proj": "gated-gelu",
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 1,
    },
    # Attention that cannot be replaced.
    "bloom": {**_UNTIED, "hidden_size": HIDDEN, "n_layer": 2, "n_head": 4},
    "gptj": {
        "n_embd": HIDDEN,
        "n_layer": 2,
        "n_head": 4,
        "rotary_dim": 8,
        "n_positions": CONTEXT_TOKENS,
    },
    "falcon": {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": CONTEXT_TOKENS,
    },
    # A state of fixed size instead of attention.
    "mamba": {"hidden_size": HIDDEN, "num_hidden_layers": 2, "state_size": 4},
    # Such states in some layers, attention in others.
    "recurrent_gemma": {
        **_HEADS_OF_16,
        **_UNTIED,
        "num_hidden_layers": 3,
        "attention_window_size": 16,
        "lru_width": HIDDEN,
    },
    "qwen3_next": {
        **_HEADS_OF_16,
        **_EXPERTS,
        "num_hidden_layers": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "num_experts": 4,
        "shared_expert_intermediate_size": 32,
    },
    # Attention within chunks of 16 tokens.
    "llama4_text": {
        **_HEADS_OF_16,
        "intermediate_size_mlp": 96,
        "num_local_experts": 4,
        "attention_chunk_size": 16,
    },
}
"""Families that run one sequence after another."""

CONFIGS = PAGED | SERIAL
