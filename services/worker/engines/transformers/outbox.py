"""Carries step outputs from the engine's thread to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

from services.worker.engines.base import StepOutput


class Outbox:
    """A bounded way out. Who fills it looks at `is_full` first, and computes nothing while it is.

    Args:
        loop: where the consumer runs.
        limit: outputs that may lie unread.
        on_room: called when a full outbox has room again.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, limit: int, on_room: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._limit = limit
        self._on_room = on_room
        self._lock = threading.Lock()
        self._unread = 0
        self._outputs: asyncio.Queue[StepOutput | None] = asyncio.Queue()

    @property
    def is_full(self) -> bool:
        """Whether as many outputs lie unread as may."""
        return self._unread >= self._limit

    def put(self, output: StepOutput) -> None:
        """Hands an output over. From any thread."""
        with self._lock:
            self._unread += 1
        self._loop.call_soon_threadsafe(self._outputs.put_nowait, output)

    def close(self) -> None:
        """Ends the iteration behind what was put so far. From the event loop."""
        self._loop.call_soon(self._outputs.put_nowait, None)

    async def __aiter__(self) -> AsyncIterator[StepOutput]:
        while (output := await self._outputs.get()) is not None:
            with self._lock:
                was_full = self.is_full
                self._unread -= 1
            if was_full:
                self._on_room()
            yield output
        # For whoever iterates again.
        self._outputs.put_nowait(None)
