"""Attention of prompts in 16 bits on a CPU: tile by tile, as batched matrix products.

torch's own attention converts to float32 there, and computes at the speed of that. Products of
bfloat16 matrices run at two to three times it. Scores are rounded to bfloat16 before the softmax,
as in transformers' own ("eager") attention.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from services.worker.engines.transformers.attention.rule import AttentionRule

_TILE = 128
"""Queries at once: their scores, over thousands of keys, stay in the CPU's caches."""


def can_tile(query: torch.Tensor, rule: AttentionRule, keys: int) -> bool:
    """Whether `attend_tiled` is for this."""
    sees_all = rule.window is None or keys <= rule.window
    return (
        query.device.type == "cpu" and query.dtype == torch.bfloat16 and rule.is_plain and sees_all
    )


def attend_tiled(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float
) -> torch.Tensor:
    """Causal attention of the last tokens of a sequence: `[heads, tokens, value size]`.

    Args:
        query: `[heads, tokens, key size]`.
        keys: of the whole sequence, `[kv heads, length, key size]`.
        values: alike.
        scale: multiplies scores.
    """
    heads, tokens, size = query.shape
    kv_heads, length, value_size = values.shape
    out = query.new_empty((heads, tokens, value_size))
    nothing = query.new_zeros(1)
    for first in range(0, tokens, _TILE):
        last = min(first + _TILE, tokens)
        seen = length - tokens + last
        # Heads that share keys become further queries of one head.
        shared = query[:, first:last].reshape(kv_heads, -1, size)
        columns = keys[:, :seen].transpose(1, 2)
        scores = torch.baddbmm(nothing, shared, columns, beta=0, alpha=scale)
        tile = last - first
        scores.view(heads, tile, seen)[:, :, -tile:] += _future(tile)
        weights = torch.softmax(scores, -1)
        out[:, first:last] = torch.bmm(weights, values[:, :seen]).view(heads, tile, value_size)
    return out


@lru_cache(maxsize=_TILE)
def _future(tokens: int) -> torch.Tensor:
    """-inf where a key comes after the query, else 0: `[tokens, tokens]`."""
    hidden = torch.full((tokens, tokens), float("-inf"), dtype=torch.bfloat16)
    return hidden.triu_(1)
