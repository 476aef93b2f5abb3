"""Counts the sequences that an engine holds, so that no more are taken than may wait."""

from __future__ import annotations

from collections.abc import Hashable

from services.mesh.errors import InvalidRequestError, QueueFullError

_RETRY_AFTER_S = 1.0


class Places:
    """The sequences that run or wait, by request. For the event loop's thread."""

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._left: dict[Hashable, int] = {}
        self._hidden: dict[Hashable, int] = {}
        self.taken = 0

    def __contains__(self, key: Hashable) -> bool:
        return key in self._left

    def take(self, key: Hashable, choices: int, *, hidden: int = 0) -> None:
        """Counts a request in. One with more choices than places left is taken while there is one.

        `hidden` are sequences whose end nobody is told of: they leave with the last choice.

        Raises:
            QueueFullError: as many wait as may.
            InvalidRequestError: the key is in use.
        """
        if key in self._left:
            raise InvalidRequestError(
                "a request with this key is running", reason="REQUEST_KEY_IN_USE"
            )
        if self.taken >= self._max_running + self._max_waiting:
            raise QueueFullError(
                f"{self._max_running} sequences run and {self._max_waiting} wait: try again, or "
                "elsewhere",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._left[key] = choices
        self._hidden[key] = hidden
        self.taken += choices + hidden

    def give_back(self, key: Hashable) -> None:
        """Counts all that is left of a request out. Ignores unknown keys."""
        self.taken -= self._left.pop(key, 0) + self._hidden.pop(key, 0)

    def end_choice(self, key: Hashable) -> None:
        """Counts one choice of a request out. Ignores unknown keys."""
        left = self._left.get(key)
        if left is None:
            return
        if left == 1:
            self.give_back(key)
        else:
            self.taken -= 1
            self._left[key] = left - 1
