"""Rows over a vocabulary, seen as blocks of tokens: a look at all blocks finds the few that count.

Tokens keep their order, so the last block of a vocabulary may be a short one.
"""

from __future__ import annotations

import torch

BLOCK_TOKENS = 32


def block_maxima(rows: torch.Tensor) -> torch.Tensor:
    """`[rows, blocks]`: the largest value of each block of `[rows, vocabulary]`, NaN included."""
    whole, rest = _split(rows)
    parts = [whole.amax(-1)]
    if rest is not None:
        parts.append(rest.amax(-1, keepdim=True))
    return parts[0] if rest is None else torch.cat(parts, -1)


def block_sums(rows: torch.Tensor) -> torch.Tensor:
    """`[rows, blocks]`: the sum of each block of `[rows, vocabulary]`."""
    whole, rest = _split(rows)
    sums = whole.sum(-1)
    return sums if rest is None else torch.cat((sums, rest.sum(-1, keepdim=True)), -1)


def gather_blocks(
    rows: torch.Tensor, at: torch.Tensor, blocks: torch.Tensor, *, fill: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and token ids of some blocks of some rows, `[rows, blocks * BLOCK_TOKENS]` each.

    Args:
        rows: `[all rows, vocabulary]`.
        at: `[rows]`: which rows.
        blocks: `[rows, blocks]`: which blocks of each.
        fill: stands where the last block ends early; the token id there is the last one.
    """
    vocabulary = rows.shape[-1]
    within = torch.arange(BLOCK_TOKENS, device=rows.device)
    ids = (blocks[:, :, None] * BLOCK_TOKENS + within).flatten(1)
    if vocabulary % BLOCK_TOKENS == 0:
        return rows[at[:, None], ids], ids
    is_beyond = ids >= vocabulary
    ids = ids.clamp(max=vocabulary - 1)
    return rows[at[:, None], ids].masked_fill(is_beyond, fill), ids


def likeliest(rows: torch.Tensor, maxima: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value of each row and its token, the first of equals.

    Args:
        rows: `[rows, vocabulary]`.
        maxima: what `block_maxima` says of them.
    """
    values, blocks = maxima.max(-1)
    at = torch.arange(len(rows), device=rows.device)
    candidates, ids = gather_blocks(rows, at, blocks[:, None], fill=float("-inf"))
    return values, ids.gather(-1, candidates.argmax(-1, keepdim=True))[:, 0]


def _split(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """`[rows, whole blocks, BLOCK_TOKENS]`, and what is left. No copies."""
    vocabulary = rows.shape[-1]
    blocks = vocabulary // BLOCK_TOKENS
    end = blocks * BLOCK_TOKENS
    whole = rows[:, :end].view(len(rows), blocks, BLOCK_TOKENS)
    return whole, rows[:, end:] if end < vocabulary else None
