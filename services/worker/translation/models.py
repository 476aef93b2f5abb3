"""From an engine's models and load to the proto's."""

from __future__ import annotations

from services.worker.engines.base import Engine, ModelDescription
from tokenmesh.controller.v1 import registry_pb2
from tokenmesh.mesh.v1 import model_pb2

_CAPABILITY_PREFIX = "CAPABILITY_"


def models_of(engine: Engine) -> list[model_pb2.Model]:
    """The models that an engine serves."""
    return [_model(each, engine.name) for each in engine.models]


def capacity_of(engine: Engine, speed: float) -> registry_pb2.Capacity:
    """What an engine can bear; `speed` is relative to other workers."""
    return registry_pb2.Capacity(
        max_running=engine.capacity.max_running,
        max_waiting=engine.capacity.max_waiting,
        kv_total_tokens=engine.capacity.kv_total_tokens,
        speed=speed,
    )


def load_of(engine: Engine, tokens_per_second: float) -> registry_pb2.Load:
    """How busy an engine is."""
    load = engine.load()
    return registry_pb2.Load(
        running=load.running,
        waiting=load.waiting,
        kv_used_tokens=load.kv_used_tokens,
        kv_total_tokens=engine.capacity.kv_total_tokens,
        tokens_per_second=tokens_per_second,
    )


def _model(description: ModelDescription, engine_name: str) -> model_pb2.Model:
    model = model_pb2.Model(
        name=description.name,
        aliases=description.aliases,
        revision=description.revision,
        quantization=description.quantization,
        dtype=description.dtype,
        context_length_tokens=description.context_length_tokens,
        input_modalities=[model_pb2.MODALITY_TEXT],
        capabilities=[
            model_pb2.Capability.Value(_CAPABILITY_PREFIX + each)
            for each in sorted(description.capabilities)
        ],
        engine=engine_name,
        vocabulary_size=description.vocabulary_size,
        embedding_dimensions=description.embedding_dimensions,
    )
    model.loaded_at.FromNanoseconds(round(description.loaded_at_s * 1e9))
    return model
