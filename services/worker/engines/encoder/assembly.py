"""Loads a checkpoint and puts the engine's parts together. Importing it imports torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import structlog
import torch

from services.worker.engines.base import EngineCapacity, ModelDescription
from services.worker.engines.encoder.batch_loop import BatchLoop, Commands
from services.worker.engines.encoder.loading import LoadedEncoder, load_encoder
from services.worker.engines.encoder.settings import EncoderSettings
from services.worker.engines.encoder.text_reading import TextReader
from services.worker.engines.transformers.checkpoint.device import default_threads, release_cached

log = structlog.get_logger()

CPU_BATCH_TOKENS = 1024
ACCELERATOR_BATCH_TOKENS = 16_384


@dataclass(frozen=True)
class Assembly:
    """The parts of a loaded engine."""

    description: ModelDescription
    capacity: EngineCapacity
    reader: TextReader
    loop: BatchLoop


def assemble(settings: EncoderSettings, commands: Commands) -> Assembly:
    """Loads what the settings name. Must be called in the thread that will run the loop.

    Raises:
        StartError: one line that says what to change.
    """
    began_s = time.monotonic()
    given = settings.checkpoint
    # Counts for the calling thread.
    torch.set_num_threads(given.threads or default_threads())
    loaded = load_encoder(settings)
    device = loaded.weights.device
    batch_tokens = settings.batch_tokens or (
        CPU_BATCH_TOKENS if device.type == "cpu" else ACCELERATOR_BATCH_TOKENS
    )
    description = _describe(loaded, given.model_names)
    log.info(
        "model loaded",
        model=description.name,
        revision=description.revision,
        device=str(device),
        dtype=description.dtype,
        dimensions=description.embedding_dimensions,
        pooling=", ".join(loaded.pooling),
        context_tokens=description.context_length_tokens,
        batch_tokens=batch_tokens,
        threads=torch.get_num_threads(),
        seconds=round(time.monotonic() - began_s, 2),
    )
    return Assembly(
        description,
        EngineCapacity(given.max_running, given.max_waiting, kv_total_tokens=0),
        TextReader(
            loaded.tokenizer,
            max_tokens=loaded.max_tokens,
            vocabulary_size=loaded.vocabulary_size,
            prompt=loaded.recipe.prompt,
            lowers_case=loaded.recipe.lowers_case,
            truncates=settings.truncates,
        ),
        BatchLoop(
            commands,
            loaded.model,
            batch_tokens=batch_tokens,
            release=partial(release_cached, device),
        ),
    )


def _describe(loaded: LoadedEncoder, model_names: tuple[str, ...]) -> ModelDescription:
    names = model_names or (loaded.name,)
    return ModelDescription(
        name=names[0],
        aliases=names[1:],
        revision=loaded.revision,
        quantization=loaded.weights.quantization,
        dtype=str(loaded.weights.dtype).removeprefix("torch."),
        context_length_tokens=loaded.max_tokens,
        vocabulary_size=loaded.vocabulary_size,
        capabilities=frozenset({"EMBED", "SCORE"} if loaded.dimensions else {"SCORE"}),
        loaded_at_s=time.time(),
        embedding_dimensions=loaded.dimensions,
    )
