"""Runs the model over one step: many sequences, packed into one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.attention.function import step_attention
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Span, StepLayout
from services.worker.engines.transformers.scheduling.scheduler import Work
from services.worker.engines.transformers.scheduling.sequence import Sequence


class ModelRunner:
    """Computes steps over one model and its KV cache. For one thread."""

    def __init__(self, model: torch.nn.Module, cache: KVCache, device: torch.device) -> None:
        self._model = model
        self._cache = cache
        self._device = device

    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits `[sampling works, vocabulary]` in float32, in the order of the step.

        Decoding works come first, by rising slot. What is computed goes into the cache; running
        the same work again writes the same.
        """
        token_ids: list[int] = []
        decode_slots: list[int] = []
        decode_positions: list[int] = []
        spans: list[Span] = []
        sampling_rows: list[int] = []
        for work in step:
            sequence = work.sequence
            assert sequence.slot is not None
            start = sequence.computed_tokens
            rises = not decode_slots or sequence.slot > decode_slots[-1]
            if work.tokens == 1 and not spans and rises:
                decode_slots.append(sequence.slot)
                decode_positions.append(start)
            else:
                spans.append(Span(sequence.slot, start, len(token_ids), work.tokens))
            token_ids += sequence.token_ids(start, start + work.tokens)
            if work.samples:
                sampling_rows.append(len(token_ids) - 1)
        layout = StepLayout(decode_slots, decode_positions, spans, self._device)
        return self.forward(token_ids, layout, sampling_rows)

    def forget(self, sequence: Sequence, *, spoiled: bool = False) -> None:
        """Clears what a failed sequence left: NaN would outlive it, as no mask covers NaN."""
        if sequence.slot is None or not spoiled:
            return
        for kept in self._cache.layers.values():
            kept.keys[sequence.slot].zero_()
            kept.values[sequence.slot].zero_()

    @torch.inference_mode()
    def forward(
        self, token_ids: Rows[int], layout: StepLayout, sampling_rows: Rows[int]
    ) -> torch.Tensor:
        """Logits of some rows of a packed row of tokens."""
        with step_attention(layout, self._cache):
            output = self._model(
                input_ids=torch.tensor([token_ids], device=self._device),
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=torch.tensor(sampling_rows, dtype=torch.long, device=self._device),
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits
