"""Keeps tokens from being drawn: single ones, and all but those that a packed bitmask allows."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import numpy as np
import torch

from services.worker.engines.constraints import TokenConstraint, words_for
from services.worker.engines.transformers.transfer import to_device

_WORD_BITS = 32


def forbid(logits: torch.Tensor, entries: Rows[tuple[int, int]]) -> None:
    """Makes tokens impossible: `entries` are places in the batch with a token id each."""
    if entries:
        rows, token_ids = to_device(torch.tensor(entries), logits.device).T
        logits[rows, token_ids] = float("-inf")


def constrain(logits: torch.Tensor, rows: Rows[int], constraints: Rows[TokenConstraint]) -> None:
    """Leaves some rows of `[batch, vocabulary]` only what their constraints allow."""
    vocabulary = logits.shape[-1]
    words = np.zeros((len(rows), words_for(vocabulary)), dtype=np.int32)
    for row, constraint in zip(words, constraints, strict=True):
        constraint.fill_allowed(row)
    packed = to_device(words, logits.device)
    at = to_device(torch.tensor(rows), logits.device)
    logits[at] = torch.where(_unpacked(packed, vocabulary), logits[at], float("-inf"))


def _unpacked(words: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """`[rows, vocabulary]` of bool from `[rows, words]` of int32."""
    bits = torch.arange(_WORD_BITS, dtype=torch.int32, device=words.device)
    allowed = ((words[:, :, None] >> bits) & 1).to(torch.bool).flatten(1)
    return allowed[:, :vocabulary]
