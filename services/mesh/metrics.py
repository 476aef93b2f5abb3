"""Prometheus metrics: where they are served, and labels that clients cannot blow up."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Info, start_http_server

from services.mesh.errors import StartError
from services.mesh.release import PROTOCOL_VERSION, RELEASE

# Seconds. From an instant engine on the same machine to a long answer on a laptop.
DURATION_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0),
)
# Seconds between two tokens.
TOKEN_INTERVAL_BUCKETS_S = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)

OTHER = "other"


class BoundedLabel:
    """Lets the first `limit` values of a label through and calls every further one "other"."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        """The value to use as the label."""
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OTHER
        self._seen.add(value)
        return value


class MetricsServer:
    """Serves /metrics over HTTP from a thread of its own."""

    def __init__(
        self, service: str, host: str, port: int, registry: CollectorRegistry = REGISTRY
    ) -> None:
        """Listens on `host:port`; port 0 takes a free one.

        Raises:
            StartError: the address cannot be bound.
        """
        Info("tokenmesh_build", "What is running.", registry=registry).info(
            {"service": service, "release": RELEASE, "protocol": str(PROTOCOL_VERSION)}
        )
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as error:
            raise StartError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; "
                "choose another with --metrics-port"
            ) from error
        self.address = f"{host}:{self._server.server_port}"

    def stop(self) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
