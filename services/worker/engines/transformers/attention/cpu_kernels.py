"""What a CPU does with the blocks of the KV cache: compiled loops for all that is not a product."""

from __future__ import annotations

import threading

import numba
import numpy as np
import torch

from services.worker.engines.transformers.attention.cpu_loops import (
    attend,
    store_keys,
    store_values,
)
from services.worker.engines.transformers.attention.kv_cache import LayerCache, words
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.attention.rule import AttentionRule
from services.worker.engines.transformers.attention.tiled import attend_tiled
from services.worker.engines.transformers.checkpoint.memory import BLOCK_TOKENS

_NO_SINKS = np.empty(0, dtype=np.float32)
_one_at_a_time = threading.Lock()
"""Numba's own threads serve one caller at a time, and end the process when two come."""


class CpuKernels:
    """Stores and attends with compiled loops. Any thread may call them. See `BlockKernels`."""

    def __init__(self, threads: int) -> None:
        self._threads = min(threads, numba.config.NUMBA_NUM_THREADS)

    def store(
        self, cache: LayerCache, keys: torch.Tensor, values: torch.Tensor, layout: StepLayout
    ) -> None:
        """Puts the keys and values of a step into its blocks: `[tokens, kv heads, size]` each."""
        dtype = cache.keys.dtype
        block_ids, offsets = layout.block_ids.numpy(), layout.offsets.numpy()
        store_keys(words(keys.to(dtype).contiguous()), block_ids, offsets, cache.key_words)
        store_values(words(values.to(dtype).contiguous()), block_ids, offsets, cache.value_words)

    def decode(
        self, query: torch.Tensor, cache: LayerCache, layout: StepLayout, rule: AttentionRule
    ) -> torch.Tensor:
        """`[rows, heads, value size]` in float32, of a query `[rows, heads, key size]`."""
        rows, heads, _ = query.shape
        value_size = cache.values.shape[3]
        out = np.empty((rows, heads, value_size), dtype=np.float32)
        room = layout.tables.shape[1] * BLOCK_TOKENS
        scores = np.empty((self._threads, heads, room), dtype=np.float32)
        sinks = _NO_SINKS if rule.sinks is None else rule.sinks.float().numpy()
        with _one_at_a_time:
            numba.set_num_threads(self._threads)
            attend(
                query.float().contiguous().numpy(),
                cache.key_words,
                cache.value_words,
                layout.tables.numpy(),
                layout.lengths.numpy(),
                sinks,
                np.float32(rule.scale),
                np.float32(rule.softcap or 0),
                room if rule.window is None else rule.window,
                scores,
                out,
            )
        return torch.from_numpy(out)

    def begin(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: AttentionRule
    ) -> torch.Tensor:
        """Attends for the first piece of a prompt: `[heads, tokens, value size]`."""
        return attend_tiled(query, key, value, rule)

    def prefill(
        self,
        query: torch.Tensor,
        cache: LayerCache,
        span: Span,
        layout: StepLayout,
        rule: AttentionRule,
    ) -> torch.Tensor:
        """`[heads, tokens, value size]`. Copies keys together: little beside the computing."""
        keys, values = cache.gather(span.blocks, span.end)
        return attend_tiled(query, keys.to(query), values.to(query), rule)
