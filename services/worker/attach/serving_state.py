"""Whether the worker takes requests, and whom it tells when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ServingState:
    """Serving, draining, or leaving for good. Starts serving."""

    def __init__(self) -> None:
        self.is_draining = False
        """Whether new requests are refused."""
        self.is_leaving = False
        """Whether leases are to be given up."""
        self._changed = asyncio.Event()
        self._tell: list[Callable[[], None]] = []

    def watch(self, tell: Callable[[], None]) -> None:
        """Has `tell` called at each change, for as long as the worker lives."""
        self._tell.append(tell)

    def set_draining(self, is_draining: bool) -> None:
        """Refuses new requests, or takes them again."""
        if is_draining != self.is_draining:
            self.is_draining = is_draining
            self._announce()

    def leave(self) -> None:
        """Has the leases given up. There is no way back."""
        self.is_draining = self.is_leaving = True
        self._announce()

    @property
    def next_change(self) -> asyncio.Event:
        """Is set at the next change. Take it before looking at the state."""
        return self._changed

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        for tell in self._tell:
            tell()
