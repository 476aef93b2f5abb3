"""Runs the model over one step: many sequences, packed into one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.attention.function import step_attention
from services.worker.engines.transformers.attention.kernels import BlockKernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Piece, StepLayout
from services.worker.engines.transformers.scheduling.scheduler import Work
from services.worker.engines.transformers.scheduling.sequence import Sequence


class ModelRunner:
    """Computes steps over one model and its KV cache. For one thread."""

    def __init__(
        self, model: torch.nn.Module, cache: KVCache, kernels: BlockKernels, device: torch.device
    ) -> None:
        self._model = model
        self._cache = cache
        self._kernels = kernels
        self._device = device

    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits in float32, `logit_rows` of each work, in the order of the step.

        Works of one token come first. What is computed goes into the cache; running the same work
        again writes the same.
        """
        token_ids: list[int] = []
        decoding: list[Piece] = []
        prompts: list[Piece] = []
        logit_rows: list[int] = []
        for work in step:
            sequence, end = work.sequence, work.start + work.tokens
            piece = Piece(sequence.blocks, work.start, work.tokens)
            if work.tokens == 1 and not prompts:
                decoding.append(piece)
            else:
                prompts.append(piece)
            token_ids += sequence.token_ids(work.start, end)
            logit_rows += range(len(token_ids) - work.logit_rows, len(token_ids))
        return self.forward(token_ids, decoding, prompts, logit_rows)

    def forget(self, sequence: Sequence) -> None:
        """Does nothing: all that is kept of a sequence is in blocks."""

    def clear(self, blocks: Rows[int]) -> None:
        """Empties blocks: NaN in them would outlive its sequence, as no mask covers NaN."""
        self._cache.clear(blocks)

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
        with step_attention(layout, self._cache, self._kernels):
            output = self._model(
                input_ids=torch.tensor([token_ids], device=self._device),
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=torch.tensor(logit_rows, dtype=torch.long, device=self._device),
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits
