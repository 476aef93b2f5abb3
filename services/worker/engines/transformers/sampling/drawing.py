"""Draws tokens from probabilities: filters, then one number through the inverse of the cumulative
distribution, whose order is that of the token ids.

Each row comes out the same whatever the other rows are. Rows `[rows, vocabulary]` are named by
`at`, their places, so that drawing from some of them copies none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from services.worker.engines.transformers.sampling.blocks import (
    BLOCK_TOKENS,
    block_sums,
    gather_blocks,
)

CANDIDATE_BLOCKS = 128
"""Blocks that are looked at first. At least as many likeliest tokens are among theirs: enough for
most filters, and 40 times cheaper to sort than a large vocabulary."""


class Filters(NamedTuple):
    """What is left to draw from, `[rows, 1]` each. top_k is huge where it keeps all."""

    top_k: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def of(self, at: torch.Tensor) -> Filters:
        """Those of some rows."""
        return Filters(*(each[at] for each in self))


def draw(probabilities: torch.Tensor, at: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """A token for each row: the first whose cumulative probability is over the row's share.

    Args:
        probabilities: `[all rows, vocabulary]`, of any total.
        at: `[rows]`.
        numbers: `[rows, 1]`, from 0 up to and without 1.
    """
    sums = block_sums(probabilities)
    if len(at) < len(probabilities):
        sums = sums[at]
    cumulative = sums.cumsum(-1)
    share = cumulative[:, -1:] * numbers
    block = torch.searchsorted(cumulative, share, right=True).clamp_(max=sums.shape[-1] - 1)
    before = torch.where(block > 0, cumulative.gather(-1, (block - 1).clamp_(min=0)), 0.0)
    values, ids = gather_blocks(probabilities, at, block, fill=0.0)
    return ids.gather(-1, _invert(values, (share - before).clamp_(min=0.0)))[:, 0]


class Drawn(NamedTuple):
    """A token for each row, `[rows]`, and whether it took more than the likeliest blocks to tell.

    Where it did, the token is not the one; `draw_from_all` is. None: nowhere.
    """

    token_ids: torch.Tensor
    is_short: torch.Tensor | None


def draw_filtered(
    probabilities: torch.Tensor,
    maxima: torch.Tensor,
    at: torch.Tensor,
    numbers: torch.Tensor,
    filters: Filters,
) -> Drawn:
    """A token for each row from what top_k, then top_p, and min_p leave; equals by rising id.

    Args:
        probabilities: `[all rows, vocabulary]`, of total 1.
        maxima: `[rows, blocks]`: `block_maxima` of the rows, or of anything that rises with them.
        at: `[rows]`.
        numbers: `[rows, 1]`, from 0 up to and without 1.
        filters: those of the rows.
    """
    vocabulary = probabilities.shape[-1]
    count = min(CANDIDATE_BLOCKS, maxima.shape[-1])
    blocks = maxima.topk(count, sorted=False).indices.sort(-1).values
    values, ids = gather_blocks(probabilities, at, blocks, fill=0.0)
    rising = _sorted(values)
    kept = _kept_count(rising, filters, vocabulary)
    # What is over this is among the candidates, all of it. At 0 there is nothing else to draw.
    least = values.view(len(values), count, BLOCK_TOKENS).amax(-1).amin(-1, keepdim=True)
    drawn = ids.gather(-1, _draw_kept(values, rising, kept, numbers))[:, 0]
    if count == maxima.shape[-1]:
        return Drawn(drawn, None)
    last = torch.where(_needs_mass(filters, vocabulary), filters.top_k, kept)
    is_enough = (_nth_largest(rising, torch.maximum(last, kept)) > least) | (least == 0)
    return Drawn(drawn, ~is_enough[:, 0])


def draw_from_all(
    probabilities: torch.Tensor, at: torch.Tensor, numbers: torch.Tensor, filters: Filters
) -> torch.Tensor:
    """As `draw_filtered`, by a look at the whole vocabulary: many times as long, and always right.

    Returns `[rows]`.
    """
    rows = probabilities[at]
    rising = _sorted(rows)
    _drop_rest(rows, rising, _kept_count(rising, filters, rows.shape[-1]))
    return draw(rows, torch.arange(len(rows), device=rows.device), numbers)


def _kept_count(rising: torch.Tensor, filters: Filters, vocabulary: int) -> torch.Tensor:
    """`[rows, 1]`: how many of the largest values the filters keep; 1 or more.

    Right as long as it is no more than the values that are there completely.
    """
    count = rising.shape[-1]
    top_k, top_p, min_p = filters
    cumulative = rising.flip(-1).cumsum(-1)
    in_top_k = cumulative.gather(-1, top_k.clamp(max=count) - 1)
    mass = torch.where(top_k < vocabulary, in_top_k, 1.0)
    # A token is kept while those before it have not reached top_p.
    nucleus = torch.searchsorted(cumulative, top_p * mass) + 1
    nucleus = torch.where(top_p < 1, nucleus, vocabulary)
    likely = count - torch.searchsorted(rising, min_p * rising[:, -1:])
    likely = torch.where(min_p > 0, likely, vocabulary)
    return torch.minimum(torch.minimum(top_k, nucleus), likely).clamp_(min=1, max=count)


def _needs_mass(filters: Filters, vocabulary: int) -> torch.Tensor:
    """Whether all that top_k keeps must be known, because top_p is a share of it."""
    return (filters.top_k < vocabulary) & (filters.top_p < 1)


def _draw_kept(
    values: torch.Tensor, rising: torch.Tensor, kept: torch.Tensor, numbers: torch.Tensor
) -> torch.Tensor:
    _drop_rest(values, rising, kept)
    return _invert(values, values.sum(-1, keepdim=True) * numbers)


def _drop_rest(values: torch.Tensor, rising: torch.Tensor, kept: torch.Tensor) -> None:
    """Sets all but the `kept` largest values of each row to 0; of equals the first stay."""
    floor = _nth_largest(rising, kept)
    count = rising.shape[-1]
    equal_or_over = count - torch.searchsorted(rising, floor)
    over = count - torch.searchsorted(rising, floor, right=True)
    values *= values >= floor
    # Of rows without a tie it drops nothing. Which have one is asked where the answer is at hand.
    tied: torch.Tensor | slice = slice(None)
    if _is_at_hand(values):
        tied = ((equal_or_over > kept) & (floor > 0))[:, 0].nonzero()[:, 0]
        if not len(tied):
            return
    rows = values[tied]
    is_equal = rows == floor[tied]
    is_late = is_equal.cumsum(-1) > (kept - over)[tied]
    values[tied] = rows.masked_fill(is_equal & is_late, 0.0)


def _is_at_hand(values: torch.Tensor) -> bool:
    """Whether a look at values takes no waiting for a device."""
    return values.device.type == "cpu"


def _nth_largest(rising: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    return rising.gather(-1, (rising.shape[-1] - count).clamp_(min=0))


def _invert(values: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """`[rows, 1]`: the first place whose cumulative value is over the share, and that holds any."""
    places = torch.searchsorted(values.cumsum(-1), share, right=True)
    ranks = torch.arange(values.shape[-1], device=values.device)
    last = ((values > 0) * ranks).amax(-1, keepdim=True)
    return torch.minimum(places, last)


def _sorted(rows: torch.Tensor) -> torch.Tensor:
    """The values of each row, rising."""
    if rows.device.type == "cpu":
        # Sorts values alone, with vector instructions: ten times as fast as torch.
        return torch.from_numpy(np.sort(rows.numpy(), axis=-1))
    return rows.sort(-1).values
