"""Attention with torch's own operations, on any device: keys are copied together, then weighed.

For what no kernel of the device does from the blocks in place.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

from services.worker.engines.transformers.attention.kv_cache import LayerCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout, causal_mask
from services.worker.engines.transformers.attention.rule import AttentionRule


def attend_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
) -> torch.Tensor:
    """One whole sequence without a cache: `[heads, tokens, size]` each, and so the result."""
    tokens = query.shape[1]
    if rule.is_causal_for(tokens):
        return F.scaled_dot_product_attention(
            query[None],
            key[None],
            value[None],
            is_causal=True,
            scale=rule.scale,
            enable_gqa=len(query) != len(key),
        )[0]
    mask = causal_mask(0, tokens, rule.window, query.device)
    return _weigh(query[None], key[None], value[None], mask, rule)[0]


class GatheredKernels:
    """Stores and attends with torch's own operations, on any device. See `BlockKernels`."""

    def store(
        self, cache: LayerCache, keys: torch.Tensor, values: torch.Tensor, layout: StepLayout
    ) -> None:
        """Puts the keys and values of a step into its blocks: `[tokens, kv heads, size]` each."""
        cache.keys[layout.block_ids, :, :, layout.offsets] = keys.to(cache.keys.dtype)
        cache.values[layout.block_ids, :, layout.offsets] = values.to(cache.values.dtype)

    def decode(
        self, query: torch.Tensor, cache: LayerCache, layout: StepLayout, rule: AttentionRule
    ) -> torch.Tensor:
        """Attends for rows of one token each: `[rows, heads, value size]`."""
        tables = layout.tables.long()
        rows, blocks = tables.shape
        keys, values = cache.keys[tables].transpose(3, 4), cache.values[tables]
        kv_heads, block_tokens = keys.shape[2:4]
        length = blocks * block_tokens
        keys = keys.transpose(1, 2).reshape(rows, kv_heads, length, -1)
        values = values.transpose(1, 2).reshape(rows, kv_heads, length, -1)
        places = torch.arange(length, device=query.device)[None, :]
        lengths = layout.lengths[:, None]
        hidden = places >= lengths
        if rule.window is not None:
            hidden |= places < lengths - rule.window
        mask = torch.zeros(hidden.shape, device=query.device).masked_fill_(hidden, float("-inf"))
        weighed = _weigh(
            query[:, :, None], keys.to(query), values.to(query), mask[:, None, None], rule
        )
        return weighed[:, :, 0]

    def begin(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attends for the first piece of a prompt: `[heads, tokens, value size]`."""
        return attend_alone(query, key, value, rule)

    def prefill(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        span: Span,
        layout: StepLayout,
        rule: AttentionRule,
    ) -> torch.Tensor:
        """Attends for a piece of a prompt: `[heads, tokens, value size]`."""
        keys, values = cache.gather(span.blocks, span.end)
        mask = layout.span_mask(span, rule.window)
        return _weigh(query[None], keys.to(query)[None], values.to(query)[None], mask, rule)[0]


def _weigh(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    rule: AttentionRule,
) -> torch.Tensor:
    """`[rows, heads, queries, size]` over `[rows, kv heads, keys, size]`."""
    heads, kv_heads = query.shape[1], keys.shape[1]
    if rule.is_plain:
        return F.scaled_dot_product_attention(
            query,
            keys,
            values,
            mask.to(query.dtype),
            scale=rule.scale,
            enable_gqa=heads != kv_heads,
        )
    keys = keys.repeat_interleave(heads // kv_heads, 1)
    values = values.repeat_interleave(heads // kv_heads, 1)
    scores = torch.matmul(query * rule.scale, keys.transpose(-1, -2)).float()
    if rule.softcap is not None:
        scores = torch.tanh(scores / rule.softcap) * rule.softcap
    scores = scores + mask
    if rule.sinks is not None:
        sinks = rule.sinks.float()[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = torch.softmax(scores, -1)[..., : keys.shape[-2]].to(values.dtype)
    return torch.matmul(weights, values)
