"""Attention over the blocks of the KV cache on a CPU, for decoding rows.

torch has no attention over block tables on a CPU, and copying blocks together first costs several
times what attending does: decoding is bound by memory. So these loops are our own, compiled by
Numba. They read each key and value once, as float32 or bfloat16, and compute in float32. They take
NumPy arrays, of the shapes that `LayerCache` and `StepLayout` tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from services.worker.engines.transformers.checkpoint.memory import BLOCK_TOKENS


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


@_compiled()
def store_keys(keys: Any, block_ids: Any, offsets: Any, cache: Any) -> None:
    """Puts `[tokens, kv heads, size]` into blocks, where keys lie dimension by dimension."""
    for token in range(len(keys)):
        block, offset = cache[block_ids[token]], offsets[token]
        for head in range(keys.shape[1]):
            for at in range(keys.shape[2]):
                block[head, at, offset] = keys[token, head, at]


@_compiled()
def store_values(values: Any, block_ids: Any, offsets: Any, cache: Any) -> None:
    """Puts `[tokens, kv heads, size]` into blocks."""
    for token in range(len(values)):
        block, offset = cache[block_ids[token]], offsets[token]
        for head in range(values.shape[1]):
            for at in range(values.shape[2]):
                block[head, offset, at] = values[token, head, at]


@_compiled(parallel=True)
def attend(
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
    """See `BlockKernels.decode`. `scores` is room for each thread: `[threads, heads, keys]`."""
    kv_heads = keys.shape[1]
    groups = query.shape[1] // kv_heads
    threads = scores.shape[0]
    # Many rows are a thread's each; of few rows each thread takes some heads.
    parts = 1 if len(lengths) >= 4 * threads else min(threads, kv_heads)
    total = 0
    for row in range(len(lengths)):
        total += parts * min(lengths[row], window)
    for thread in prange(threads):
        # A thread takes what begins within its share of all keys.
        first, last = thread * total, (thread + 1) * total
        begun = 0
        for row in range(len(lengths)):
            keys_seen = min(lengths[row], window)
            for part in range(parts):
                if first <= begun * threads < last:
                    head, end_head = part * kv_heads // parts, (part + 1) * kv_heads // parts
                    heads = slice(head * groups, end_head * groups)
                    _attend_part(
                        query[row, heads],
                        keys,
                        values,
                        head,
                        groups,
                        tables[row],
                        lengths[row] - keys_seen,
                        lengths[row],
                        sinks[heads],
                        scale,
                        softcap,
                        scores[thread],
                        out[row, heads],
                    )
                begun += keys_seen


@_compiled()
def _attend_part(
    query: Any,
    keys: Any,
    values: Any,
    kv_head: Any,
    groups: Any,
    table: Any,
    start: Any,
    end: Any,
    sinks: Any,
    scale: Any,
    softcap: Any,
    scores: Any,
    out: Any,
) -> None:
    """Some heads of a row, over the keys from `start` up to `end`: block by block, as they lie."""
    first, last = start // BLOCK_TOKENS, (end - 1) // BLOCK_TOKENS + 1
    for at in range(first, last):
        for head in range(len(query)):
            block = keys[table[at], kv_head + head // groups]
            _score(query[head], block, scale, scores[head, at * BLOCK_TOKENS :])
    out[:] = 0
    for head in range(len(query)):
        row = scores[head]
        _soften(row[start:end], sinks[head : head + 1], softcap)
        row[first * BLOCK_TOKENS : start] = 0
        row[end : last * BLOCK_TOKENS] = 0
    for at in range(first, last):
        for head in range(len(query)):
            block = values[table[at], kv_head + head // groups]
            _mix(scores[head, at * BLOCK_TOKENS :], block, out[head])


# Eight rows at a time, written out: so that sums stay in registers for eight additions, and what
# the compiler makes of the innermost loop are whole vectors.


@_compiled()
def _score(query: Any, block: Any, scale: Any, out: Any) -> None:
    """Scores of one block's keys, which lie dimension by dimension."""
    for token in range(BLOCK_TOKENS):
        out[token] = 0
    size = len(query)
    for at in range(0, size - 7, 8):
        q0, q1, q2, q3 = (
            query[at] * scale,
            query[at + 1] * scale,
            query[at + 2] * scale,
            query[at + 3] * scale,
        )
        q4, q5, q6, q7 = (
            query[at + 4] * scale,
            query[at + 5] * scale,
            query[at + 6] * scale,
            query[at + 7] * scale,
        )
        for token in range(BLOCK_TOKENS):
            out[token] += (
                q0 * _widen(block[at, token])
                + q1 * _widen(block[at + 1, token])
                + q2 * _widen(block[at + 2, token])
                + q3 * _widen(block[at + 3, token])
                + q4 * _widen(block[at + 4, token])
                + q5 * _widen(block[at + 5, token])
                + q6 * _widen(block[at + 6, token])
                + q7 * _widen(block[at + 7, token])
            )
    for at in range(size - size % 8, size):
        number = query[at] * scale
        for token in range(BLOCK_TOKENS):
            out[token] += number * _widen(block[at, token])


@_compiled()
def _mix(weights: Any, block: Any, out: Any) -> None:
    """Adds one block's values, weighed, to `out`."""
    for token in range(0, BLOCK_TOKENS, 8):
        w0, w1, w2, w3 = (
            weights[token],
            weights[token + 1],
            weights[token + 2],
            weights[token + 3],
        )
        w4, w5, w6, w7 = (
            weights[token + 4],
            weights[token + 5],
            weights[token + 6],
            weights[token + 7],
        )
        for at in range(len(out)):
            out[at] += (
                w0 * _widen(block[token, at])
                + w1 * _widen(block[token + 1, at])
                + w2 * _widen(block[token + 2, at])
                + w3 * _widen(block[token + 3, at])
                + w4 * _widen(block[token + 4, at])
                + w5 * _widen(block[token + 5, at])
                + w6 * _widen(block[token + 6, at])
                + w7 * _widen(block[token + 7, at])
            )


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
