"""Attention of prompts on a CPU: as matrix products over tiles that lie where they always lie.

Tiles begin at multiples of TILE in the sequence and have one shape for each place, whatever part of
a prompt a step computes. So a token's attention comes out the same to the last bit however its
prompt was cut into pieces, and whether its beginning was computed or found in the prefix cache:
the order of additions within a product depends on the shape alone.

In bfloat16 this is also faster than torch's own attention, which converts to float32 and computes
at the speed of that. Scores are rounded to bfloat16 before the softmax there, as in transformers'
own ("eager") attention.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812

from services.worker.engines.transformers.attention.rule import AttentionRule

TILE = 64
"""Queries of a tile. Their scores, over thousands of keys, stay in the CPU's caches."""


def attend_tiled(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rule: AttentionRule
) -> torch.Tensor:
    """Causal attention of the last tokens of a sequence: `[heads, tokens, value size]`.

    Args:
        query: `[heads, tokens, key size]`.
        keys: of the whole sequence, `[kv heads, length, key size]`.
        values: alike.
        rule: how keys are weighed.
    """
    heads, tokens, size = query.shape
    kv_heads, length, value_size = values.shape
    start = length - tokens
    before, after = start % TILE, -length % TILE
    query = F.pad(query, (0, 0, before, after))
    keys, values = F.pad(keys, (0, 0, 0, after)), F.pad(values, (0, 0, 0, after))
    out = query.new_empty((heads, query.shape[1], value_size))
    for first in range(0, query.shape[1], TILE):
        tile = slice(first, first + TILE)
        seen = start - before + first + TILE
        lowest = 0 if rule.window is None else max(0, seen - TILE + 1 - rule.window)
        # Heads that share keys become further queries of one head.
        shared = query[:, tile].reshape(kv_heads, -1, size)
        scores = _scores(shared, keys[:, lowest:seen], rule).view(heads, TILE, seen - lowest)
        weights = _soften(scores, rule).view(kv_heads, -1, seen - lowest)
        out[:, tile] = torch.bmm(weights, values[:, lowest:seen]).view(heads, TILE, value_size)
    return out[:, before : before + tokens]


def _scores(query: torch.Tensor, keys: torch.Tensor, rule: AttentionRule) -> torch.Tensor:
    nothing = query.new_zeros(1)
    scores = torch.baddbmm(nothing, query, keys.transpose(1, 2), beta=0, alpha=rule.scale)
    return scores if rule.softcap is None else torch.tanh(scores / rule.softcap) * rule.softcap


def _soften(scores: torch.Tensor, rule: AttentionRule) -> torch.Tensor:
    """Weights of one tile's keys, of which the last are its own: `[heads, TILE, keys]`."""
    scores[:, :, -TILE:] += _later(scores.dtype)
    keys = scores.shape[-1]
    if rule.window is not None and keys > rule.window:
        scores += _too_early(keys, rule.window, scores.dtype)
    if rule.sinks is None:
        return torch.softmax(scores, -1)
    sinks = rule.sinks.to(scores.dtype)[:, None, None].expand(-1, TILE, 1)
    return torch.softmax(torch.cat([scores, sinks], -1), -1)[..., :-1].contiguous()


@lru_cache(maxsize=8)
def _later(dtype: torch.dtype) -> torch.Tensor:
    """-inf where a key comes after the query, else 0: `[TILE, TILE]`."""
    return torch.full((TILE, TILE), float("-inf"), dtype=dtype).triu_(1)


@lru_cache(maxsize=64)
def _too_early(keys: int, window: int, dtype: torch.dtype) -> torch.Tensor:
    """-inf where a key lies before the query's window, else 0: `[TILE, keys]`."""
    return torch.full((TILE, keys), float("-inf"), dtype=dtype).tril_(keys - TILE - window)
