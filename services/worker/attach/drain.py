"""Takes nothing new, and gives what runs a grace period."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from services.mesh.errors import UnavailableError
from services.worker.attach.serving_state import ServingState
from services.worker.generate.live_request import LiveRequests

log = structlog.get_logger()


class Drain:
    """Drains for the operator, and may be taken back by a resume."""

    def __init__(
        self,
        state: ServingState,
        live_requests: LiveRequests,
        end_requests: Callable[[], None],
        grace_period_s: float,
    ) -> None:
        """`end_requests` fails what still runs when the grace period is over."""
        self._state = state
        self._live_requests = live_requests
        self._end_requests = end_requests
        self._grace_period_s = grace_period_s
        self._expiry: asyncio.TimerHandle | None = None
        self._is_final = False

    def begin(self, grace_period_s: float | None = None) -> None:
        """Takes nothing new. What runs may go on for the grace period, by default the worker's."""
        grace_s = self._grace_period_s if grace_period_s is None else grace_period_s
        self._cancel_expiry()
        self._state.set_draining(True)
        self._expiry = asyncio.get_running_loop().call_later(grace_s, self._expire)
        log.info("draining", requests=len(self._live_requests), grace_period_s=grace_s)

    def resume(self) -> None:
        """Takes requests again.

        Raises:
            UnavailableError: the worker is stopping.
        """
        if self._is_final:
            raise UnavailableError("the worker is stopping: it cannot serve again")
        self._cancel_expiry()
        self._state.set_draining(False)
        log.info("serving again")

    async def finish(self, grace_period_s: float) -> None:
        """Drains for good: returns when nothing runs any more."""
        self._is_final = True
        self._cancel_expiry()
        self._state.set_draining(True)
        log.info("draining", requests=len(self._live_requests), grace_period_s=grace_period_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_period_s):
                await self._live_requests.wait_until_none()
        self._expire()

    def _expire(self) -> None:
        self._expiry = None
        if len(self._live_requests):
            log.warning("grace period is over", requests=len(self._live_requests))
            self._end_requests()

    def _cancel_expiry(self) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
