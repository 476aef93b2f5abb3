"""How fast a queue drains, as measured, and what that says to who must wait."""

from __future__ import annotations

import math

TIME_CONSTANT_S = 10.0
"""Departures of about so many seconds count. Longer is calmer; shorter follows workers that come
and go sooner."""

MIN_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
"""OpenAI's clients wait no longer than a minute, whatever they are told."""


class DrainRate:
    """Departures per second, as an average that fades."""

    def __init__(self, time_constant_s: float = TIME_CONSTANT_S) -> None:
        self._time_constant_s = time_constant_s
        self._began_at_s: float | None = None
        self._counted_at_s = 0.0
        self._count = 0.0

    def count(self, now_s: float) -> None:
        """One has left the queue's workers, and made room."""
        if self._began_at_s is None:
            self._began_at_s = self._counted_at_s = now_s
            return
        self._count = self._faded(now_s) + 1
        self._counted_at_s = now_s

    def per_second(self, now_s: float) -> float | None:
        """Departures per second; None before two are counted."""
        if self._began_at_s is None or now_s <= self._began_at_s or not self._count:
            return None
        share_seen = 1 - math.exp(-(now_s - self._began_at_s) / self._time_constant_s)
        return self._faded(now_s) / (self._time_constant_s * share_seen)

    def wait_s(self, length: int, now_s: float) -> float:
        """How long a queue of this length takes to drain; from MIN_ to MAX_RETRY_AFTER_S seconds.

        The least while nothing is measured.
        """
        rate = self.per_second(now_s)
        if rate is None:
            return MIN_RETRY_AFTER_S
        if rate * MAX_RETRY_AFTER_S <= length:
            return MAX_RETRY_AFTER_S
        return max(MIN_RETRY_AFTER_S, length / rate)

    def _faded(self, now_s: float) -> float:
        return self._count * math.exp(-(now_s - self._counted_at_s) / self._time_constant_s)
