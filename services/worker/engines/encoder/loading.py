"""Loads a checkpoint to embed or to score with. Importing it imports torch and transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import torch
from transformers import (
    MODEL_MAPPING,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
)
from transformers.utils.hub import cached_file

from services.mesh.errors import StartError
from services.worker.engines.encoder.checkpoint_files import CheckpointFiles
from services.worker.engines.encoder.dense import load_dense
from services.worker.engines.encoder.lengths import longest_text
from services.worker.engines.encoder.model import CrossEncoder, EmbeddingModel, RowModel
from services.worker.engines.encoder.proof import prove, sees_forward
from services.worker.engines.encoder.recipe import Recipe, read_recipe, score_activation
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.settings import EngineSettings
from services.worker.engines.transformers.checkpoint.device import choose_device
from services.worker.engines.transformers.checkpoint.library_logs import quiet_libraries
from services.worker.engines.transformers.checkpoint.revision import checkpoint_revision
from services.worker.engines.transformers.checkpoint.source import (
    Source,
    find_source,
    read_config,
)
from services.worker.engines.transformers.checkpoint.tokenizer import load_tokenizer
from services.worker.engines.transformers.checkpoint.weights import (
    Weights,
    load_weights,
    weight_format,
    weights_dtype,
)

log = structlog.get_logger()


@dataclass(frozen=True)
class LoadedEncoder:
    """A checkpoint that is ready to compute rows."""

    model: RowModel
    tokenizer: Any
    recipe: Recipe
    weights: Weights
    name: str
    revision: str
    max_tokens: int
    """The longest text, special tokens included."""
    vocabulary_size: int
    dimensions: int
    """Of a vector; 0 for a cross-encoder."""
    pooling: Sequence[str]


def load_encoder(settings: EncoderSettings) -> LoadedEncoder:
    """Loads model and tokenizer, and proves that they run.

    Raises:
        StartError: there is no such checkpoint or device, something of it is damaged or missing,
            or this engine cannot run it.
    """
    given = settings.checkpoint
    device = choose_device(given.device)
    quiet_libraries()
    source = find_source(given)
    config = read_config(source)
    files = _files(source, given)
    recipe = read_recipe(files)
    use_safetensors = weight_format(source, given)
    tokenizer = load_tokenizer(source, None)
    scores = _is_classifier(config) and not recipe.pooling
    if scores:
        _require_one_label(config, source)
    weights = load_weights(
        source,
        config,
        _family(config, scores=scores),
        given,
        use_safetensors=use_safetensors,
        device=device,
        dtype=_dtype(given, config, device),
        model_arguments=_arguments(config, scores=scores),
    )
    model = weights.model
    pad_id = _pad_id(config, tokenizer)
    # By it, models that see backwards only find the end of each row.
    model.config.pad_token_id = pad_id
    vocabulary_size = int(model.get_input_embeddings().weight.shape[0])
    max_tokens = longest_text(model, config, tokenizer, recipe, given)
    pooling: Sequence[str] = ()
    runs: RowModel
    if scores:
        activation = score_activation(config.to_dict(), source.path)
        runs = CrossEncoder(
            model, weights.device, pad_id=pad_id, activation=getattr(torch.nn, activation)()
        )
    else:
        pooling = _pooling(settings, recipe, model, weights.device)
        dense = [
            load_dense(each, files, weights.device, allow_pickle=given.allow_pickle)
            for each in recipe.dense
        ]
        runs = EmbeddingModel(model, weights.device, pad_id=pad_id, pooling=pooling, dense=dense)
    result = prove(runs, weights, vocabulary_size=vocabulary_size, max_tokens=max_tokens)
    return LoadedEncoder(
        model=runs,
        tokenizer=tokenizer,
        recipe=recipe,
        weights=weights,
        name=source.name,
        revision=checkpoint_revision(source, config, given),
        max_tokens=max_tokens,
        vocabulary_size=vocabulary_size,
        dimensions=0 if scores else int(result.shape[1]),
        pooling=pooling,
    )


def _is_classifier(config: Any) -> bool:
    architectures = getattr(config, "architectures", None) or ()
    return any(each.endswith("ForSequenceClassification") for each in architectures)


def _require_one_label(config: Any, source: Source) -> None:
    if config.num_labels != 1:
        raise StartError(
            f"{source.path} tells {config.num_labels} classes apart: a cross-encoder has one "
            "label, the relevance of a pair"
        )


def _family(config: Any, *, scores: bool) -> Any:
    if scores:
        return AutoModelForSequenceClassification
    return AutoModelForTextEncoding if config.is_encoder_decoder else AutoModel


def _arguments(config: Any, *, scores: bool) -> dict[str, Any]:
    """What the model's class is told: without the layer over the first token that nothing here
    asks, which many checkpoints lack."""
    known = type(config) in MODEL_MAPPING and not scores and not config.is_encoder_decoder
    architecture = MODEL_MAPPING[type(config)] if known else None
    code = getattr(getattr(architecture, "__init__", None), "__code__", None)
    takes_it = code is not None and "add_pooling_layer" in code.co_varnames[: code.co_argcount]
    return {"add_pooling_layer": False} if takes_it else {}


def _dtype(settings: EngineSettings, config: Any, device: torch.device) -> torch.dtype:
    """As of generators, but float32 on a CPU: vectors are compared, and kept for years."""
    if settings.dtype == "auto" and device.type == "cpu":
        return torch.float32
    return weights_dtype(settings, config, device)


def _pad_id(config: Any, tokenizer: Any) -> int:
    known = (getattr(config, "pad_token_id", None), tokenizer.pad_token_id)
    return next((int(each) for each in known if isinstance(each, int) and each >= 0), 0)


def _pooling(
    settings: EncoderSettings, recipe: Recipe, model: Any, device: torch.device
) -> Sequence[str]:
    if settings.pooling != "auto":
        return (settings.pooling,)
    if recipe.pooling:
        return recipe.pooling
    chosen = "mean" if sees_forward(model, device) else "last"
    log.warning("the checkpoint does not say how to pool its vectors", pooling=chosen)
    return (chosen,)


def _files(source: Source, settings: EngineSettings) -> CheckpointFiles:
    def find(name: str) -> Path | None:
        found = cached_file(
            source.path,
            name,
            revision=settings.revision or "main",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return None if found is None else Path(found)

    return CheckpointFiles(source.path, find)
