"""How long a text may be, by what the model has positions for and what it was made for."""

from __future__ import annotations

from typing import Any

import torch

from services.mesh.errors import StartError
from services.worker.engines.encoder.recipe import Recipe
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.declarations import context_length

_NO_LIMIT = 10**9
"""Tokenizers that know of no limit tell a larger one."""


def longest_text(
    model: Any, config: Any, tokenizer: Any, recipe: Recipe, settings: EngineSettings
) -> int:
    """Tokens of the longest text, special tokens included.

    What the settings say, up to the model's positions; else what the checkpoint was made for.

    Raises:
        StartError: nobody tells, or the settings ask for more than there are positions.
    """
    positions = context_length(config, tokenizer, settings) - _skipped_positions(model)
    asked = settings.context_length_tokens
    if asked is None:
        made_for = (positions, recipe.max_tokens, tokenizer.model_max_length)
        return int(min(each for each in made_for if each is not None and each < _NO_LIMIT))
    if asked > positions:
        raise StartError(
            f"--context-length is {asked:,}: this model was made for {positions:,} at most"
        )
    return asked


def _skipped_positions(model: Any) -> int:
    """Positions that no token gets: RoBERTa and its kin count on from their padding token's."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            return 0 if module.padding_idx is None else module.padding_idx + 1
    return 0
