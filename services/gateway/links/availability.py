"""Wakes requests that wait for a worker."""

from __future__ import annotations

import asyncio
import contextlib


class Availability:
    """Tells all that wait, each time that a worker may take requests again."""

    def __init__(self) -> None:
        self._change = asyncio.Event()

    def announce(self) -> None:
        """A worker may have become available."""
        self._change.set()
        self._change = asyncio.Event()

    async def wait(self, limit_s: float) -> None:
        """Returns at the next change, or after `limit_s` seconds."""
        change = self._change
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await change.wait()
