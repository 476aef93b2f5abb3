"""The programs that a GPU runs for `TritonKernels`.

Each part of a sequence's keys, and each piece of a prompt, is one pass with a running softmax (Dao
et al., FlashAttention, 2022); parts are joined by their highest scores and totals (Dao et al.,
Flash-Decoding, 2023). Sums are float32 throughout.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def store_tokens(
    keys,
    values,
    kept_keys,
    kept_values,
    block_ids,
    offsets,
    key_token,
    key_head,
    key_dim,
    value_token,
    value_head,
    value_dim,
    kept_key_block,
    kept_key_head,
    kept_key_dim,
    kept_key_offset,
    kept_value_block,
    kept_value_head,
    kept_value_offset,
    kept_value_dim,
    KEY_SIZE: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    SIZE: tl.constexpr,
):
    """One token's key and value of one head."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    block = tl.load(block_ids + token).to(tl.int64)
    offset = tl.load(offsets + token)
    dims = tl.arange(0, SIZE)
    key = tl.load(
        keys + token * key_token + head * key_head + dims * key_dim, mask=dims < KEY_SIZE, other=0.0
    )
    place = block * kept_key_block + head * kept_key_head + offset * kept_key_offset
    tl.store(
        kept_keys + place + dims * kept_key_dim,
        key.to(kept_keys.dtype.element_ty),
        mask=dims < KEY_SIZE,
    )
    value = tl.load(
        values + token * value_token + head * value_head + dims * value_dim,
        mask=dims < VALUE_SIZE,
        other=0.0,
    )
    place = block * kept_value_block + head * kept_value_head + offset * kept_value_offset
    tl.store(
        kept_values + place + dims * kept_value_dim,
        value.to(kept_values.dtype.element_ty),
        mask=dims < VALUE_SIZE,
    )


@triton.jit
def _attend_tile(
    query,
    highest,
    total,
    out,
    keys,
    values,
    table,
    first,
    low,
    high,
    end,
    scale,
    softcap,
    key_block,
    key_dim,
    key_offset,
    value_block,
    value_offset,
    value_dim,
    KEY_SIZE: tl.constexpr,
    KEY: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
):
    """Takes the keys from `first` on into a running softmax.

    Row by row, only keys from `low` up to `high` are seen; none from `end` on is read.
    """
    tokens = first + tl.arange(0, TILE)
    is_there = tokens < end
    blocks = tl.load(table + tokens // BLOCK, mask=is_there, other=0).to(tl.int64)
    places = tokens % BLOCK
    dims = tl.arange(0, KEY)
    key = tl.load(
        keys + blocks[None, :] * key_block + dims[:, None] * key_dim + places[None, :] * key_offset,
        mask=(dims < KEY_SIZE)[:, None] & is_there[None, :],
        other=0.0,
    )
    # Not in TF32: float32 is asked for where it is to be exact.
    scores = tl.dot(query, key, input_precision="ieee") * scale
    if HAS_SOFTCAP:
        # The hyperbolic tangent; its exponential may overflow, which gives the 1 that it should.
        scores = (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0)) * softcap
    is_seen = (tokens[None, :] >= low[:, None]) & (tokens[None, :] < high[:, None])
    scores = tl.where(is_seen, scores, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    # Rows that have seen nothing so far have no number to go by.
    base = tl.where(new_highest == float("-inf"), 0.0, new_highest)
    weights = tl.exp(scores - base[:, None])
    shrink = tl.exp(highest - base)
    value_dims = tl.arange(0, VALUE)
    value = tl.load(
        values
        + blocks[:, None] * value_block
        + places[:, None] * value_offset
        + value_dims[None, :] * value_dim,
        mask=is_there[:, None] & (value_dims < VALUE_SIZE)[None, :],
        other=0.0,
    )
    added = tl.dot(weights.to(value.dtype), value, input_precision="ieee")
    return new_highest, total * shrink + tl.sum(weights, 1), out * shrink[:, None] + added


@triton.jit
def _first_key(length, window, TILE: tl.constexpr):
    """The tile in which a row's window begins."""
    return tl.where(window > 0, tl.maximum(length - window, 0), 0) // TILE * TILE


@triton.jit
def _split_tokens(keys, TILE: tl.constexpr, MIN_SPLIT: tl.constexpr, MAX_SPLITS: tl.constexpr):
    """Keys of each part of so many keys."""
    return tl.maximum(MIN_SPLIT, tl.cdiv(tl.cdiv(keys, MAX_SPLITS), TILE) * TILE)


@triton.jit(do_not_specialize=["window", "splits"])
def attend_splits(
    query,
    keys,
    values,
    tables,
    lengths,
    parts,
    all_highest,
    totals,
    scale,
    softcap,
    window,
    splits,
    query_row,
    query_head,
    query_dim,
    key_block,
    key_head,
    key_dim,
    key_offset,
    value_block,
    value_head,
    value_offset,
    value_dim,
    table_row,
    KV_HEADS: tl.constexpr,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    KEY_SIZE: tl.constexpr,
    KEY: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    MIN_SPLIT: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
):
    """Some parts of one row, for the query heads that share one key head."""
    row = (tl.program_id(0) // KV_HEADS).to(tl.int64)
    kv_head = tl.program_id(0) % KV_HEADS
    length = tl.load(lengths + row).to(tl.int32)
    start = _first_key(length, window, TILE)
    split_tokens = _split_tokens(length - start, TILE, MIN_SPLIT, MAX_SPLITS)
    low = tl.zeros((ROWS,), tl.int32)
    high = low + length
    if window > 0:
        low = high - window
    members = tl.arange(0, ROWS)
    heads = kv_head * GROUPS + members
    dims = tl.arange(0, KEY)
    own = tl.load(
        query + row * query_row + heads[:, None] * query_head + dims[None, :] * query_dim,
        mask=(members < GROUPS)[:, None] & (dims < KEY_SIZE)[None, :],
        other=0.0,
    ).to(keys.dtype.element_ty)
    value_dims = tl.arange(0, VALUE)
    for split in range(tl.program_id(1), tl.cdiv(length - start, split_tokens), tl.num_programs(1)):
        first = start + split * split_tokens
        last = tl.minimum(first + split_tokens, length)
        highest = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        out = tl.zeros((ROWS, VALUE), tl.float32)
        for tile in range(first, last, TILE):
            highest, total, out = _attend_tile(
                own,
                highest,
                total,
                out,
                keys + kv_head * key_head,
                values + kv_head * value_head,
                tables + row * table_row,
                tile,
                low,
                high,
                last,
                scale,
                softcap,
                key_block,
                key_dim,
                key_offset,
                value_block,
                value_offset,
                value_dim,
                KEY_SIZE,
                KEY,
                VALUE_SIZE,
                VALUE,
                BLOCK,
                TILE,
                HAS_SOFTCAP,
            )
        places = (row * KV_HEADS * GROUPS + heads) * splits + split
        tl.store(all_highest + places, highest, mask=members < GROUPS)
        tl.store(totals + places, total, mask=members < GROUPS)
        tl.store(
            parts + places[:, None] * VALUE_SIZE + value_dims[None, :],
            out,
            mask=(members < GROUPS)[:, None] & (value_dims < VALUE_SIZE)[None, :],
        )


@triton.jit(do_not_specialize=["window", "splits"])
def join_splits(
    parts,
    all_highest,
    totals,
    lengths,
    sinks,
    out,
    window,
    splits,
    HEADS: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE: tl.constexpr,
    TILE: tl.constexpr,
    HAS_SINKS: tl.constexpr,
    MIN_SPLIT: tl.constexpr,
    MAX_SPLITS: tl.constexpr,
):
    """Joins the parts of one row and head, and the head's sink."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    length = tl.load(lengths + row).to(tl.int32)
    start = _first_key(length, window, TILE)
    count = tl.cdiv(length - start, _split_tokens(length - start, TILE, MIN_SPLIT, MAX_SPLITS))
    numbers = tl.arange(0, MAX_SPLITS)
    is_there = numbers < count
    places = (row * HEADS + head) * splits + numbers
    tops = tl.load(all_highest + places, mask=is_there, other=float("-inf"))
    highest = tl.max(tops, 0)
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        highest = tl.maximum(highest, sink)
    shares = tl.where(is_there, tl.exp(tops - highest), 0.0)
    total = tl.sum(tl.load(totals + places, mask=is_there, other=0.0) * shares, 0)
    if HAS_SINKS:
        total += tl.exp(sink - highest)
    dims = tl.arange(0, VALUE)
    part = tl.load(
        parts + places[:, None] * VALUE_SIZE + dims[None, :],
        mask=is_there[:, None] & (dims < VALUE_SIZE)[None, :],
        other=0.0,
    )
    joined = tl.sum(part * shares[:, None], 0) / total
    tl.store(
        out + (row * HEADS + head) * VALUE_SIZE + dims,
        joined.to(out.dtype.element_ty),
        mask=dims < VALUE_SIZE,
    )


@triton.jit(do_not_specialize=["position", "tokens", "window"])
def attend_piece(
    query,
    keys,
    values,
    table,
    sinks,
    result,
    position,
    tokens,
    scale,
    softcap,
    window,
    query_head,
    query_token,
    query_dim,
    key_block,
    key_head,
    key_dim,
    key_offset,
    value_block,
    value_head,
    value_offset,
    value_dim,
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    KEY_SIZE: tl.constexpr,
    KEY: tl.constexpr,
    VALUE_SIZE: tl.constexpr,
    VALUE: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    HAS_SOFTCAP: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Some tokens of a piece of a prompt, for one head."""
    head = tl.program_id(1)
    kv_head = head // GROUPS
    # Later tokens see more keys: they begin first, so that none is left over at the end.
    rows = (tl.num_programs(0) - 1 - tl.program_id(0)) * ROWS + tl.arange(0, ROWS)
    is_there = rows < tokens
    places = rows.to(tl.int64)
    high = position + rows + 1
    low = tl.zeros((ROWS,), tl.int32)
    if window > 0:
        low = high - window
    end = tl.minimum(tl.max(high, 0), position + tokens)
    dims = tl.arange(0, KEY)
    own = tl.load(
        query + head * query_head + places[:, None] * query_token + dims[None, :] * query_dim,
        mask=is_there[:, None] & (dims < KEY_SIZE)[None, :],
        other=0.0,
    ).to(keys.dtype.element_ty)
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    out = tl.zeros((ROWS, VALUE), tl.float32)
    for tile in range(tl.maximum(tl.min(low, 0), 0) // TILE * TILE, end, TILE):
        highest, total, out = _attend_tile(
            own,
            highest,
            total,
            out,
            keys + kv_head * key_head,
            values + kv_head * value_head,
            table,
            tile,
            low,
            high,
            end,
            scale,
            softcap,
            key_block,
            key_dim,
            key_offset,
            value_block,
            value_offset,
            value_dim,
            KEY_SIZE,
            KEY,
            VALUE_SIZE,
            VALUE,
            BLOCK,
            TILE,
            HAS_SOFTCAP,
        )
    if HAS_SINKS:
        sink = tl.load(sinks + head).to(tl.float32)
        # The sink counts like one more key, whose value is nothing.
        top = tl.maximum(highest, sink)
        shrink = tl.exp(highest - top)
        total = total * shrink + tl.exp(sink - top)
        out = out * shrink[:, None]
    # What lies behind the piece has seen nothing.
    total = tl.where(is_there, total, 1.0)
    value_dims = tl.arange(0, VALUE)
    tl.store(
        result + (head * tokens + places[:, None]) * VALUE_SIZE + value_dims[None, :],
        (out / total[:, None]).to(result.dtype.element_ty),
        mask=is_there[:, None] & (value_dims < VALUE_SIZE)[None, :],
    )
