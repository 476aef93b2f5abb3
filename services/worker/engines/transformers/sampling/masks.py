"""Keeps tokens from being drawn: single ones, and all but those that a packed bitmask allows."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Rows
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from services.worker.engines.constraints import (
    BatchWords,
    TokenConstraint,
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


class Filling:
    """What the forms of some outputs allow next, filled in a thread while the model computes."""

    def __init__(self, rows: Rows[int], outputs: Rows[Output], words: Future[BatchWords]) -> None:
        self._rows = rows
        self._outputs = outputs
        self._words = words

    def apply(self, logits: torch.Tensor) -> None:
        """Leaves those rows of `[batch, vocabulary]` only what is allowed and not forbidden."""
        words = self._words.result()
        for row, output in zip(words, self._outputs, strict=True):
            output.narrow(row)
        if logits.device.type == "cpu":
            _forbid_others(logits.numpy(), self._rows, words)
            return
        packed = to_device(words, logits.device)
        at = to_device(torch.tensor(self._rows), logits.device)
        logits[at] = torch.where(_unpacked(packed, logits.shape[-1]), logits[at], float("-inf"))


class Masks:
    """Has the forms of outputs tell what may come next.

    Args:
        vocabulary_size: tokens that there are.
        fill: has constraints fill their words, without the interpreter's lock.
    """

    def __init__(self, vocabulary_size: int, fill: Fill) -> None:
        self._words = words_for(vocabulary_size)
        self._fill = fill
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="masks")

    def begin(self, rows: Rows[int], outputs: Rows[Output]) -> Filling:
        """Begins to fill. Until that is applied the outputs must not change.

        Args:
            rows: places in the batch.
            outputs: those of the rows. Each has a constraint.
        """
        constraints = [each.constraint for each in outputs if each.constraint is not None]
        return Filling(rows, outputs, self._thread.submit(self._filled, constraints))

    def _filled(self, constraints: Rows[TokenConstraint]) -> BatchWords:
        words = np.empty((len(constraints), self._words), dtype=np.int32)
        self._fill(constraints, words)
        return words


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
