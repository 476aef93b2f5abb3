"""Runs the model over one step: many sequences, packed into one row of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Rows

import torch

from services.worker.engines.transformers.attention.function import step_attention
from services.worker.engines.transformers.attention.kernels import BlockKernels
from services.worker.engines.transformers.attention.kv_cache import KVCache
from services.worker.engines.transformers.attention.layout import Piece, StepLayout, lay_out
from services.worker.engines.transformers.decode_graphs import (
    DecodeGraphs,
    DecodeInputs,
    Recorder,
)
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
        self._graphs: DecodeGraphs | None = None

    def record_decoding(self, record: Recorder, *, max_rows: int, context_tokens: int) -> None:
        """From now on replays recordings of steps that only decode.

        Args:
            record: makes them.
            max_rows: sequences that may run.
            context_tokens: tokens of the longest sequence.
        """
        self._graphs = DecodeGraphs(
            self._decode,
            record,
            self._cache,
            max_rows=max_rows,
            table_blocks=-(-context_tokens // self._cache.block_tokens),
        )

    def run(self, step: Rows[Work]) -> torch.Tensor:
        """Logits in float32, `logit_rows` of each work, in the order of the step.

        What is computed goes into the cache; running the same work again writes the same. Output
        tokens are computed as rows that decode, several of a sequence, too, where it is computed
        anew: so they come out as they did the first time.
        """
        decode_ids: list[int] = []
        prompt_ids: list[int] = []
        decoding: list[Piece] = []
        prompts: list[Piece] = []
        logit_rows: list[int] = []
        first_prompt_row = sum(work.start + work.tokens - _output_start(work) for work in step)
        for work in step:
            sequence, middle, end = work.sequence, _output_start(work), work.start + work.tokens
            prompt_row, decode_row = first_prompt_row + len(prompt_ids), len(decode_ids)
            if work.start < middle:
                prompts.append(Piece(sequence.blocks, work.start, middle - work.start))
            decoding += [Piece(sequence.blocks, place, 1) for place in range(middle, end)]
            prompt_ids += sequence.token_ids(work.start, middle)
            decode_ids += sequence.token_ids(middle, end)
            rows = [
                *range(prompt_row, prompt_row + middle - work.start),
                *range(decode_row, decode_row + end - middle),
            ]
            logit_rows += rows[len(rows) - work.logit_rows :]
        return self.forward(decode_ids + prompt_ids, decoding, prompts, logit_rows)

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
        if self._graphs is not None and not prompts and _are_all(logit_rows, len(token_ids)):
            replayed = self._graphs.run(token_ids, decoding)
            if replayed is not None:
                return replayed
        step = lay_out(
            token_ids,
            decoding,
            prompts,
            logit_rows,
            block_tokens=self._cache.block_tokens,
            device=self._device,
        )
        return self._compute(step.token_ids, step.layout, step.logit_rows)

    def _decode(self, step: DecodeInputs) -> torch.Tensor:
        return self._compute(step.token_ids, step.layout, 0)

    def _compute(
        self, token_ids: torch.Tensor, layout: StepLayout, logit_rows: torch.Tensor | int
    ) -> torch.Tensor:
        """Logits of the rows; of all where they are 0, as models take it."""
        with step_attention(layout, self._cache, self._kernels):
            output = self._model(
                input_ids=token_ids[None],
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=logit_rows,
            )
        logits: torch.Tensor = output.logits[0].float()
        return logits


def _are_all(rows: Rows[int], count: int) -> bool:
    return len(rows) == count and all(map(int.__eq__, rows, range(count)))


def _output_start(work: Work) -> int:
    """Where in its sequence the output tokens of a work begin: its end where it has none."""
    prompt_tokens = len(work.sequence.request.prompt_ids)
    return min(max(prompt_tokens, work.start), work.start + work.tokens)
