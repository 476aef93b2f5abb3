"""When memory that is kept for reuse goes back to the device: once nothing is computed any more."""

from __future__ import annotations

from collections.abc import Callable

IDLE_S = 10.0
"""Shorter gives memory to others sooner; but whatever is computed next must ask the device for it
anew, which takes an accelerator milliseconds. Between two requests of a chat it is kept."""


class IdleRelease:
    """Releases once in each pause that lasts. Times are on any one clock.

    Args:
        release: gives the memory back.
        after_s: how long a pause lasts before that.
    """

    def __init__(self, release: Callable[[], None], after_s: float = IDLE_S) -> None:
        self._release = release
        self._after_s = after_s
        self.due_s: float | None = None
        """When there will be something to release. None: there is nothing."""

    def worked(self, now_s: float) -> None:
        """Something was computed."""
        self.due_s = now_s + self._after_s

    def look(self, now_s: float) -> None:
        """Releases if it is time to."""
        if self.due_s is not None and self.due_s <= now_s:
            self.due_s = None
            self._release()
