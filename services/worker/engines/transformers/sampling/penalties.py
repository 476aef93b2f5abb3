"""Repetition, presence and frequency penalties of a batch, at the tokens that its rows hold."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.base import Sampling
from services.worker.engines.transformers.sampling.token_counts import TokenCounts
from services.worker.engines.transformers.transfer import to_device

_SPARE_PLACES = 64


def is_penalised(sampling: Sampling) -> bool:
    """Whether any penalty changes anything."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


class Penalties:
    """Penalties of some rows of a batch, for as long as the batch has the same rows.

    It costs what these rows hold: `[rows, different tokens]` values, not the vocabulary.

    Args:
        rows: places in the batch.
        samplings: the strengths, by row.
        counts: the tokens, by row. Each holds at least one.
    """

    def __init__(
        self,
        rows: Rows[int],
        samplings: Rows[Sampling],
        counts: Rows[TokenCounts],
        device: torch.device,
    ) -> None:
        self.rows = list(rows)
        self._device = device
        self._counted = list(counts)
        self._at = to_device(torch.tensor(self.rows), device)[:, None]
        self._repetition = self._column([each.repetition_penalty for each in samplings])
        self._presence = self._column([each.presence_penalty for each in samplings])
        self._frequency = self._column([each.frequency_penalty for each in samplings])
        self._always = torch.ones((), dtype=torch.bool, device=device)
        self._lay_out()

    def follow(self, outputs: Rows[Rows[int]]) -> None:
        """Counts the tokens that the rows have got since the last call."""
        changes = [
            (row, place)
            for row, (counted, output_ids) in enumerate(zip(self._counted, outputs, strict=True))
            for place in counted.follow(output_ids)
        ]
        if not changes:
            return
        if max(place for _, place in changes) >= self._token_ids.shape[1]:
            self._lay_out()
            return
        index = tuple(to_device(torch.tensor(changes), self._device).T)
        entries = [
            (self._counted[row].token_ids[place], self._counted[row].counts[place])
            for row, place in changes
        ]
        token_ids, counts = to_device(torch.tensor(entries), self._device).T
        self._token_ids[index] = token_ids
        self._counts[index] = counts.float()
        self._is_held.index_put_(index, self._always)

    def apply(self, logits: torch.Tensor) -> None:
        """Changes the logits `[batch, vocabulary]` of its rows."""
        before = logits[self._at, self._token_ids]
        scaled = torch.where(before > 0, before / self._repetition, before * self._repetition)
        after = scaled - self._frequency * self._counts - self._presence * (self._counts > 0)
        # What pads a row repeats its first token, so it must get the same again.
        logits[self._at, self._token_ids] = torch.where(self._is_held, after, after[:, :1])

    def _lay_out(self) -> None:
        width = max(len(each.token_ids) for each in self._counted) + _SPARE_PLACES
        token_ids = torch.empty(len(self.rows), width, dtype=torch.long)
        counts = torch.zeros(len(self.rows), width)
        is_held = torch.zeros(len(self.rows), width, dtype=torch.bool)
        for row, each in enumerate(self._counted):
            held = len(each.token_ids)
            token_ids[row] = each.token_ids[0]
            token_ids[row, :held] = torch.tensor(each.token_ids)
            counts[row, :held] = torch.tensor(each.counts, dtype=torch.float32)
            is_held[row, :held] = True
        self._token_ids = to_device(token_ids, self._device)
        self._counts = to_device(counts, self._device)
        self._is_held = to_device(is_held, self._device)

    def _column(self, values: list[float]) -> torch.Tensor:
        return to_device(torch.tensor(values), self._device)[:, None]
