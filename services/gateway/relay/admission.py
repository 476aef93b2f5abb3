"""How much a gateway carries at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from services.gateway.relay.caller import ANYBODY, Caller
from services.mesh.errors import QueueFullError

RETRY_AFTER_S = 1.0


class Admission:
    """Counts what is carried, and refuses what goes beyond a limit.

    Args:
        limit: how many may be carried at once.
        kind: what they are, for the message to a client that is refused.
        limit_per_caller: how many of one caller; None for no limit but the whole.
        retry_after_s: what to tell who is refused.
        on_refuse: called with the reason: "requests", or "caller" where only the caller has too
            many.
    """

    def __init__(
        self,
        limit: int,
        kind: str = "requests",
        *,
        limit_per_caller: int | None = None,
        retry_after_s: Callable[[], float] = lambda: RETRY_AFTER_S,
        on_refuse: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._limit = limit
        self._kind = kind
        self._limit_per_caller = limit_per_caller
        self._retry_after_s = retry_after_s
        self._on_refuse = on_refuse
        self._of_caller: dict[str, int] = {}
        self.running = 0

    def admit(self, caller: Caller = ANYBODY) -> None:
        """Lets one more in; `release` it when it has ended.

        Raises:
            QueueFullError: as many are carried as may, of all or of this caller.
        """
        if self.running >= self._limit:
            self._refuse(
                "requests",
                f"the gateway carries {self._limit} {self._kind}, as many as it may",
            )
        if self._limit_per_caller is not None:
            carried = self._of_caller.get(caller.identity, 0)
            if carried >= self._limit_per_caller:
                self._refuse(
                    "caller",
                    f"the gateway carries {carried} {self._kind} of yours, as many as one caller "
                    "may have",
                )
            self._of_caller[caller.identity] = carried + 1
        self.running += 1

    def release(self, caller: Caller = ANYBODY) -> None:
        """Lets one go that was admitted."""
        self.running -= 1
        if self._limit_per_caller is not None:
            carried = self._of_caller.pop(caller.identity) - 1
            if carried:
                self._of_caller[caller.identity] = carried

    @contextmanager
    def place(self, caller: Caller = ANYBODY) -> Iterator[None]:
        """Admits for as long as the context is open.

        Raises:
            QueueFullError: as `admit`.
        """
        self.admit(caller)
        try:
            yield
        finally:
            self.release(caller)

    def _refuse(self, reason: str, why: str) -> NoReturn:
        self._on_refuse(reason)
        raise QueueFullError(f"{why}; try again soon", retry_after_s=self._retry_after_s())
