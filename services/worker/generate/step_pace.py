"""Lets an engine that is faster than the network wait for it."""

from __future__ import annotations

import asyncio
import contextlib

# A gateway that hangs delays a step for others by no more than this, until its own requests are out
# of credit and no step has anything for it.
WAIT_LIMIT_S = 0.05


class StepPace:
    """Where the consumer of steps waits, and streams tell that it may go on."""

    def __init__(self) -> None:
        self._may_go_on = asyncio.Event()

    def go_on(self) -> None:
        """Some gateway can take more, or a request has come or gone."""
        self._may_go_on.set()

    async def wait(self) -> None:
        """Returns at the next `go_on`, or after the limit."""
        self._may_go_on.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_LIMIT_S):
                await self._may_go_on.wait()
