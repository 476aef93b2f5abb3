"""Runs the model over one step: one forward pass for each sequence."""

from __future__ import annotations

from collections.abc import Sequence as Rows
from typing import Any

import torch

from services.worker.engines.transformers.scheduling.scheduler import Work
from services.worker.engines.transformers.scheduling.sequence import Sequence
from services.worker.engines.transformers.serial.generation import Generation
from services.worker.engines.transformers.serial.module_state import ModuleState


class SerialRunner:
    """Computes steps over a model that keeps each sequence in a cache of its own. For one thread.

    Not every architecture can read a prompt in pieces, so a prompt is read whole, when its last
    piece is due.
    """

    def __init__(self, model: Any, modules: ModuleState, vocabulary_size: int) -> None:
        self._model = model
        self._modules = modules
        self._vocabulary_size = vocabulary_size
        self._generations: dict[Sequence, Generation] = {}

    @torch.inference_mode()
    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits `[sampling works, vocabulary]` in float32, in the order of the step."""
        rows = [self._next_logits(work.sequence) for work in step if work.samples]
        if not rows:
            return torch.empty((0, self._vocabulary_size), device=self._model.device)
        return torch.stack(rows)

    def forget(self, sequence: Sequence) -> None:
        """Drops the sequence's cache."""
        self._generations.pop(sequence, None)

    def clear(self, blocks: Rows[int]) -> None:
        """Does nothing: blocks only count memory here."""

    def _next_logits(self, sequence: Sequence) -> torch.Tensor:
        computed, end = sequence.computed_tokens, sequence.total_tokens
        generation = self._generations.pop(sequence, None)
        # Where a step that failed had computed the sequence already, its cache is ahead of it.
        if generation is None or generation.computed_tokens != computed:
            output_ids = sequence.output.token_ids
            prompt_ids = sequence.request.prompt_ids
            generation = Generation(self._model, self._modules, prompt_ids, output_ids)
            logits = generation.next_logits()
        else:
            logits = generation.next_logits(sequence.token_ids(computed, end))
        self._generations[sequence] = generation
        return logits
