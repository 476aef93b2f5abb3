"""A rate with the memory of a minute: what is left is saved up, what is overdrawn is owed. Pure.

A token bucket (Turner, "New directions in communications (or which way to the information age?)",
1986). It begins full: a key that was quiet for a minute may use that minute's worth at once, and
has its rate from then on, with no moment at which all begins anew.
"""

from __future__ import annotations

MINUTE_S = 60.0

TOLERANCE = 1e-6
"""Of a unit: so little may be missing, so that who waits as long as told is not refused for the
rounding of a sum."""


class TokenBucket:
    """Units that come at a rate. All times are seconds on one clock that never goes back."""

    def __init__(self, per_minute: float, now_s: float) -> None:
        self.per_minute = per_minute
        self._level = per_minute
        self._counted_at_s = now_s

    def level(self, now_s: float) -> float:
        """What may be taken now; below 0 what is owed."""
        gained = (now_s - self._counted_at_s) * self.per_minute / MINUTE_S
        return min(self.per_minute, self._level + gained)

    def has(self, units: float, now_s: float) -> bool:
        """Whether so many are there."""
        return self.level(now_s) >= units - TOLERANCE

    def take(self, units: float, now_s: float) -> None:
        """Takes so many, also more than are there: the rest is owed. Less than 0 gives back."""
        self._level = self.level(now_s) - units
        self._counted_at_s = now_s

    def wait_s(self, units: float, now_s: float) -> float:
        """Seconds until so many are there; 0 where they are. Never more than fit in."""
        missing = min(units, self.per_minute) - self.level(now_s)
        return max(0.0, missing * MINUTE_S / self.per_minute) if missing > TOLERANCE else 0.0

    def change_rate(self, per_minute: float, now_s: float) -> None:
        """Goes on at another rate, with what is there or owed."""
        self._level = min(per_minute, self.level(now_s))
        self._counted_at_s = now_s
        self.per_minute = per_minute
