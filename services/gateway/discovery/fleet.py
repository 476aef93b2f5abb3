"""What gateways know of workers and of the models they serve.

The pure counterpart of tokenmesh.controller.v1.Worker and tokenmesh.mesh.v1.Model: `contract`
translates between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter on a model; clients ask for it by its name."""

    name: str
    source: str = ""
    revision: str = ""
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Model:
    """A model as a worker serves it.

    `capabilities` and `input_modalities` hold the names of the enums of tokenmesh.mesh.v1 without
    their prefix, such as "CHAT" and "TEXT". 0 and "" mean that the worker does not tell.
    """

    name: str
    aliases: tuple[str, ...] = ()
    revision: str = ""
    quantization: str = ""
    dtype: str = ""
    context_length_tokens: int = 0
    input_modalities: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    adapters: tuple[Adapter, ...] = ()
    engine: str = ""
    vocabulary_size: int = 0
    embedding_dimensions: int = 0
    loaded_at_s: float = 0.0
    """Seconds since the epoch."""
    owned_by: str = ""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a worker can bear. Fixed for an incarnation."""

    max_running: int = 0
    max_waiting: int = 0
    kv_total_tokens: int = 0
    speed: float = 1.0


@dataclass(frozen=True, slots=True)
class Load:
    """How busy a worker said it was in its last heartbeat."""

    running: int = 0
    waiting: int = 0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    tokens_per_second: float = 0.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that holds a lease."""

    worker_id: str
    incarnation: str
    address: str
    models: tuple[Model, ...]
    draining: bool = False
    capacity: Capacity = field(default_factory=Capacity)
    load: Load = field(default_factory=Load)
    labels: Mapping[str, str] = field(default_factory=dict)
    attached_at_s: float = 0.0
    """Seconds since the epoch, by the controller's clock."""

    @property
    def key(self) -> WorkerKey:
        """What tells this worker process from every other."""
        return (self.worker_id, self.incarnation)


WorkerKey = tuple[str, str]
"""Worker id and incarnation."""
