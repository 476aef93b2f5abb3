"""What is measured: a model's shape, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

_PROMPT_SEED = 11


@dataclass(frozen=True)
class Size:
    """How large the model, and what is asked of it, are."""

    shape: dict[str, Any]
    dtype: torch.dtype
    batches: tuple[int, ...]
    prompt_tokens: int
    steps: int
    prefill_tokens: int
    step_tokens: int
    copied_bytes: int
    peers: tuple[str, ...] = field(default=("generate", "batching"))


FULL = Size(
    {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128_256,
        "max_position_embeddings": 8192,
        "rope_theta": 500_000.0,
        "tie_word_embeddings": False,
    },
    torch.bfloat16,
    (1, 2, 4, 8, 16, 32, 64, 128, 256),
    prompt_tokens=128,
    steps=64,
    prefill_tokens=4096,
    step_tokens=2048,
    copied_bytes=4 * 1024**3,
)
TINY = Size(
    {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 256,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    torch.float32,
    (1, 3),
    prompt_tokens=16,
    steps=12,
    prefill_tokens=96,
    step_tokens=64,
    copied_bytes=1024**2,
    peers=("generate",),
)


def random_prompt(row: int, tokens: int, vocabulary: int) -> list[int]:
    """The prompt of a row: always the same."""
    source = torch.Generator().manual_seed(_PROMPT_SEED + row)
    ids: list[int] = torch.randint(vocabulary, (tokens,), generator=source).tolist()
    return ids
