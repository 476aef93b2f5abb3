"""Says in protobuf what the registry knows."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import timestamp_pb2

from services.controller.deltas import Delta
from services.controller.leases import Attachment
from services.controller.registry import (
    Completeness,
    Removal,
    RemovalCause,
    Snapshot,
    Worker,
    WorkerState,
)
from tokenmesh.controller.v1 import admin_pb2, endpoint_pb2, registry_pb2
from tokenmesh.mesh.v1 import model_pb2

ATTACHMENTS = {
    Attachment.NEW: registry_pb2.ATTACHMENT_NEW,
    Attachment.RECONNECT: registry_pb2.ATTACHMENT_RECONNECT,
    Attachment.RESTART: registry_pb2.ATTACHMENT_RESTART,
}
STATES = {
    WorkerState.SERVING: registry_pb2.WORKER_STATE_SERVING,
    WorkerState.DRAINING: registry_pb2.WORKER_STATE_DRAINING,
}
COMPLETENESS = {
    Completeness.LEARNING: endpoint_pb2.COMPLETENESS_LEARNING,
    Completeness.COMPLETE: endpoint_pb2.COMPLETENESS_COMPLETE,
}
REMOVAL_CAUSES = {
    RemovalCause.LEFT: endpoint_pb2.REMOVAL_CAUSE_LEFT,
    RemovalCause.EXPIRED: endpoint_pb2.REMOVAL_CAUSE_EXPIRED,
    RemovalCause.REPLACED: endpoint_pb2.REMOVAL_CAUSE_REPLACED,
}


def worker_message(worker: Worker) -> endpoint_pb2.Worker:
    """A worker, whole."""
    return endpoint_pb2.Worker(
        worker_id=worker.worker_id,
        incarnation=worker.incarnation,
        address=worker.address,
        state=STATES[worker.state],
        models=[model_pb2.Model.FromString(model.serialized) for model in worker.models],
        capacity=registry_pb2.Capacity(
            max_running=worker.capacity.max_running,
            max_waiting=worker.capacity.max_waiting,
            kv_total_tokens=worker.capacity.kv_total_tokens,
            speed=worker.capacity.speed,
        ),
        load=registry_pb2.Load(
            running=worker.load.running,
            waiting=worker.load.waiting,
            kv_used_tokens=worker.load.kv_used_tokens,
            kv_total_tokens=worker.load.kv_total_tokens,
            tokens_per_second=worker.load.tokens_per_second,
        ),
        cached_prefixes=worker.cached_prefixes,
        labels=worker.labels,
        attached_at=_timestamp(worker.attached_at_s),
        renewed_at=_timestamp(worker.renewed_at_s),
        release=worker.release,
    )


def snapshot_message(
    snapshot: Snapshot, *, controller_id: str, controller_incarnation: str
) -> endpoint_pb2.WatchResponse:
    """The first message of a watch."""
    return endpoint_pb2.WatchResponse(
        revision=snapshot.revision,
        snapshot=endpoint_pb2.Snapshot(
            controller_id=controller_id,
            controller_incarnation=controller_incarnation,
            completeness=COMPLETENESS[snapshot.completeness],
            workers=[worker_message(worker) for worker in snapshot.workers],
        ),
    )


def delta_message(delta: Delta) -> endpoint_pb2.WatchResponse:
    """A further message of a watch."""
    return endpoint_pb2.WatchResponse(
        revision=delta.revision,
        delta=endpoint_pb2.Delta(
            completeness=COMPLETENESS[delta.completeness],
            upserted=[worker_message(worker) for worker in delta.upserted],
            removed=[_removal_message(removal) for removal in delta.removed],
        ),
    )


def served_models(workers: Iterable[Worker]) -> list[admin_pb2.ServedModel]:
    """The models that the workers serve, by name.

    Two workers serve the same model when name, revision, quantization and dtype are equal. Its
    adapters are those that any of them has loaded.
    """
    served: dict[tuple[str, str, str, str], admin_pb2.ServedModel] = {}
    for worker in workers:
        for described in worker.models:
            model = model_pb2.Model.FromString(described.serialized)
            key = (model.name, model.revision, model.quantization, model.dtype)
            known = served.setdefault(key, admin_pb2.ServedModel(model=model))
            known.worker_ids.append(worker.worker_id)
            loaded = {adapter.name for adapter in known.model.adapters}
            known.model.adapters.extend(
                adapter for adapter in model.adapters if adapter.name not in loaded
            )
    return [served[key] for key in sorted(served)]


def _removal_message(removal: Removal) -> endpoint_pb2.Removal:
    return endpoint_pb2.Removal(
        worker_id=removal.worker_id,
        incarnation=removal.incarnation,
        cause=REMOVAL_CAUSES[removal.cause],
    )


def _timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromNanoseconds(round(seconds * 1e9))
    return timestamp
