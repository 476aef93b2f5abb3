"""Whether a request that has failed on a worker goes on with another one. Pure: time is handed in.

A worker refuses a request, loses it, or asks for it to be moved. What was refused goes elsewhere a
few times. What was lost or moved goes on, and waits for a worker where there is none, a limited
time; each loss counts until a limit, so that no request is carried on for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.mesh.errors import (
    MeshError,
    ModelNotFoundError,
    QueueFullError,
    UnavailableError,
    WorkerDrainingError,
    WorkerLostError,
)

RETRYABLE = (UnavailableError, QueueFullError, ModelNotFoundError)
"""What another worker may do better. It is never the client's own error: the directory has the
model, so a worker that does not know it has just unloaded it."""


@dataclass(frozen=True)
class PersistenceLimits:
    """How much a gateway does to keep a request going."""

    max_attempts: int = 3
    """Workers in a row that a request without output is tried on. More hides more failures."""
    max_losses: int = 8
    """Workers that a request may lose before it is given up."""
    wait_s: float = 5.0
    """How long a request whose worker was lost waits for another one."""


class Persistence:
    """What one request has been through."""

    def __init__(self, limits: PersistenceLimits) -> None:
        self._limits = limits
        self._losses = 0
        self._attempts = 1
        self._gives_up_at_s: float | None = None

    def progress(self) -> None:
        """The request has got new output from a worker."""
        self._attempts = 1
        self._gives_up_at_s = None

    def fail(self, error: MeshError, now_s: float, *, has_output: bool) -> None:
        """Notes that a worker has failed.

        Args:
            error: what the worker, or its stream, said.
            has_output: whether any worker has produced some of the answer.

        Raises:
            MeshError: the error itself, where the request is not to go on.
        """
        if not isinstance(error, RETRYABLE):
            raise error
        must_go_on = has_output or isinstance(error, WorkerLostError | WorkerDrainingError)
        if must_go_on and self._gives_up_at_s is None:
            self._gives_up_at_s = now_s + self._limits.wait_s
        if isinstance(error, WorkerDrainingError):
            return
        if isinstance(error, WorkerLostError):
            self._losses += 1
            if self._losses > self._limits.max_losses:
                raise error
        self._attempts += 1
        if self._attempts > self._limits.max_attempts and self.wait_s(now_s) <= 0:
            raise error

    def wait_s(self, now_s: float) -> float:
        """How long it may still wait for a worker: 0 for not at all."""
        return 0.0 if self._gives_up_at_s is None else max(0.0, self._gives_up_at_s - now_s)
