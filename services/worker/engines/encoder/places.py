"""Bounds what an engine holds of calls that it has not answered. For the event loop's thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.mesh.errors import QueueFullError

MAX_HELD_CHARACTERS = 64 * 1024 * 1024
"""Of the texts of all calls, token ids counted as one each. It bounds their memory, some hundred
megabytes when tokenized; one call alone is taken whatever its size, which a message bounds."""

_RETRY_AFTER_S = 1.0


class CallPlaces:
    """The calls that an engine holds.

    Args:
        max_calls: more are refused.
        max_characters: of the texts of all of them.
    """

    def __init__(self, max_calls: int, max_characters: int = MAX_HELD_CHARACTERS) -> None:
        self._max_calls = max_calls
        self._max_characters = max_characters
        self._characters = 0
        self.taken = 0

    @contextmanager
    def place(self, characters: int) -> Iterator[None]:
        """Holds a call for as long as the context is open.

        Raises:
            QueueFullError: as many calls, or as much of their texts, is held as may be.
        """
        is_full = self.taken >= self._max_calls
        is_heavy = self.taken > 0 and self._characters + characters > self._max_characters
        if is_full or is_heavy:
            held = f"{self.taken} calls" if is_full else f"{self._characters} characters of calls"
            raise QueueFullError(
                f"{held} run and wait here: try again, or elsewhere", retry_after_s=_RETRY_AFTER_S
            )
        self.taken += 1
        self._characters += characters
        try:
            yield
        finally:
            self.taken -= 1
            self._characters -= characters
