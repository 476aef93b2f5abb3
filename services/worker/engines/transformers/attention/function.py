"""Attention over packed rows and slots: what stands in for attention inside a model.

A step is one packed row of tokens: one token of each decoding sequence, then pieces of prompts.
transformers lets a model's attention be replaced by name; ours writes the step's keys and values
into the KV cache and reads from there what each token may see.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from services.worker.engines.transformers.attention.kv_cache import KVCache, LayerCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.checkpoint.memory import LayerShape

ATTENTION_NAME = "tokenmesh_slots"


@dataclass
class _Running(threading.local):
    """What the thread's current forward pass works on."""

    layout: StepLayout | None = None
    cache: KVCache | None = None
    shapes: list[LayerShape] | None = None


_running = _Running()


@contextmanager
def step_attention(layout: StepLayout, cache: KVCache) -> Iterator[None]:
    """Within it, forward passes of this thread compute a step over a cache."""
    _running.layout, _running.cache = layout, cache
    try:
        yield
    finally:
        _running.layout = _running.cache = None


@contextmanager
def shape_recording() -> Iterator[list[LayerShape]]:
    """Within it, forward passes of this thread compute one sequence, and record their layers."""
    shapes: list[LayerShape] = []
    _running.shapes = shapes
    try:
        yield shapes
    finally:
        _running.shapes = None


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one layer, as transformers calls it: `[1, heads, tokens, size]` each.

    Returns `[1, tokens, heads, value size]`. Other arguments change nothing in the models that were
    tried; a model in which they do is found when it is loaded, and refused.
    """
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rule = _Rule(scale, softcap, sliding_window, s_aux)
    layout, cache = _running.layout, _running.cache
    if layout is None or cache is None:
        assert _running.shapes is not None, "outside of a step"
        _running.shapes.append(LayerShape(layer, key.shape[1], key.shape[-1], value.shape[-1]))
        return _attend_alone(query, key, value, rule), None
    kept = cache.layers[layer]
    keys, values = kept
    keys[layout.slots, :, layout.positions] = key[0].transpose(0, 1).to(keys.dtype)
    values[layout.slots, :, layout.positions] = value[0].transpose(0, 1).to(values.dtype)
    packed = query[0].transpose(0, 1).to(keys.dtype)
    parts = []
    if layout.decodes:
        parts.append(_decode(packed[: layout.decodes], kept, layout, rule))
    parts.extend(_prefill(packed, kept, layout, span, rule) for span in layout.spans)
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined.to(query.dtype)[None], None


@dataclass(frozen=True, slots=True)
class _Rule:
    """How a layer weighs keys."""

    scale: float
    softcap: float | None
    window: int | None
    sinks: torch.Tensor | None


def _attend_alone(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: _Rule
) -> torch.Tensor:
    """One whole sequence, without a cache."""
    span = Span(0, 0, 0, query.shape[2])
    mask = StepLayout([], [], [span], query.device).span_mask(span, rule.window)
    return _weigh(query, key, value, mask, rule).transpose(1, 2)


def _decode(query: torch.Tensor, kept: LayerCache, layout: StepLayout, rule: _Rule) -> torch.Tensor:
    """One token each of several sequences: `[sequences, heads, size]`."""
    keys, values = kept
    rows, length = layout.cache_rows, layout.key_length
    if layout.in_place:
        keys, values = keys[:rows, :, :length], values[:rows, :, :length]
    else:
        keys = keys[:, :, :length].index_select(0, layout.decode_slots)
        values = values[:, :, :length].index_select(0, layout.decode_slots)
    if layout.has_gaps:
        spread = query.new_zeros((rows, *query.shape[1:]))
        query = spread.index_copy_(0, layout.decode_slots, query)
    weighed = _weigh(query[:, :, None], keys, values, layout.decode_mask(rule.window), rule)
    out = weighed.flatten(1, 2)
    return out.index_select(0, layout.decode_slots) if layout.has_gaps else out


def _prefill(
    packed: torch.Tensor, kept: LayerCache, layout: StepLayout, span: Span, rule: _Rule
) -> torch.Tensor:
    """A piece of a prompt: `[length, heads, size]`."""
    keys, values = kept
    end = span.position + span.length
    query = packed[span.row : span.row + span.length].transpose(0, 1)[None]
    mask = layout.span_mask(span, rule.window)
    keys, values = keys[span.slot, :, :end][None], values[span.slot, :, :end][None]
    return _weigh(query, keys, values, mask, rule)[0].transpose(0, 1)


def _weigh(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    rule: _Rule,
) -> torch.Tensor:
    """`[rows, heads, queries, size]` over `[rows, kv heads, keys, size]`."""
    rows, heads, queries, _ = query.shape
    kv_heads = keys.shape[1]
    groups = heads // kv_heads
    if queries == 1 and groups > 1:
        # The heads that share keys become the queries of one head: keys are read once.
        query = query.view(rows, kv_heads, groups, query.shape[-1])
        sinks = None if rule.sinks is None else rule.sinks.view(1, kv_heads, groups, 1)
    else:
        sinks = None if rule.sinks is None else rule.sinks.view(1, heads, 1, 1)
    shared = query.shape[1] != kv_heads
    mask = mask.to(query.dtype)
    if rule.softcap is None and sinks is None:
        out = F.scaled_dot_product_attention(
            query, keys, values, mask, scale=rule.scale, enable_gqa=shared
        )
    else:
        if shared:
            keys = keys.repeat_interleave(groups, 1)
            values = values.repeat_interleave(groups, 1)
        scores = torch.matmul(query * rule.scale, keys.transpose(-1, -2))
        if rule.softcap is not None:
            scores = torch.tanh(scores / rule.softcap) * rule.softcap
        scores = (scores + mask).float()
        if sinks is not None:
            scores = torch.cat([scores, sinks.float().expand(*scores.shape[:-1], 1)], -1)
        weights = torch.softmax(scores, -1)[..., : keys.shape[-2]].to(values.dtype)
        out = torch.matmul(weights, values)
    return out.reshape(rows, heads, queries, values.shape[-1])


ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attend)
