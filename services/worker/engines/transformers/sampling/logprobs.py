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
    return Scores(logprobs, token_ids, top_counts).read()


class Scores:
    """What is told of each row's token, while the device may still compute it. Args as `scores`."""

    def __init__(
        self, logprobs: torch.Tensor, token_ids: torch.Tensor, top_counts: Rows[int]
    ) -> None:
        vocabulary = logprobs.shape[-1]
        self._shown = [min(count, vocabulary) for count in top_counts]
        self._most = max(self._shown, default=0)
        columns = [logprobs.gather(-1, token_ids[:, None])]
        if self._most:
            values, ids = _likeliest(logprobs, self._most)
            columns += [values, ids]
        # Both kinds of numbers are exact in it, and are read at once.
        self._table = torch.cat([each.double() for each in columns], -1)

    def read(self) -> list[TokenScore]:
        """Waits for them."""
        ids_at = 1 + self._most
        return [
            TokenScore(
                row[0],
                tuple((int(row[ids_at + rank]), row[1 + rank]) for rank in range(count)),
            )
            for row, count in zip(self._table.tolist(), self._shown, strict=True)
        ]


def _likeliest(logprobs: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Equal ones by rising id."""
    ids = logprobs.topk(count, sorted=False).indices.sort(-1).values
    values, order = logprobs.gather(-1, ids).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, order)
