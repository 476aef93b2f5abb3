"""Chooses how a model runs: many sequences in one forward pass, or each by itself."""

from __future__ import annotations

from typing import Any

import structlog

from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.loading import Checkpoint
from services.worker.engines.transformers.checkpoint.proof import (
    LoadedModel,
    NotPagedError,
    prepare_model,
)
from services.worker.engines.transformers.layers.fusion import restore_linears
from services.worker.engines.transformers.serial.preparation import prepare_serial

log = structlog.get_logger()

_PAGED_LAYERS = frozenset({"full_attention", "sliding_attention"})


def prepare(checkpoint: Checkpoint, settings: EngineSettings) -> LoadedModel:
    """Makes the model run batched over the paged cache, or, where it cannot, serially.

    Raises:
        StartError: the model runs neither way, or does not fit the memory.
    """
    model = checkpoint.model
    attention = model.config._attn_implementation
    try:
        _require_paged_layers(model.config)
        return prepare_model(checkpoint, settings)
    except NotPagedError as reason:
        log.warning(
            "this model runs one sequence after another, by transformers' own generation: "
            "slower than a batch, the more so the more sequences run",
            model_type=model.config.model_type,
            reason=str(reason),
        )
    if model.config._attn_implementation != attention:
        model.set_attn_implementation(attention)
    # Modules that reach for a layer's weights find them where they expect them.
    restore_linears(model)
    return prepare_serial(checkpoint, settings)


def _require_paged_layers(config: Any) -> None:
    """Raises NotPagedError where layers keep more, or see less, than a paged cache knows of.

    What a short proof would not notice.
    """
    if config.is_encoder_decoder:
        raise NotPagedError("it has an encoder and a decoder")
    text = config.get_text_config(decoder=True)
    kinds = set(getattr(text, "layer_types", None) or ()) - _PAGED_LAYERS
    if getattr(text, "attention_chunk_size", None):
        kinds.add("chunked_attention")
    if kinds:
        raise NotPagedError(f"it has layers of type {', '.join(sorted(kinds))}")
