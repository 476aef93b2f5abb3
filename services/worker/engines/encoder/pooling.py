"""Makes one vector of the vectors of a text's tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

Pool = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`[rows, size]` of the tokens' vectors, `[rows, tokens, size]` in float32, and of which of them
are the text's own, `[rows, tokens]` with 1 for these and 0 behind each text's end."""


def _cls(vectors: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return vectors[:, 0]


def _last(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    last = mask.sum(1).long() - 1
    return vectors[torch.arange(len(vectors), device=vectors.device), last]


def _max(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return vectors.masked_fill(mask.unsqueeze(-1) == 0, float("-inf")).amax(1)


def _sum(vectors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    # Masked rather than multiplied: a model may leave anything, inf included, behind the end.
    weighted = (vectors * weights.unsqueeze(-1)).masked_fill(weights.unsqueeze(-1) == 0, 0.0)
    return weighted.sum(1)


def _mean(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _sum(vectors, mask) / mask.sum(1, keepdim=True)


def _mean_sqrt_length(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _sum(vectors, mask) / mask.sum(1, keepdim=True).sqrt()


def _weighted_mean(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    # SGPT: https://arxiv.org/abs/2202.08904. Later tokens, which have seen more, count more.
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype)
    return _mean(vectors, mask * places)


POOLS: Mapping[str, Pool] = {
    "cls": _cls,
    "last": _last,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_length": _mean_sqrt_length,
    "weighted_mean": _weighted_mean,
}


def pool(vectors: torch.Tensor, mask: torch.Tensor, modes: Sequence[str]) -> torch.Tensor:
    """The pooled vectors, those of several modes joined: `[rows, size * modes]`, float32.

    Args:
        vectors: `[rows, tokens, size]`, texts from the left.
        mask: `[rows, tokens]`, 1 for a text's own tokens.
        modes: keys of POOLS.
    """
    vectors, mask = vectors.float(), mask.float()
    return torch.cat([POOLS[mode](vectors, mask) for mode in modes], 1)
