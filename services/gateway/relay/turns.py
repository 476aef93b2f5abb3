"""Shares the event loop between many clients and the streams that feed them.

Serving a client costs a write, some tens of microseconds. A new call, a request on its way to a
worker, and a worker's next frame each take a turn of the event loop, whatever the turn's length. If
every client with output were served in every turn, turns would grow with the number of clients, and
all of those would wait. So a turn serves a few clients; the others find more output when their turn
comes, and get it in one message, which also costs less than one for each token.
"""

from __future__ import annotations

import asyncio
from collections import deque

CLIENTS_PER_TURN = 4
"""More makes turns longer, and messages smaller and so dearer. With fewer, the turn itself is what
costs. docs/adr/0010-gateway-under-load.md tells why it is 4."""


class Turns:
    """Lets so many callers go on in each turn of the running event loop, in the order they came."""

    def __init__(self, clients_per_turn: int = CLIENTS_PER_TURN) -> None:
        self._limit = clients_per_turn
        self._left = clients_per_turn
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_renewed_soon = False

    def take(self) -> asyncio.Future[None] | None:
        """None when the caller may go on at once, else what it must await first."""
        loop = asyncio.get_running_loop()
        if not self._is_renewed_soon:
            self._is_renewed_soon = True
            loop.call_soon(self._renew)
        if self._left and not self._waiting:
            self._left -= 1
            return None
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        return turn

    def _renew(self) -> None:
        left = self._limit
        waiting = self._waiting
        while left and waiting:
            turn = waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                left -= 1
        self._left = left
        self._is_renewed_soon = bool(waiting)
        if waiting:
            asyncio.get_running_loop().call_soon(self._renew)
