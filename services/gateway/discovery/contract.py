"""Translates between the fleet as gateways know it and the messages of the contract."""

from __future__ import annotations

from services.gateway.discovery.directory import Removal, RemovalCause, ServedModel
from services.gateway.discovery.fleet import Adapter, Capacity, Load, Model, Worker
from tokenmesh.controller.v1 import endpoint_pb2, registry_pb2
from tokenmesh.gateway.v1 import model_pb2 as gateway_model_pb2
from tokenmesh.mesh.v1 import model_pb2

_CAPABILITY_PREFIX = "CAPABILITY_"
_MODALITY_PREFIX = "MODALITY_"

_CAUSES = {
    endpoint_pb2.REMOVAL_CAUSE_LEFT: RemovalCause.LEFT,
    endpoint_pb2.REMOVAL_CAUSE_REPLACED: RemovalCause.REPLACED,
}


def to_worker(message: endpoint_pb2.Worker) -> Worker:
    """A worker as a controller described it."""
    return Worker(
        worker_id=message.worker_id,
        incarnation=message.incarnation,
        address=message.address,
        models=tuple(to_model(model) for model in message.models),
        draining=message.state == registry_pb2.WORKER_STATE_DRAINING,
        capacity=Capacity(
            max_running=message.capacity.max_running,
            max_waiting=message.capacity.max_waiting,
            kv_total_tokens=message.capacity.kv_total_tokens,
            # A worker that tells no speed is like any other.
            speed=message.capacity.speed if message.capacity.speed > 0 else 1.0,
        ),
        load=Load(
            running=message.load.running,
            waiting=message.load.waiting,
            kv_used_tokens=message.load.kv_used_tokens,
            kv_total_tokens=message.load.kv_total_tokens,
            tokens_per_second=message.load.tokens_per_second,
        ),
        labels=dict(message.labels),
        attached_at_s=message.attached_at.ToMilliseconds() / 1000,
    )


def to_removal(message: endpoint_pb2.Removal) -> Removal:
    """A removal; one without a known cause is taken for an expired lease."""
    cause = _CAUSES.get(message.cause, RemovalCause.EXPIRED)
    return Removal(message.worker_id, message.incarnation, cause)


def to_model(message: model_pb2.Model) -> Model:
    """A model as a worker described it. Unknown capabilities are left out."""
    return Model(
        name=message.name,
        aliases=tuple(message.aliases),
        revision=message.revision,
        quantization=message.quantization,
        dtype=message.dtype,
        context_length_tokens=message.context_length_tokens,
        input_modalities=frozenset(
            model_pb2.Modality.Name(number).removeprefix(_MODALITY_PREFIX)
            for number in message.input_modalities
            if number in model_pb2.Modality.values()
        ),
        capabilities=frozenset(
            model_pb2.Capability.Name(number).removeprefix(_CAPABILITY_PREFIX)
            for number in message.capabilities
            if number in model_pb2.Capability.values()
        ),
        adapters=tuple(
            Adapter(adapter.name, adapter.source, adapter.revision, adapter.rank)
            for adapter in message.adapters
        ),
        engine=message.engine,
        vocabulary_size=message.vocabulary_size,
        embedding_dimensions=message.embedding_dimensions,
        loaded_at_s=message.loaded_at.ToMilliseconds() / 1000,
        owned_by=message.owned_by,
    )


def from_model(model: Model) -> model_pb2.Model:
    """A model for the gateway's clients."""
    message = model_pb2.Model(
        name=model.name,
        aliases=model.aliases,
        revision=model.revision,
        quantization=model.quantization,
        dtype=model.dtype,
        context_length_tokens=model.context_length_tokens,
        input_modalities=sorted(
            model_pb2.Modality.Value(_MODALITY_PREFIX + name) for name in model.input_modalities
        ),
        capabilities=sorted(
            model_pb2.Capability.Value(_CAPABILITY_PREFIX + name) for name in model.capabilities
        ),
        adapters=[
            model_pb2.Adapter(
                name=adapter.name,
                source=adapter.source,
                revision=adapter.revision,
                rank=adapter.rank,
            )
            for adapter in model.adapters
        ],
        engine=model.engine,
        vocabulary_size=model.vocabulary_size,
        embedding_dimensions=model.embedding_dimensions,
        owned_by=model.owned_by,
    )
    message.loaded_at.FromMilliseconds(round(model.loaded_at_s * 1000))
    return message


def from_served_model(served: ServedModel) -> gateway_model_pb2.ServedModel:
    """A served model for the gateway's clients."""
    return gateway_model_pb2.ServedModel(
        model=from_model(served.model), serving_workers=served.serving_workers
    )
