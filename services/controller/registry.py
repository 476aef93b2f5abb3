"""Which workers there are, what they serve and how busy they are. Pure.

Every change has a revision, one higher than the change before, and goes to every watch in order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class WorkerState(Enum):
    """What a worker does with new requests."""

    SERVING = "serving"
    DRAINING = "draining"


class RemovalCause(Enum):
    """Why a worker is gone."""

    LEFT = "left"
    EXPIRED = "expired"
    REPLACED = "replaced"


class Completeness(Enum):
    """Whether a worker that is missing may yet come back, or is gone."""

    LEARNING = "learning"
    COMPLETE = "complete"


@dataclass(frozen=True)
class Capacity:
    """What a worker can bear. `kv_total_tokens` is 0 when its engine does not tell."""

    max_running: int
    max_waiting: int
    kv_total_tokens: int
    speed: float


@dataclass(frozen=True)
class Load:
    """How busy a worker is."""

    running: int = 0
    waiting: int = 0
    kv_used_tokens: int = 0
    kv_total_tokens: int = 0
    tokens_per_second: float = 0.0


@dataclass(frozen=True)
class Model:
    """A model on a worker.

    `serialized` is the whole tokenmesh.mesh.v1.Model as the worker sent it: the controller passes
    it on unread, so that gateways get fields that are newer than the controller.
    """

    name: str
    aliases: tuple[str, ...]
    adapters: tuple[str, ...]
    serialized: bytes

    @property
    def names(self) -> tuple[str, ...]:
        """All names that clients may ask for."""
        return (self.name, *self.aliases, *self.adapters)


@dataclass(frozen=True)
class Worker:
    """A worker that holds a lease. Times are in seconds since the epoch.

    A renewal that brings nothing else is no change, and is told to nobody: `renewed_at_s` does not
    take part in comparisons.
    """

    worker_id: str
    incarnation: str
    address: str
    state: WorkerState
    models: tuple[Model, ...]
    capacity: Capacity
    load: Load = Load()
    cached_prefixes: tuple[int, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    release: str = ""
    attached_at_s: float = 0.0
    renewed_at_s: float = field(default=0.0, compare=False)

    def serves(self, name: str) -> bool:
        """Whether clients may ask this worker for a model, alias or adapter of that name."""
        return any(name in model.names for model in self.models)


@dataclass(frozen=True)
class Removal:
    """A worker that is gone."""

    worker_id: str
    incarnation: str
    cause: RemovalCause


@dataclass(frozen=True)
class Change:
    """One step from a revision to the next: first the removal, then the upsert."""

    revision: int
    completeness: Completeness
    removed: Removal | None = None
    upserted: Worker | None = None


@dataclass(frozen=True)
class Snapshot:
    """All that is known at a revision."""

    revision: int
    completeness: Completeness
    workers: tuple[Worker, ...]


class Registry:
    """The workers that hold a lease, and a log of changes that goes to who watches."""

    def __init__(self) -> None:
        self.revision = 0
        self.completeness = Completeness.LEARNING
        self._workers: dict[str, Worker] = {}
        self._listeners: dict[Hashable, Callable[[Change], None]] = {}

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Worker]:
        """The workers, by worker id."""
        return iter(sorted(self._workers.values(), key=lambda worker: worker.worker_id))

    def get(self, worker_id: str) -> Worker | None:
        """The worker of that id."""
        return self._workers.get(worker_id)

    def snapshot(self) -> Snapshot:
        """All that is known now."""
        return Snapshot(self.revision, self.completeness, tuple(self))

    def watch(self, key: Hashable, on_change: Callable[[Change], None]) -> Snapshot:
        """What is known now; every later change goes to `on_change`, until `unwatch(key)`."""
        self._listeners[key] = on_change
        return self.snapshot()

    def unwatch(self, key: Hashable) -> None:
        """Ends a watch. Ends nothing when there is none."""
        self._listeners.pop(key, None)

    def put(self, worker: Worker) -> None:
        """Adds a worker, or replaces what is known of it. A new incarnation removes the old one."""
        known = self._workers.get(worker.worker_id)
        self._workers[worker.worker_id] = worker
        if known == worker:
            return
        removed = None
        if known is not None and known.incarnation != worker.incarnation:
            removed = Removal(known.worker_id, known.incarnation, RemovalCause.REPLACED)
        self._publish(removed, worker)

    def update(
        self,
        worker_id: str,
        *,
        state: WorkerState | None = None,
        models: tuple[Model, ...] | None = None,
        load: Load | None = None,
        cached_prefixes: tuple[int, ...] | None = None,
        renewed_at_s: float | None = None,
    ) -> Worker:
        """Changes what is given of a worker that is there, and returns it.

        Raises:
            KeyError: there is no such worker.
        """
        given = {
            "state": state,
            "models": models,
            "load": load,
            "cached_prefixes": cached_prefixes,
            "renewed_at_s": renewed_at_s,
        }
        changes = {name: value for name, value in given.items() if value is not None}
        worker = replace(self._workers[worker_id], **changes)  # type: ignore[arg-type]
        self.put(worker)
        return worker

    def remove(self, worker_id: str, cause: RemovalCause) -> None:
        """Removes a worker. Removes nothing when it is not there."""
        known = self._workers.pop(worker_id, None)
        if known is not None:
            self._publish(Removal(known.worker_id, known.incarnation, cause), None)

    def complete(self) -> None:
        """Says that from now on a worker that is missing is gone."""
        if self.completeness is not Completeness.COMPLETE:
            self.completeness = Completeness.COMPLETE
            self._publish(None, None)

    def _publish(self, removed: Removal | None, upserted: Worker | None) -> None:
        self.revision += 1
        change = Change(self.revision, self.completeness, removed, upserted)
        for on_change in tuple(self._listeners.values()):
            on_change(change)
