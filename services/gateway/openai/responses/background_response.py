"""One response that is made without its client waiting, and those who follow it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from services.gateway.keys.place import LetGo
from services.gateway.openai.responses.events import EventPrinter
from services.gateway.openai.responses.making import ResponseInMaking
from services.mesh.errors import MeshError


class BackgroundResponse:
    """One of them, while this gateway makes it.

    Args:
        printer: prints its events; None where they are not asked for.
        words: what the client reads of an error.
    """

    def __init__(
        self,
        making: ResponseInMaking,
        printer: EventPrinter | None,
        words: Callable[[MeshError], str],
    ) -> None:
        self.making = making
        self.words = words
        self.events: list[bytes] = []
        self.stored_events = 0
        self.storing = asyncio.Lock()
        """Held while events are being stored."""
        self.is_over = False
        self.is_cancelled = False
        self.is_ending = False
        """Whether its end is being written down, which nothing may break off."""
        self.task: asyncio.Task[None]
        self.let_go: LetGo
        """Gives the place back that its call had among those of its key."""
        self._printer = printer
        self._changed = asyncio.Event()

    def interrupt(self, *, as_cancelled: bool) -> None:
        """Has it end where it stands: by its client's wish, or with its gateway."""
        if not self.is_ending:
            self.is_ending = True
            self.is_cancelled = as_cancelled
            self.task.cancel()

    def tell(self, kind: str) -> None:
        """An event about the response as it stands."""
        if self._printer is not None:
            self._printer.response(kind, self.making.json())
            self.publish()

    def tell_end(self) -> None:
        """The last event."""
        if self._printer is not None:
            self._printer.end(self.making.status, self.making.json())
            self.publish()

    def publish(self) -> None:
        """Lets those who follow it have what was printed."""
        if self._printer is not None:
            self.events += self._printer.take()
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self.is_over = True
        self._wake()

    async def follow(self, after: int) -> AsyncIterator[bytes]:
        """Its events from the one with the number after `after`, as they come."""
        place = after + 1
        while True:
            new = self.events[place:]
            if new:
                place += len(new)
                yield b"".join(new)
            elif self.is_over:
                return
            else:
                changed = self._changed
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
