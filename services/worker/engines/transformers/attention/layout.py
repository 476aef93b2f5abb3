"""Where the tokens of a step lie: in the packed row, in the cache, and what each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_NEGATIVE_INFINITY = float("-inf")


@dataclass(frozen=True, slots=True)
class Piece:
    """A sequence's part of a step: `length` tokens from `position` on, in the blocks of a table.

    The table holds at least the blocks up to the last of these tokens.
    """

    blocks: Sequence[int]
    position: int
    length: int

    @property
    def end(self) -> int:
        """Keys that the last of these tokens sees."""
        return self.position + self.length


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a prompt, at `row` of the packed row. `blocks` holds its keys."""

    row: int
    position: int
    length: int
    blocks: torch.Tensor

    @property
    def end(self) -> int:
        """Keys that its last token sees."""
        return self.position + self.length


class StepLayout:
    """Where the tokens of a step lie in the packed row and in the cache.

    Attributes:
        decodes: rows that decode, first in the packed row: one token each.
        positions: place of each token in its sequence, `[tokens]`.
        block_ids, offsets: block of each token's key and value, and the place in it, `[tokens]`.
        tables: block tables of the decoding rows, padded with 0, `[decodes, blocks]`, int32.
        lengths: keys that each decoding row sees, its own included, `[decodes]`, int32.
        spans: the pieces of prompts, in the order of the row.

    Args:
        decoding: pieces of one token each.
        prompts: pieces of prompts; their rows follow.
        block_tokens: size of a block.
        device: where the tensors are.
    """

    def __init__(
        self,
        decoding: Sequence[Piece],
        prompts: Sequence[Piece],
        *,
        block_tokens: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self.decodes = len(decoding)
        positions = [np.array([piece.position for piece in decoding], dtype=np.int64)]
        places = [
            np.array([piece.blocks[piece.position // block_tokens] for piece in decoding], np.int64)
        ]
        self.max_length = 1 + max((piece.position for piece in decoding), default=-1)
        self.tables, self.lengths = self._decode_tables(decoding, block_tokens)
        self.spans = []
        row = self.decodes
        for piece in prompts:
            blocks = np.array(piece.blocks[: -(-piece.end // block_tokens)], dtype=np.int64)
            piece_positions = np.arange(piece.position, piece.end)
            positions.append(piece_positions)
            places.append(blocks[piece_positions // block_tokens])
            self.spans.append(Span(row, piece.position, piece.length, self._put(blocks)))
            row += piece.length
        joined = np.concatenate(positions)
        self.positions = self._put(joined)
        self.block_ids = self._put(np.concatenate(places))
        self.offsets = self._put(joined % block_tokens)
        self._span_masks: dict[tuple[int, int | None], torch.Tensor] = {}

    def span_mask(self, span: Span, window: int | None) -> torch.Tensor:
        """What the tokens of a piece see: 0 or -inf, `[length, keys]`."""
        mask = self._span_masks.get((span.row, window))
        if mask is None:
            mask = causal_mask(span.position, span.end, window, self.device)
            self._span_masks[span.row, window] = mask
        return mask

    def _decode_tables(
        self, decoding: Sequence[Piece], block_tokens: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        counts = [piece.position // block_tokens + 1 for piece in decoding]
        tables = np.zeros((len(decoding), max(counts, default=0)), dtype=np.int32)
        for row, (piece, count) in enumerate(zip(decoding, counts, strict=True)):
            tables[row, :count] = piece.blocks[:count]
        lengths = np.array([piece.end for piece in decoding], dtype=np.int32)
        return self._put(tables), self._put(lengths)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor if self.device.type == "cpu" else tensor.to(self.device, non_blocking=True)


def causal_mask(start: int, end: int, window: int | None, device: torch.device) -> torch.Tensor:
    """What the tokens at `start` up to `end` see: 0 or -inf, `[end - start, end]`."""
    queries = torch.arange(start, end, device=device)[:, None]
    keys = torch.arange(end, device=device)[None, :]
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, _NEGATIVE_INFINITY)
