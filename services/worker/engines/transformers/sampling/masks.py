"""Keeps tokens from being drawn: single ones, and all but those that a packed bitmask allows."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from services.worker.engines.constraints import (
    BatchWords,
    TokenConstraint,
    fill_each,
    words_for,
)
from services.worker.engines.transformers.text.output import Output
from services.worker.engines.transformers.transfer import to_device

Fill: TypeAlias = Callable[[Rows[TokenConstraint], BatchWords], None]

_WORD_BITS = 32


def forbid(logits: torch.Tensor, entries: Rows[tuple[int, int]]) -> None:
    """Makes tokens impossible: `entries` are places in the batch with a token id each."""
    if entries:
        rows, token_ids = to_device(torch.tensor(entries), logits.device).T
        logits[rows, token_ids] = float("-inf")


def constrain(
    logits: torch.Tensor, rows: Rows[int], outputs: Rows[Output], fill: Fill = fill_each
) -> None:
    """Leaves some rows of `[batch, vocabulary]` only what the forms of their outputs allow.

    Args:
        logits: are changed.
        rows: places in the batch.
        outputs: those of the rows. Each has a constraint.
        fill: has the constraints fill their words.
    """
    vocabulary = logits.shape[-1]
    words = np.empty((len(rows), words_for(vocabulary)), dtype=np.int32)
    fill([output.constraint for output in outputs if output.constraint is not None], words)
    for row, output in zip(words, outputs, strict=True):
        output.spare_end(row)
    if logits.device.type == "cpu":
        _forbid_others(logits.numpy(), rows, words)
        return
    packed = to_device(words, logits.device)
    at = to_device(torch.tensor(rows), logits.device)
    logits[at] = torch.where(_unpacked(packed, vocabulary), logits[at], float("-inf"))


def _forbid_others(logits: npt.NDArray[np.float32], rows: Rows[int], words: BatchWords) -> None:
    """In place: a copy of the rows would cost more than all else."""
    vocabulary = logits.shape[-1]
    for row, allowed in zip(rows, words, strict=True):
        forbidden = np.unpackbits((~allowed).view(np.uint8), count=vocabulary, bitorder="little")
        np.putmask(logits[row], forbidden.view(np.bool_), -np.inf)


def _unpacked(words: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """`[rows, vocabulary]` of bool from `[rows, words]` of int32."""
    bits = torch.arange(_WORD_BITS, dtype=torch.int32, device=words.device)
    allowed = ((words[:, :, None] >> bits) & 1).to(torch.bool).flatten(1)
    return allowed[:, :vocabulary]
