"""What a gateway counts of the responses that it keeps."""

from __future__ import annotations

from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.mesh.errors import MeshError
from services.mesh.metrics import DURATION_BUCKETS_S

OPERATIONS = (
    *("put", "get", "chain", "find_items", "delete", "update", "keep_alive", "add_events"),
    *("events", "sweep", "check"),
)
"""Calls of a store. Each is counted from the start, so that the first failure shows."""

_Error = TypeVar("_Error", bound=MeshError)


class ResponseMetrics:
    """The metrics of stored and of background responses, on one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stored = Gauge(
            "tokenmesh_gateway_responses_stored",
            "Responses in the store, of all gateways that share it.",
            registry=registry,
        )
        self.stored_bytes = Gauge(
            "tokenmesh_gateway_responses_stored_bytes",
            "Bytes of the responses in the store, without indexes.",
            registry=registry,
        )
        self.evictions = Counter(
            "tokenmesh_gateway_response_evictions",
            "Responses dropped from the store: age is --responses-ttl, count --responses-max, "
            "bytes --responses-max-bytes.",
            ("cause",),
            registry=registry,
        )
        self.operations = Histogram(
            "tokenmesh_gateway_response_store_operation_seconds",
            "What calls of the store took, with their wait for its thread.",
            ("operation",),
            buckets=DURATION_BUCKETS_S,
            registry=registry,
        )
        self.failures = Counter(
            "tokenmesh_gateway_response_store_failures",
            "Calls of the store that failed.",
            ("operation",),
            registry=registry,
        )
        for operation in OPERATIONS:
            self.failures.labels(operation)
        self.unstored = Counter(
            "tokenmesh_gateway_responses_unstored",
            "Responses that were answered, but could not be stored as their clients had asked.",
            registry=registry,
        )
        self.background_running = Gauge(
            "tokenmesh_gateway_background_responses_running",
            "Background responses that this gateway makes just now.",
            registry=registry,
        )

    def observe(self, operation: str, duration_s: float) -> None:
        """A call of the store has ended well."""
        self.operations.labels(operation).observe(duration_s)

    def counted(self, operation: str, error: _Error) -> _Error:
        """The error of a call of the store, once it is counted."""
        self.failures.labels(operation).inc()
        return error

    def count_evicted(self, cause: str, responses: int) -> None:
        """So many were dropped."""
        self.evictions.labels(cause).inc(responses)

    def tell_size(self, responses: int, size_bytes: int) -> None:
        """So much is in the store."""
        self.stored.set(responses)
        self.stored_bytes.set(size_bytes)
