"""A call's place among those that its key may have open at once. Pure."""

from __future__ import annotations

from collections.abc import Callable

LetGo = Callable[[], None]


class Place:
    """Is kept by the call, and by what goes on when that has ended, until all have let go.

    Args:
        free: gives the place back.
    """

    def __init__(self, free: Callable[[], None]) -> None:
        self._free = free
        self._holders = 0

    def hold(self) -> LetGo:
        """Keeps the place until what is returned is called; only the first call of it counts."""
        self._holders += 1
        is_held = True

        def let_go() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._holders -= 1
                if not self._holders:
                    self._free()

        return let_go
