"""What stands in for attention inside a model: attention over packed rows and KV blocks.

A step is one packed row of tokens: one token of each decoding sequence, then pieces of prompts.
transformers lets a model's attention be replaced by name; ours writes the step's keys and values
into the KV cache and reads from there what each token may see.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from services.worker.engines.transformers.attention import gathered
from services.worker.engines.transformers.attention.kernels import BlockKernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import StepLayout
from services.worker.engines.transformers.attention.rule import AttentionRule
from services.worker.engines.transformers.checkpoint.memory import LayerShape

ATTENTION_NAME = "tokenmesh_blocks"


@dataclass
class _Running(threading.local):
    """What the thread's current forward pass works on."""

    layout: StepLayout | None = None
    cache: KVCache | None = None
    kernels: BlockKernels = field(default_factory=gathered.GatheredKernels)
    shapes: list[LayerShape] | None = None


_running = _Running()


@contextmanager
def step_attention(layout: StepLayout, cache: KVCache, kernels: BlockKernels) -> Iterator[None]:
    """Within it, forward passes of this thread compute a step over a cache."""
    _running.layout, _running.cache, _running.kernels = layout, cache, kernels
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
    rule = AttentionRule(scale, softcap, sliding_window, s_aux)
    query, key, value = query[0], key[0], value[0]
    layout, cache = _running.layout, _running.cache
    if layout is None or cache is None:
        assert _running.shapes is not None, "outside of a step"
        sizes = (len(key), key.shape[-1], value.shape[-1])
        _running.shapes.append(LayerShape(layer, *sizes, sliding_window))
        alone = gathered.attend_alone(query, key, value, rule).transpose(0, 1)
        return alone[None].contiguous(), None
    kept = cache.layers[layer]
    kernels = _running.kernels
    kernels.store(kept, key.transpose(0, 1), value.transpose(0, 1), layout)
    parts = []
    if layout.decodes:
        rows = query[:, : layout.decodes].transpose(0, 1)
        parts.append(kernels.decode(rows, kept, layout, rule).to(query.dtype))
    for span in layout.spans:
        reach = slice(span.row, span.row + span.length)
        if span.position == 0:
            part = kernels.begin(query[:, reach], key[:, reach], value[:, reach], rule)
        else:
            part = kernels.prefill(query[:, reach], kept, span, layout, rule)
        parts.append(part.transpose(0, 1))
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    # Some models take a view of what they get.
    return joined[None].contiguous(), None


ALL_ATTENTION_FUNCTIONS.register(ATTENTION_NAME, _attend)
