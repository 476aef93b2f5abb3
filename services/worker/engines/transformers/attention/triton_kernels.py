"""Attention over the blocks of the KV cache on a GPU, in Triton: blocks are read where they lie.

Decoding splits a sequence's keys into parts that are attended to at the same time, and then joined.
How it is split follows from the sequence's own length and never from the batch, so a row's result
is the same to the last bit whatever runs beside it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton

from services.worker.engines.transformers.attention.gathered import attend_alone
from services.worker.engines.transformers.attention.kv_cache import LayerCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.attention.rule import AttentionRule
from services.worker.engines.transformers.attention.triton_programs import (
    attend_piece,
    attend_splits,
    join_splits,
    store_tokens,
)

MIN_SPLIT_TOKENS = 128
"""Keys of one part. Fewer occupy more of a GPU when few rows decode, and cost more to join."""
MAX_SPLITS = 32
"""Parts of one sequence. Longer sequences have longer parts, so that joining stays cheap."""

_PROGRAMS = 1024
"""Programs that a decoding step is spread over, about: several for each multiprocessor of any GPU.
Where the rows alone give as many, a program takes all parts of its row."""
_LEAST_DOT_ROWS = 16
"""What tensor cores multiply at once."""
_WIDE_SIZE = 256
"""Key sizes from here on, and float32, take smaller tiles: they must fit shared memory."""


class TritonKernels:
    """Stores and attends with kernels of our own. See `BlockKernels`."""

    def store(
        self, cache: LayerCache, keys: torch.Tensor, values: torch.Tensor, layout: StepLayout
    ) -> None:
        """Puts the keys and values of a step into its blocks: `[tokens, kv heads, size]` each."""
        tokens, kv_heads, key_size = keys.shape
        value_size = values.shape[2]
        with _on_device_of(keys):
            store_tokens[tokens, kv_heads](
                keys,
                values,
                cache.keys,
                cache.values,
                layout.block_ids,
                layout.offsets,
                *keys.stride(),
                *values.stride(),
                *cache.keys.stride(),
                *cache.values.stride(),
                KEY_SIZE=key_size,
                VALUE_SIZE=value_size,
                SIZE=triton.next_power_of_2(max(key_size, value_size)),
            )

    def decode(
        self, query: torch.Tensor, cache: LayerCache, layout: StepLayout, rule: AttentionRule
    ) -> torch.Tensor:
        """`[rows, heads, value size]` of a query `[rows, heads, key size]`, in its type."""
        rows, heads, key_size = query.shape
        _, kv_heads, block_tokens, value_size = cache.values.shape
        room = layout.tables.shape[1] * block_tokens
        splits = min(MAX_SPLITS, triton.cdiv(room, MIN_SPLIT_TOKENS))
        programs = min(splits, max(1, triton.cdiv(_PROGRAMS, rows * kv_heads)))
        tiles = _tiles(cache.keys)
        window = rule.window or 0
        shape = (rows, heads, splits)
        parts = torch.empty((*shape, value_size), dtype=torch.float32, device=query.device)
        highest = torch.empty(shape, dtype=torch.float32, device=query.device)
        totals = torch.empty_like(highest)
        out = torch.empty((rows, heads, value_size), dtype=query.dtype, device=query.device)
        sizes = {"VALUE_SIZE": value_size, "VALUE": triton.next_power_of_2(value_size)}
        with _on_device_of(query):
            attend_splits[rows * kv_heads, programs](
                query,
                cache.keys,
                cache.values,
                layout.tables,
                layout.lengths,
                parts,
                highest,
                totals,
                rule.scale,
                rule.softcap or 0.0,
                window,
                splits,
                *query.stride(),
                *cache.keys.stride(),
                *cache.values.stride(),
                layout.tables.stride(0),
                KV_HEADS=kv_heads,
                GROUPS=heads // kv_heads,
                ROWS=max(_LEAST_DOT_ROWS, triton.next_power_of_2(heads // kv_heads)),
                KEY_SIZE=key_size,
                KEY=max(_LEAST_DOT_ROWS, triton.next_power_of_2(key_size)),
                BLOCK=block_tokens,
                TILE=tiles.keys,
                num_stages=tiles.stages,
                HAS_SOFTCAP=rule.softcap is not None,
                MIN_SPLIT=MIN_SPLIT_TOKENS,
                MAX_SPLITS=MAX_SPLITS,
                **sizes | {"VALUE": max(_LEAST_DOT_ROWS, sizes["VALUE"])},
            )
            join_splits[rows, heads](
                parts,
                highest,
                totals,
                layout.lengths,
                rule.sinks if rule.sinks is not None else highest,
                out,
                window,
                splits,
                HEADS=heads,
                TILE=tiles.keys,
                HAS_SINKS=rule.sinks is not None,
                MIN_SPLIT=MIN_SPLIT_TOKENS,
                MAX_SPLITS=MAX_SPLITS,
                **sizes,
            )
        return out

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
        """`[heads, tokens, value size]` of a query `[heads, tokens, key size]`, in its type."""
        heads, tokens, key_size = query.shape
        _, kv_heads, block_tokens, value_size = cache.values.shape
        tiles = _tiles(cache.keys)
        out = torch.empty((heads, tokens, value_size), dtype=query.dtype, device=query.device)
        with _on_device_of(query):
            attend_piece[triton.cdiv(tokens, tiles.queries), heads](
                query,
                cache.keys,
                cache.values,
                span.blocks,
                rule.sinks if rule.sinks is not None else query,
                out,
                span.position,
                tokens,
                rule.scale,
                rule.softcap or 0.0,
                rule.window or 0,
                *query.stride(),
                *cache.keys.stride(),
                *cache.values.stride(),
                GROUPS=heads // kv_heads,
                ROWS=tiles.queries,
                KEY_SIZE=key_size,
                KEY=max(_LEAST_DOT_ROWS, triton.next_power_of_2(key_size)),
                VALUE_SIZE=value_size,
                VALUE=max(_LEAST_DOT_ROWS, triton.next_power_of_2(value_size)),
                BLOCK=block_tokens,
                TILE=tiles.keys,
                num_stages=tiles.stages,
                HAS_SOFTCAP=rule.softcap is not None,
                HAS_SINKS=rule.sinks is not None,
            )
        return out


class _Tiles(NamedTuple):
    """What one pass of a loop takes, and how many passes are in shared memory at once."""

    keys: int
    queries: int
    stages: int


def _tiles(keys: torch.Tensor) -> _Tiles:
    is_wide = keys.shape[2] >= _WIDE_SIZE
    if keys.dtype.itemsize > 2:
        return _Tiles(32, 32, 1 if is_wide else 2)
    return _Tiles(32, 32, 2) if is_wide else _Tiles(64, 64, 2)


def _on_device_of(tensor: torch.Tensor) -> AbstractContextManager[object]:
    """Triton launches on the thread's current device, wherever the tensors are."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
