"""Where the tokens of a step lie: in the packed row, in the cache, and what each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a prompt: `length` tokens from `position` on, at `row` of the packed row."""

    slot: int
    position: int
    row: int
    length: int


class StepLayout:
    """Where the tokens of a step lie in the packed row and in the cache.

    Args:
        decode_slots: slots of the decoding sequences, rising; their tokens come first in the row.
        decode_positions: positions of those tokens.
        spans: the pieces of prompts, in the order of the row.
        device: where the tensors are.
    """

    def __init__(
        self,
        decode_slots: Sequence[int],
        decode_positions: Sequence[int],
        spans: Sequence[Span],
        device: torch.device,
    ) -> None:
        self.spans = spans
        self.decodes = len(decode_slots)
        slots = list(decode_slots)
        positions = list(decode_positions)
        for span in spans:
            slots += [span.slot] * span.length
            positions += range(span.position, span.position + span.length)
        self.slots = torch.tensor(slots, device=device)
        self.positions = torch.tensor(positions, device=device)
        self._device = device
        self._masks: dict[int | None, torch.Tensor] = {}
        self._span_masks: dict[tuple[Span, int | None], torch.Tensor] = {}
        if not self.decodes:
            return
        self.key_length = max(decode_positions) + 1
        self.decode_slots = self.slots[: self.decodes]
        reach = decode_slots[-1] + 1
        # Rows of the cache that decoding reads: the slots themselves where they have no gaps; all
        # up to the last where the gaps are few; else a copy of those in use.
        self.in_place = reach < 2 * self.decodes
        self.cache_rows = reach if self.in_place else self.decodes
        self.has_gaps = self.in_place and reach != self.decodes

    def decode_mask(self, window: int | None) -> torch.Tensor:
        """What decoding tokens see: 0 or -inf, `[cache rows, 1, 1, key length]`."""
        mask = self._masks.get(window)
        if mask is None:
            last = self.positions[: self.decodes]
            if self.has_gaps:
                last = last.new_full((self.cache_rows,), self.key_length - 1).index_copy(
                    0, self.decode_slots, last
                )
            keys = torch.arange(self.key_length, device=self._device)
            hidden = keys[None, :] > last[:, None]
            if window is not None:
                hidden |= keys[None, :] <= last[:, None] - window
            mask = torch.zeros(hidden.shape, device=self._device)
            mask = mask.masked_fill_(hidden, _NEGATIVE_INFINITY)[:, None, None, :]
            self._masks[window] = mask
        return mask

    def span_mask(self, span: Span, window: int | None) -> torch.Tensor:
        """What the tokens of a piece see: 0 or -inf, `[length, keys]`."""
        mask = self._span_masks.get((span, window))
        if mask is None:
            end = span.position + span.length
            queries = torch.arange(span.position, end, device=self._device)[:, None]
            keys = torch.arange(end, device=self._device)[None, :]
            hidden = keys > queries
            if window is not None:
                hidden |= keys <= queries - window
            mask = torch.zeros(hidden.shape, device=self._device)
            mask = mask.masked_fill_(hidden, _NEGATIVE_INFINITY)
            self._span_masks[span, window] = mask
        return mask
