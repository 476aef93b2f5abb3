"""The responses that wait to be written to one gateway."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from services.mesh.errors import MeshError
from tokenmesh.worker.v1 import worker_pb2

# Beyond so many waiting events, requests get no further credit and frames are not read, so that
# the memory for a gateway that does not read is bounded: by this, and by the credit that is out.
ROOM_EVENTS = 4096
# An engine that is faster than the network waits while so many responses are queued. Fewer would
# leave the network idle between two steps; more only makes the queue longer.
BEHIND_RESPONSES = 4


class Outbox:
    """A queue with one reader. Iteration ends when it is closed and empty, or with its error."""

    def __init__(self, on_room: Callable[[], None], on_caught_up: Callable[[], None]) -> None:
        """Calls back when the queue has room again, and when it is no longer behind."""
        self._on_room = on_room
        self._on_caught_up = on_caught_up
        self._responses: deque[worker_pb2.GenerateResponse] = deque()
        self._events = 0
        self._is_closed = False
        self._error: MeshError | None = None
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._handed_out_s: float | None = None

    @property
    def has_room(self) -> bool:
        """Whether few enough events wait."""
        return self._events < ROOM_EVENTS

    @property
    def is_behind(self) -> bool:
        """Whether the gateway takes responses more slowly than steps produce them."""
        return len(self._responses) >= BEHIND_RESPONSES

    async def wait_for_room(self) -> None:
        """Returns once there is room."""
        await self._room.wait()

    def blocked_for_s(self) -> float:
        """Seconds for which the response handed out last has been waiting to be written."""
        return 0.0 if self._handed_out_s is None else time.monotonic() - self._handed_out_s

    def put(self, response: worker_pb2.GenerateResponse) -> None:
        """Adds a response. Nothing is added to a closed outbox."""
        if self._is_closed:
            return
        self._responses.append(response)
        self._events += len(response.events)
        if not self.has_room:
            self._room.clear()
        self._filled.set()

    def close(self, error: MeshError | None = None) -> None:
        """Ends the iteration behind what is queued, with the error if there is one."""
        if self._is_closed:
            return
        self._is_closed = True
        self._error = error
        self._filled.set()
        self._room.set()

    def drop(self) -> None:
        """Forgets what is queued."""
        self._responses.clear()
        self._events = 0

    def __aiter__(self) -> Outbox:
        return self

    async def __anext__(self) -> worker_pb2.GenerateResponse:
        self._handed_out_s = None
        while not self._responses:
            if self._is_closed:
                if self._error is not None:
                    raise self._error
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        had_room = self.has_room
        was_behind = self.is_behind
        response = self._responses.popleft()
        self._events -= len(response.events)
        if was_behind and not self.is_behind:
            self._on_caught_up()
        if self.has_room and not had_room:
            self._room.set()
            self._on_room()
        self._handed_out_s = time.monotonic()
        return response
