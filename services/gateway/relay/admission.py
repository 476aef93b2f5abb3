"""How much a gateway carries at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.mesh.errors import QueueFullError

RETRY_AFTER_S = 1.0


class Admission:
    """Counts what runs, and refuses what goes beyond a limit.

    Args:
        limit: how many may run at once.
        kind: what they are, for the message to a client that is refused.
    """

    def __init__(self, limit: int, kind: str = "requests") -> None:
        self._limit = limit
        self._kind = kind
        self.running = 0

    def admit(self) -> None:
        """Lets one more in; `release` it when it has ended.

        Raises:
            QueueFullError: as many run as may.
        """
        if self.running >= self._limit:
            raise QueueFullError(
                f"the gateway carries {self._limit} {self._kind}, as many as it may; "
                "try again soon",
                retry_after_s=RETRY_AFTER_S,
            )
        self.running += 1

    def release(self) -> None:
        """Lets one go that was admitted."""
        self.running -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Admits for as long as the context is open.

        Raises:
            QueueFullError: as `admit`.
        """
        self.admit()
        try:
            yield
        finally:
            self.release()
