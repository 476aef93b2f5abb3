"""Where the tokens of a step lie: in the packed row, in the cache, and what each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from services.worker.engines.transformers.transfer import to_device_at_once

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


@dataclass(frozen=True, slots=True)
class DecodeArrays:
    """What decoding rows are, before it goes to the device: see `StepLayout`."""

    positions: np.ndarray
    block_ids: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    tables: np.ndarray

    @classmethod
    def of(cls, decoding: Sequence[Piece], block_tokens: int) -> DecodeArrays:
        """Those of pieces of one token each."""
        positions = np.array([piece.position for piece in decoding], dtype=np.int64)
        counts = [piece.position // block_tokens + 1 for piece in decoding]
        tables = np.zeros((len(decoding), max(counts, default=0)), dtype=np.int32)
        for row, (piece, count) in enumerate(zip(decoding, counts, strict=True)):
            tables[row, :count] = piece.blocks[:count]
        block_ids = np.array(
            [piece.blocks[count - 1] for piece, count in zip(decoding, counts, strict=True)],
            dtype=np.int64,
        )
        lengths = (positions + 1).astype(np.int32)
        return cls(positions, block_ids, positions % block_tokens, lengths, tables)


@dataclass(frozen=True, slots=True, eq=False)
class StepLayout:
    """Where the tokens of a step lie in the packed row and in the cache.

    Attributes:
        decodes: rows that decode, first in the packed row: one token each.
        positions: place of each token in its sequence, `[tokens]`.
        block_ids, offsets: block of each token's key and value, and the place in it, `[tokens]`.
        lengths: keys that each decoding row sees, its own included, `[decodes]`, int32.
        tables: block tables of the decoding rows, padded with 0, `[decodes, blocks]`, int32.
        spans: the pieces of prompts, in the order of the row.
    """

    decodes: int
    positions: torch.Tensor
    block_ids: torch.Tensor
    offsets: torch.Tensor
    lengths: torch.Tensor
    tables: torch.Tensor
    spans: Sequence[Span] = ()
    _span_masks: dict[tuple[int, int | None], torch.Tensor] = field(default_factory=dict)

    def span_mask(self, span: Span, window: int | None) -> torch.Tensor:
        """What the tokens of a piece see: 0 or -inf, `[length, keys]`."""
        mask = self._span_masks.get((span.row, window))
        if mask is None:
            mask = causal_mask(span.position, span.end, window, self.positions.device)
            self._span_masks[span.row, window] = mask
        return mask


@dataclass(frozen=True, slots=True)
class StepInputs:
    """All that a step needs on the device.

    Attributes:
        token_ids: the packed row, `[tokens]`.
        logit_rows: the rows of it whose logits are wanted.
        layout: where they lie.
    """

    token_ids: torch.Tensor
    logit_rows: torch.Tensor
    layout: StepLayout


def lay_out(
    token_ids: Sequence[int],
    decoding: Sequence[Piece],
    prompts: Sequence[Piece],
    logit_rows: Sequence[int],
    *,
    block_tokens: int,
    device: torch.device,
) -> StepInputs:
    """Brings a step to a device, in one transfer.

    Args:
        token_ids: the packed row.
        decoding: pieces of one token each, at its beginning.
        prompts: pieces of prompts, which follow.
        logit_rows: rows whose logits are wanted.
        block_tokens: size of a block.
        device: where it is computed.
    """
    decodes = DecodeArrays.of(decoding, block_tokens)
    positions, block_ids = [decodes.positions], [decodes.block_ids]
    tables = []
    for piece in prompts:
        table = np.array(piece.blocks[: -(-piece.end // block_tokens)], dtype=np.int64)
        tables.append(table)
        positions.append(np.arange(piece.position, piece.end, dtype=np.int64))
        block_ids.append(table[positions[-1] // block_tokens])
    joined = np.concatenate(positions)
    sent = to_device_at_once(
        [
            np.array(token_ids, dtype=np.int64),
            np.array(logit_rows, dtype=np.int64),
            joined,
            np.concatenate(block_ids),
            joined % block_tokens,
            decodes.lengths,
            decodes.tables,
            *tables,
        ],
        device,
    )
    row = len(decoding)
    spans = []
    for piece, blocks in zip(prompts, sent[7:], strict=True):
        spans.append(Span(row, piece.position, piece.length, blocks))
        row += piece.length
    ids, wanted, places, blocks_of_tokens, offsets, lengths, decode_tables = sent[:7]
    layout = StepLayout(
        len(decoding), places, blocks_of_tokens, offsets, lengths, decode_tables, spans
    )
    return StepInputs(ids, wanted, layout)


def causal_mask(start: int, end: int, window: int | None, device: torch.device) -> torch.Tensor:
    """What the tokens at `start` up to `end` see: 0 or -inf, `[end - start, end]`."""
    queries = torch.arange(start, end, device=device)[:, None]
    keys = torch.arange(end, device=device)[None, :]
    hidden = keys > queries
    if window is not None:
        hidden |= keys <= queries - window
    return torch.zeros(hidden.shape, device=device).masked_fill_(hidden, _NEGATIVE_INFINITY)
