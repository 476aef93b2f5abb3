"""What the controller exports to Prometheus."""

from __future__ import annotations

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
        self._reason_label = BoundedLabel(MAX_REASONS)
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
        """Sets how many workers are in each state."""
        states = [worker.state for worker in workers]
        for state in WorkerState:
            self._workers.labels(state.value).set(states.count(state))

    def set_revision(self, revision: int) -> None:
        """Sets the registry's revision."""
        self._revision.set(revision)

    def set_watchers(self, watchers: int) -> None:
        """Sets how many gateways watch."""
        self._watchers.set(watchers)
