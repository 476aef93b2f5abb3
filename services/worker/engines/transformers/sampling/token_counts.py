"""Which tokens a sequence holds, and how often: what penalties are computed from."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.scheduling.sequence import Sequence


class TokenCounts:
    """Counts of the output, and marks of prompt and output, by slot.

    They follow a sequence token by token, and are made anew from its tokens whenever they do not
    fit it; so they never hold anything that the token ids do not.
    """

    def __init__(self, slots: int, vocabulary_size: int, device: torch.device) -> None:
        self._shape = (slots, vocabulary_size)
        self._device = device
        self._counted: dict[int, tuple[Sequence, int]] = {}
        self._counts: torch.Tensor | None = None
        self._seen: torch.Tensor | None = None

    def update(self, sequences: Rows[Sequence]) -> None:
        """Brings the counts of running sequences up to date."""
        counts, seen = self._tensors()
        slots: list[int] = []
        token_ids: list[int] = []
        for sequence in sequences:
            assert sequence.slot is not None
            output_ids = sequence.output.token_ids
            counted = self._counted.get(sequence.slot)
            if counted == (sequence, len(output_ids)):
                continue
            if output_ids and counted == (sequence, len(output_ids) - 1):
                slots.append(sequence.slot)
                token_ids.append(output_ids[-1])
            else:
                self._count_anew(sequence, counts, seen)
            self._counted[sequence.slot] = (sequence, len(output_ids))
        if slots:
            index = (
                torch.tensor(slots, device=self._device),
                torch.tensor(token_ids, device=self._device),
            )
            counts[index] += 1
            seen[index] = True

    def of(self, slots: Rows[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """`[slots, vocabulary]`: whether prompt or output hold a token; its count in the output."""
        counts, seen = self._tensors()
        index = torch.tensor(slots, device=self._device)
        return seen[index], counts[index]

    def _count_anew(self, sequence: Sequence, counts: torch.Tensor, seen: torch.Tensor) -> None:
        assert sequence.slot is not None
        output_ids = torch.tensor(sequence.output.token_ids, dtype=torch.long, device=self._device)
        prompt_ids = torch.tensor(sequence.request.prompt_ids, device=self._device)
        row = torch.bincount(output_ids, minlength=self._shape[1])
        counts[sequence.slot] = row
        seen[sequence.slot] = row > 0
        seen[sequence.slot, prompt_ids] = True

    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Made on first use: most models never see a penalty."""
        if self._counts is None or self._seen is None:
            self._counts = torch.zeros(self._shape, device=self._device)
            self._seen = torch.zeros(self._shape, dtype=torch.bool, device=self._device)
        return self._counts, self._seen
