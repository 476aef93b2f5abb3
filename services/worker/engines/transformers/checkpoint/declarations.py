"""What a checkpoint says of itself: its context, the tokens that end an output, its sampling."""

from __future__ import annotations

from typing import Any

import transformers

from services.mesh.errors import StartError
from services.worker.engines.settings import EngineSettings

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
        settings: believed where neither tells.

    Raises:
        StartError: nobody tells.
    """
    tokens = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        # Beyond its original context such a model rotates all positions of a step differently: one
        # long sequence would change what its neighbours compute.
        original = rope.get("original_max_position_embeddings")
        tokens = min(filter(None, (tokens, original)), default=None)
    if tokens is None and tokenizer.model_max_length < 10**9:
        tokens = tokenizer.model_max_length
    tokens = tokens or settings.context_length_tokens
    if tokens is None:
        raise StartError(
            f"model type {config.model_type!r} does not tell its context length: set "
            "--context-length"
        )
    return int(tokens)


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
