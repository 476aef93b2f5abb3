"""Computes rows: one forward pass for all of them, and what the recipe makes of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from services.worker.engines.encoder.job import Row
from services.worker.engines.encoder.pooling import pool


class PaddedRows:
    """Rows of several lengths as one tensor, filled up behind each row's end."""

    def __init__(self, rows: Sequence[Row], pad_id: int, device: torch.device) -> None:
        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        has_types = any(row.type_ids is not None for row in rows)
        types = torch.zeros_like(mask) if has_types else None
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row.token_ids)
            mask[at, : len(row)] = 1
            if types is not None and row.type_ids is not None:
                types[at, : len(row)] = torch.tensor(row.type_ids)
        self.mask = mask.to(device)
        self.arguments: dict[str, Any] = {
            "input_ids": ids.to(device),
            "attention_mask": self.mask,
            **({} if types is None else {"token_type_ids": types.to(device)}),
        }


class EmbeddingModel:
    """Vectors of length 1, each `dimensions` long.

    Args:
        model: gives a vector for each token.
        pad_id: what rows are filled up with.
        pooling: keys of `pooling.POOLS`.
        dense: layers over the pooled vectors.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        *,
        pad_id: int,
        pooling: Sequence[str],
        dense: Sequence[torch.nn.Module] = (),
    ) -> None:
        self._model = model
        self._device = device
        self._pad_id = pad_id
        self._pooling = pooling
        self._dense = dense
        self._more = _without_cache(model)

    @torch.inference_mode()
    def compute(self, rows: Sequence[Row]) -> torch.Tensor:
        """`[rows, dimensions]` in float32, in host memory."""
        padded = PaddedRows(rows, self._pad_id, self._device)
        vectors = self._model(**padded.arguments, **self._more).last_hidden_state
        pooled = pool(vectors, padded.mask, self._pooling)
        for layer in self._dense:
            pooled = layer(pooled)
        return torch.nn.functional.normalize(pooled, dim=1).cpu()


class CrossEncoder:
    """A score for each pair.

    Args:
        model: gives one logit for each row.
        pad_id: what rows are filled up with.
        activation: what the logit goes through.
    """

    def __init__(
        self, model: Any, device: torch.device, *, pad_id: int, activation: torch.nn.Module
    ) -> None:
        self._model = model
        self._device = device
        self._pad_id = pad_id
        self._activation = activation
        self._more = _without_cache(model)

    @torch.inference_mode()
    def compute(self, rows: Sequence[Row]) -> torch.Tensor:
        """`[rows, 1]` in float32, in host memory."""
        padded = PaddedRows(rows, self._pad_id, self._device)
        logits = self._model(**padded.arguments, **self._more).logits
        scores: torch.Tensor = self._activation(logits.float())
        return scores.cpu()


RowModel = EmbeddingModel | CrossEncoder


def _without_cache(model: Any) -> dict[str, bool]:
    """Models that could go on from here keep keys and values, which nobody wants."""
    takes_it = "use_cache" in inspect.signature(model.forward).parameters
    return {"use_cache": False} if takes_it else {}
