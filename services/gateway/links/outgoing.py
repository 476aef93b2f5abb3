"""The frames that wait to be written to one worker."""

from __future__ import annotations

import asyncio
from collections import deque

from tokenmesh.worker.v1 import worker_pb2

MAX_UNSENT_FRAMES = 8192
"""A worker that leaves so many frames unread takes no more requests. Aborts and credits may go
beyond it: there are few for each request."""


class Outgoing:
    """A queue with one reader, which outlives the streams that it is written to."""

    def __init__(self) -> None:
        self._frames: deque[worker_pb2.GenerateRequest] = deque()
        self._filled = asyncio.Event()

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        return len(self._frames) < MAX_UNSENT_FRAMES

    def put(self, frame: worker_pb2.GenerateRequest) -> None:
        """Adds a frame behind the others."""
        self._frames.append(frame)
        self._filled.set()

    def clear(self) -> None:
        """Forgets what was not written."""
        self._frames.clear()

    async def take(self) -> worker_pb2.GenerateRequest:
        """The first frame; waits until there is one."""
        while not self._frames:
            self._filled.clear()
            await self._filled.wait()
        return self._frames.popleft()
