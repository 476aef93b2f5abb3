"""How many requests a gateway carries at once."""

from __future__ import annotations

from services.mesh.errors import QueueFullError

RETRY_AFTER_S = 1.0


class Admission:
    """Counts the requests that run, and refuses those beyond a limit."""

    def __init__(self, max_requests: int) -> None:
        self._max_requests = max_requests
        self.running = 0

    def admit(self) -> None:
        """Lets a request in; `release` it when it has ended.

        Raises:
            QueueFullError: as many run as may.
        """
        if self.running >= self._max_requests:
            raise QueueFullError(
                f"the gateway carries {self._max_requests} requests, as many as it may; "
                "try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        self.running += 1

    def release(self) -> None:
        """Lets a request go that was admitted."""
        self.running -= 1
