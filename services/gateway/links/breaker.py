"""Keeps requests from a worker that is at fault, and lets it back in.

    CLOSED ──faults in a row, or a broken stream──► OPEN ──backoff is over──► HALF_OPEN
      ▲                                               ▲                          │
      └──────────── the trial succeeds ───────────────┼──────────────────────────┤
                                                      └──── the trial fails ─────┘

Only what the worker is to blame for counts; a client's error never does. Time is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """What the breaker does with requests."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True)
class BreakerTuning:
    """When a breaker trips and how it recovers."""

    faults_to_trip: int = 5
    """Faults in a row. Fewer spares clients sooner, and gives up sooner on a worker that hit one
    bad batch."""
    initial_backoff_s: float = 0.25
    """Doubles with each failed trial. Shorter finds a worker that is back sooner."""
    max_backoff_s: float = 8.0
    """The longest that a worker which is back waits for its next trial."""


class Breaker:
    """The breaker of one worker."""

    def __init__(self, tuning: BreakerTuning | None = None) -> None:
        self._tuning = tuning or BreakerTuning()
        self._faults = 0
        self._backoff_s = 0.0
        self._trial_ends_s = 0.0
        self.state = BreakerState.CLOSED
        self.retry_at_s = 0.0
        """When the next trial may begin. Means nothing while closed."""

    def admits(self, now_s: float) -> bool:
        """Whether a request may go to the worker."""
        if self.state is BreakerState.CLOSED:
            return True
        if self.state is BreakerState.OPEN:
            return now_s >= self.retry_at_s
        return now_s >= self._trial_ends_s

    def begin(self, now_s: float) -> None:
        """Notes that a request, or a probe, goes to the worker.

        While the breaker is not closed this is a trial: no other is admitted before it has ended,
        or one backoff has passed without word of it.
        """
        if self.state is not BreakerState.CLOSED:
            self.state = BreakerState.HALF_OPEN
            self._trial_ends_s = now_s + self._backoff_s

    def succeed(self) -> None:
        """Notes that the worker did what it was asked."""
        self.state = BreakerState.CLOSED
        self._faults = 0
        self._backoff_s = 0.0

    def reopen_stream(self) -> None:
        """Notes that a probe went well. One fault trips again, with a longer backoff, until a
        request has succeeded.
        """
        self.state = BreakerState.CLOSED
        self._faults = self._tuning.faults_to_trip - 1

    def fault(self, now_s: float) -> bool:
        """Notes that the worker failed. Returns whether that tripped the breaker."""
        self._faults += 1
        if self.state is BreakerState.OPEN:
            return False
        if self.state is BreakerState.CLOSED and self._faults < self._tuning.faults_to_trip:
            return False
        self.trip(now_s)
        return True

    def trip(self, now_s: float) -> None:
        """Opens at once."""
        self._backoff_s = min(
            max(self._backoff_s * 2, self._tuning.initial_backoff_s), self._tuning.max_backoff_s
        )
        self.retry_at_s = now_s + self._backoff_s
        self.state = BreakerState.OPEN
