"""The clock that leases run on: it stands still while this process does."""

from __future__ import annotations

import time
from collections.abc import Callable

# The clock is read four times a second. A longer gap means that this process was stopped, swapped
# out or starved: heartbeats wait unread in its sockets, and the gap must expire nobody.
TICK_S = 0.25
MAX_GAP_S = 1.0


class LeaseClock:
    """Seconds during which this process could have read a heartbeat."""

    def __init__(self, read_s: Callable[[], float] = time.monotonic) -> None:
        self._read_s = read_s
        self._last_s = read_s()
        self._now_s = 0.0

    def now_s(self) -> float:
        """The time. Never goes back."""
        read_s = self._read_s()
        self._now_s += min(max(read_s - self._last_s, 0.0), MAX_GAP_S)
        self._last_s = read_s
        return self._now_s
