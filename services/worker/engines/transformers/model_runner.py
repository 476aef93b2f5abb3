"""Runs the model over one step: many sequences, packed into one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.attention.function import Decode, step_attention
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Piece, StepLayout
from services.worker.engines.transformers.scheduling.scheduler import Work
from services.worker.engines.transformers.scheduling.sequence import Sequence


class ModelRunner:
    """Computes steps over one model and its KV cache. For one thread."""

    def __init__(
        self, model: torch.nn.Module, cache: KVCache, decode: Decode, device: torch.device
    ) -> None:
        self._model = model
        self._cache = cache
        self._decode = decode
        self._device = device

    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits `[sampling works, vocabulary]` in float32, in the order of the step.

        Works of one token come first. What is computed goes into the cache; running the same work
        again writes the same.
        """
        token_ids: list[int] = []
        decoding: list[Piece] = []
        prompts: list[Piece] = []
        sampling_rows: list[int] = []
        for work in step:
            sequence = work.sequence
            start = sequence.computed_tokens
            piece = Piece(self._table(sequence), start, work.tokens)
            if work.tokens == 1 and not prompts:
                decoding.append(piece)
            else:
                prompts.append(piece)
            token_ids += sequence.token_ids(start, start + work.tokens)
            if work.samples:
                sampling_rows.append(len(token_ids) - 1)
        return self.forward(token_ids, decoding, prompts, sampling_rows)

    def _table(self, sequence: Sequence) -> Rows[int]:
        assert sequence.slot is not None
        blocks = self._cache.slot_blocks
        return range(sequence.slot * blocks, (sequence.slot + 1) * blocks)

    def forget(self, sequence: Sequence, *, spoiled: bool = False) -> None:
        """Clears what a failed sequence left: NaN would outlive it, as no mask covers NaN."""
        if sequence.slot is not None and spoiled:
            self._cache.clear(self._table(sequence))

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Rows[int],
        decoding: Rows[Piece],
        prompts: Rows[Piece],
        logit_rows: Rows[int],
    ) -> torch.Tensor:
        """Logits of some rows of a packed row of tokens."""
        layout = StepLayout(
            decoding, prompts, block_tokens=self._cache.block_tokens, device=self._device
        )
        with step_attention(layout, self._cache, self._decode):
            output = self._model(
                input_ids=torch.tensor([token_ids], device=self._device),
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=torch.tensor(logit_rows, dtype=torch.long, device=self._device),
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits
