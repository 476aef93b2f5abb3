"""What a checkpoint says of itself: its context, the tokens that end an output, its sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings

_LIMITS = ("max_position_embeddings", "max_seq_len")
"""By these names configurations tell how many positions there are."""
_TRAINED = ("n_positions", "seq_length", "context_length")
"""By these, how many tokens a model was trained with that has no end of positions."""
_DEFAULTS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
)


def context_length(config: Any, tokenizer: Any, settings: EngineSettings) -> int:
    """Tokens of the longest sequence that the model was made for.

    Args:
        config: of the model's decoder.
        tokenizer: asked where the configuration does not tell.
        settings: believed where the configuration sets no limit.

    Raises:
        StartError: nobody tells.
    """
    tokens = _first(config, _LIMITS)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        # Beyond its original context such a model rotates all positions of a step differently: one
        # long sequence would change what its neighbours compute.
        original = rope.get("original_max_position_embeddings")
        tokens = min(filter(None, (tokens, original)), default=None)
    tokens = tokens or settings.context_length_tokens or _first(config, _TRAINED)
    if tokens is None and tokenizer.model_max_length < 10**9:
        tokens = tokenizer.model_max_length
    if tokens is None:
        raise StartError(
            f"model type {config.model_type!r} does not tell its context length: set "
            "--context-length"
        )
    return int(tokens)


def _first(config: Any, names: Sequence[str]) -> int | None:
    given = (getattr(config, name, None) for name in names)
    return next((tokens for tokens in given if isinstance(tokens, int) and tokens > 0), None)


def end_ids(generation: transformers.GenerationConfig, tokenizer: Any) -> frozenset[int]:
    """Tokens with which the model ends an output."""
    given = generation.eos_token_id
    ids = set(given) if isinstance(given, list) else {given}
    ids.add(tokenizer.eos_token_id)
    return frozenset(each for each in ids if each is not None)


def sampling_defaults(generation: transformers.GenerationConfig) -> dict[str, Any]:
    """The generation config's values, by the names of SamplingParameters."""
    given = generation.to_diff_dict()
    defaults = {name: given[name] for name in _DEFAULTS if given.get(name) is not None}
    if given.get("max_new_tokens"):
        defaults["max_tokens"] = given["max_new_tokens"]
    return defaults
