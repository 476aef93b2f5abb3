"""What the controller exports to Prometheus."""

from __future__ import annotations

import collections
from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

from services.controller.registry import Worker, WorkerState
from services.mesh.metrics import BoundedLabel

LEASE_EVENTS = (
    "granted",
    "reconnected",
    "restarted",
    "renewed",
    "expired",
    "left",
    "refused",
    "superseded",
)
# Reasons come from workers through gateways: more than the error tree has, but not without bound.
MAX_REASONS = 50
# Names come from workers, which the mesh trusts, but which may be started with any.
MAX_MODELS = 200


class ControllerMetrics:
    """The controller's metrics in one collector registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._lease_events = Counter(
            "tokenmesh_controller_lease_events",
            "What happened to leases.",
            ["event"],
            registry=registry,
        )
        self._workers = Gauge(
            "tokenmesh_controller_workers",
            "Workers that hold a lease.",
            ["state"],
            registry=registry,
        )
        self._watchers = Gauge(
            "tokenmesh_controller_watchers", "Gateways that watch.", registry=registry
        )
        self._revision = Gauge(
            "tokenmesh_controller_revision", "Changes since the start.", registry=registry
        )
        self._failure_reports = Counter(
            "tokenmesh_controller_failure_reports",
            "Failures of workers that gateways reported.",
            ["reason"],
            registry=registry,
        )
        self._model_workers = Gauge(
            "tokenmesh_controller_model_workers",
            "Workers that take requests for a model. 0 once its last one is gone.",
            ["model"],
            registry=registry,
        )
        self._reason_label = BoundedLabel(MAX_REASONS)
        self._model_label = BoundedLabel(MAX_MODELS)
        self._seen_models: set[str] = set()
        for event in LEASE_EVENTS:
            self._lease_events.labels(event)
        self.count_workers(())

    def lease_event(self, event: str) -> None:
        """Counts one of LEASE_EVENTS."""
        self._lease_events.labels(event).inc()

    def failure_report(self, reason: str) -> None:
        """Counts a report; `reason` may be anything."""
        self._failure_reports.labels(self._reason_label(reason)).inc()

    def count_workers(self, workers: Iterable[Worker]) -> None:
        """Sets how many workers are in each state, and how many serve each model seen so far."""
        states: collections.Counter[WorkerState] = collections.Counter()
        serving: collections.Counter[str] = collections.Counter()
        for worker in workers:
            states[worker.state] += 1
            models = [self._model_label(model.name) for model in worker.models]
            self._seen_models.update(models)
            if worker.state is WorkerState.SERVING:
                serving.update(models)
        for state in WorkerState:
            self._workers.labels(state.value).set(states[state])
        for model in self._seen_models:
            self._model_workers.labels(model).set(serving[model])

    def set_revision(self, revision: int) -> None:
        """Sets the registry's revision."""
        self._revision.set(revision)

    def set_watchers(self, watchers: int) -> None:
        """Sets how many gateways watch."""
        self._watchers.set(watchers)
