"""Log probabilities of tokens, before any processing."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.sampling.prompt_scores import TokenScore


def scores(
    logprobs: torch.Tensor, token_ids: torch.Tensor, top_counts: Rows[int]
) -> list[TokenScore]:
    """What is told of each row's token.

    Args:
        logprobs: `[rows, vocabulary]`.
        token_ids: `[rows]`.
        top_counts: how many of the likeliest, by row.
    """
    own: list[float] = logprobs.gather(-1, token_ids[:, None])[:, 0].tolist()
    most = min(max(top_counts, default=0), logprobs.shape[-1])
    if not most:
        return [TokenScore(value, ()) for value in own]
    values, ids = _likeliest(logprobs, most)
    rows = zip(own, top_counts, ids.tolist(), values.tolist(), strict=True)
    return [
        TokenScore(value, tuple(zip(row_ids[:count], row_values[:count], strict=True)))
        for value, count, row_ids, row_values in rows
    ]


def _likeliest(logprobs: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equal ones by rising id."""
    ids = logprobs.topk(count, sorted=False).indices.sort(-1).values
    values, order = logprobs.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)
