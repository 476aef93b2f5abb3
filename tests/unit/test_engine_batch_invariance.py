"""What a sequence computes does not depend, to the last bit, on pieces and neighbours."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.attention.layout import Piece
from services.worker.engines.transformers.checkpoint.loading import load_checkpoint
from services.worker.engines.transformers.checkpoint.proof import prepare_model
from services.worker.engines.transformers.layers.products import PackedProduct
from services.worker.engines.transformers.model_runner import ModelRunner
from tests.models import checkpoint

PROMPT_TOKENS = 150
OUTPUT_TOKENS = 30
FAMILIES = ("llama", "qwen3", "gemma2", "mistral", "granite")


class Steps:
    """Computes one sequence of tokens in steps, and keeps the logits of each token."""

    def __init__(self, runner: ModelRunner, tokens: Sequence[int], blocks: Sequence[int]) -> None:
        self._runner = runner
        self._tokens = tokens
        self._blocks = blocks
        self.logits: list[torch.Tensor] = []

    def prefill(self, tokens: int, neighbours: int = 0) -> None:
        """Computes the next tokens of a prompt, beside others' decoding."""
        start = sum(map(len, self.logits))
        ids = list(self._tokens[start : start + tokens])
        others = [
            Piece(range(20 + 2 * each, 22 + 2 * each), 5 * each, 1) for each in range(neighbours)
        ]
        rows = range(neighbours, neighbours + tokens)
        pieces = [Piece(self._blocks, start, tokens)]
        self.logits.append(self._runner.forward([1] * neighbours + ids, others, pieces, rows))

    def decode(self, tokens: int) -> None:
        """Computes the next tokens as output: one row each."""
        start = sum(map(len, self.logits))
        ids = self._tokens[start : start + tokens]
        rows = [Piece(self._blocks, start + each, 1) for each in range(tokens)]
        self.logits.append(self._runner.forward(ids, rows, [], range(tokens)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_the_same_in_pieces_beside_others_and_computed_anew(
    family: str, dtype: str
) -> None:
    settings = EngineSettings(str(checkpoint(family)), device="cpu", dtype=dtype, threads=1)
    torch.set_num_threads(1)
    loaded = prepare_model(load_checkpoint(settings), settings)
    runner = loaded.runner
    assert isinstance(runner, ModelRunner)
    chance = random.Random(1)
    tokens = [
        chance.randrange(loaded.vocabulary_size) for _ in range(PROMPT_TOKENS + OUTPUT_TOKENS)
    ]
    undisturbed = Steps(runner, tokens, range(8))
    undisturbed.prefill(PROMPT_TOKENS)
    for _ in range(OUTPUT_TOKENS):
        undisturbed.decode(1)
    disturbed = Steps(runner, tokens, range(8, 16))
    disturbed.prefill(1, neighbours=3)
    disturbed.prefill(76, neighbours=6)
    disturbed.prefill(PROMPT_TOKENS - 77)
    disturbed.decode(OUTPUT_TOKENS)
    assert torch.equal(torch.cat(disturbed.logits), torch.cat(undisturbed.logits))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_is_multiplied_as_beside_others(dtype: torch.dtype) -> None:
    # Long rows: where oneDNN divides the sums of a row that is alone.
    chance = torch.Generator().manual_seed(1)
    weight = torch.randn((256, 4096), generator=chance).to(dtype)
    rows = torch.randn((1, 16, 4096), generator=chance).to(dtype)
    with torch.inference_mode():
        product = PackedProduct(weight, None)
        alone = torch.cat([product(rows[:, each : each + 1]) for each in range(16)], 1)
        assert torch.equal(alone, product(rows))
