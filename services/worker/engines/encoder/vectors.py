"""Vectors and scores as callers get them, of what rows came to."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def vectors_of(results: Sequence[torch.Tensor], dimensions: int | None) -> list[list[float]]:
    """Vectors of length 1, cut to `dimensions` where it is given."""
    vectors = torch.stack(list(results))
    if dimensions is not None:
        vectors = torch.nn.functional.normalize(vectors[:, :dimensions], dim=1)
    listed: list[list[float]] = vectors.tolist()
    return listed


def scores_of(results: Sequence[torch.Tensor]) -> list[float]:
    """The scores of pairs that a cross-encoder has read."""
    return [float(each[0]) for each in results]


def cosines_of(queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> list[float]:
    """The cosine of each document's vector and its query's: one for all, or one for each."""
    cosines: list[float] = (
        (torch.stack(list(documents)) * torch.stack(list(queries))).sum(1).tolist()
    )
    return cosines
