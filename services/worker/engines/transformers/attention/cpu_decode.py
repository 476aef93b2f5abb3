"""Attention of decoding rows on a CPU, straight from the blocks of the KV cache.

torch has no attention over block tables on a CPU, and copying blocks together first costs several
times what attending does: decoding is bound by memory. So these loops are our own, compiled by
Numba. They read each key and value once, as float32 or bfloat16, and compute in float32.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from services.worker.engines.transformers.attention.kv_cache import LayerCache
from services.worker.engines.transformers.attention.layout import StepLayout
from services.worker.engines.transformers.attention.rule import AttentionRule

_NO_SINKS = np.empty(0, dtype=np.float32)
_one_at_a_time = threading.Lock()
"""Numba's own threads serve one caller at a time, and end the process when two come."""


class CpuDecode:
    """Attends for decoding rows with compiled loops. Any thread may call it."""

    def __init__(self, threads: int) -> None:
        self._threads = min(threads, numba.config.NUMBA_NUM_THREADS)

    def __call__(
        self, query: torch.Tensor, cache: LayerCache, layout: StepLayout, rule: AttentionRule
    ) -> torch.Tensor:
        """`[rows, heads, value size]` in float32, of a query `[rows, heads, key size]`."""
        rows, heads, _ = query.shape
        kv_heads, value_size = cache.keys.shape[1], cache.values.shape[3]
        out = np.empty((rows, heads, value_size), dtype=np.float32)
        scores = np.empty((self._threads, heads // kv_heads, layout.max_length), dtype=np.float32)
        sinks = _NO_SINKS if rule.sinks is None else rule.sinks.float().numpy()
        with _one_at_a_time:
            numba.set_num_threads(self._threads)
            _attend(
                query.float().contiguous().numpy(),
                cache.key_words,
                cache.value_words,
                layout.tables.numpy(),
                layout.lengths.numpy(),
                sinks,
                np.float32(rule.scale),
                np.float32(rule.softcap or 0),
                layout.max_length if rule.window is None else rule.window,
                scores,
                out,
            )
        return torch.from_numpy(out)


@intrinsic
def _float_of_bits(_: Any, __: Any) -> Any:
    """The float32 with the bits of an int32."""

    def generate(_: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _widen(_: Any, value: Any) -> Any:
    """A stored number as float32: itself, or the bfloat16 whose bits a uint16 holds."""

    def widen_bits(_: Any, builder: Any, ___: Any, arguments: Any) -> Any:
        bits = builder.zext(arguments[0], ir.IntType(32))
        return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

    def keep(_: Any, __: Any, ___: Any, arguments: Any) -> Any:
        return arguments[0]

    return types.float32(value), widen_bits if value == types.uint16 else keep


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiles a function on its first call, and keeps the result on disk where that is possible.

    Reassociation lets the compiler use vectors. NaN must stay NaN, so not all of fastmath.
    """
    options |= {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "nogil": True}

    def compile_(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # No folder to keep it in, as in a read-only container.
            return numba.njit(**options)(function)

    return compile_


@_compiled(inline="always")
def _exp(x: Any) -> Any:
    """e^x of an x up to 0, to float32's precision: 2^n times the series of 2^f, |f| <= 1/2."""
    scaled = max(x, np.float32(-87)) * np.float32(1.44269504)
    whole = np.floor(scaled + np.float32(0.5))
    part = scaled - whole
    series = np.float32(1.5403530e-4)
    series = series * part + np.float32(1.3333558e-3)
    series = series * part + np.float32(9.6181291e-3)
    series = series * part + np.float32(5.5504109e-2)
    series = series * part + np.float32(2.4022651e-1)
    series = series * part + np.float32(6.9314718e-1)
    series = series * part + np.float32(1.0)
    power = _float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))
    return series * power


@_compiled(parallel=True)
def _attend(
    query: Any,
    keys: Any,
    values: Any,
    tables: Any,
    lengths: Any,
    sinks: Any,
    scale: Any,
    softcap: Any,
    window: Any,
    scores: Any,
    out: Any,
) -> None:
    """One unit of work is a row and a head of keys, with all heads of the query that share it."""
    kv_heads = keys.shape[1]
    groups = query.shape[1] // kv_heads
    threads = scores.shape[0]
    total = 0
    for row in range(len(lengths)):
        total += min(lengths[row], window)
    for thread in prange(threads):
        # Each thread takes the units that begin within its share of all keys.
        first, last = thread * total * kv_heads, (thread + 1) * total * kv_heads
        begun = 0
        for row in range(len(lengths)):
            keys_seen = min(lengths[row], window)
            for kv_head in range(kv_heads):
                if first <= begun * threads < last:
                    _attend_unit(
                        query[row, kv_head * groups : (kv_head + 1) * groups],
                        keys,
                        values,
                        tables[row],
                        lengths[row] - keys_seen,
                        lengths[row],
                        kv_head,
                        sinks[kv_head * groups : (kv_head + 1) * groups],
                        scale,
                        softcap,
                        scores[thread],
                        out[row, kv_head * groups : (kv_head + 1) * groups],
                    )
                begun += keys_seen


@_compiled()
def _attend_unit(
    query: Any,
    keys: Any,
    values: Any,
    table: Any,
    start: Any,
    end: Any,
    kv_head: Any,
    sinks: Any,
    scale: Any,
    softcap: Any,
    scores: Any,
    out: Any,
) -> None:
    """Heads that share keys, over the keys from `start` up to `end`."""
    groups, size = query.shape
    value_size = out.shape[1]
    block_tokens = keys.shape[2]
    for place in range(start, end):
        key = keys[table[place // block_tokens], kv_head, place % block_tokens]
        for group in range(groups):
            score = np.float32(0)
            for at in range(size):
                score += query[group, at] * _widen(key[at])
            scores[group, place] = score * scale
    for group in range(groups):
        _soften(scores[group, start:end], sinks[group : group + 1], softcap)
    out[:] = 0
    for place in range(start, end):
        value = values[table[place // block_tokens], kv_head, place % block_tokens]
        for group in range(groups):
            weight = scores[group, place]
            for at in range(value_size):
                out[group, at] += weight * _widen(value[at])


@_compiled()
def _soften(scores: Any, sink: Any, softcap: Any) -> None:
    """Turns scores into weights: their softmax. A sink takes its share away."""
    if softcap > 0:
        for place in range(len(scores)):
            scores[place] = np.float32(np.tanh(scores[place] / softcap)) * softcap
    highest = scores[0]
    for place in range(1, len(scores)):
        highest = max(highest, scores[place])
    if len(sink):
        highest = max(highest, sink[0])
    total = np.float32(0)
    for place in range(len(scores)):
        weight = _exp(scores[place] - highest)
        scores[place] = weight
        total += weight
    if len(sink):
        total += _exp(sink[0] - highest)
    share = np.float32(1) / total
    for place in range(len(scores)):
        scores[place] *= share
