"""Says in grpc.health.v1 how this gateway stands with its controllers.

With every controller gone a gateway serves on, from what it knows: its own health stays SERVING.
That it is cut off from news is told under the name of the service that it misses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Protocol

import structlog

DISCOVERY_SERVICE = "tokenmesh.controller.v1.EndpointService"
"""SERVING while at least one controller is watched."""

INTERVAL_S = 0.5

log = structlog.get_logger()


class Watch(Protocol):
    """One controller, as watched."""

    @property
    def is_connected(self) -> bool:
        """Whether it tells what changes."""
        ...


class SetHealth(Protocol):
    """Sets what grpc.health.v1 answers for one service."""

    def __call__(self, service_name: str, *, serving: bool) -> Awaitable[None]:
        """Sets it."""
        ...


async def tell(
    watches: Sequence[Watch],
    set_health: SetHealth,
    interval_s: float = INTERVAL_S,
) -> None:
    """Keeps the health of DISCOVERY_SERVICE true, until cancelled."""
    told: bool | None = None
    while True:
        is_watching = any(watch.is_connected for watch in watches)
        if is_watching is not told:
            await set_health(DISCOVERY_SERVICE, serving=is_watching)
            if not is_watching:
                log.warning("no controller is watched: serving with what is known")
            elif told is not None:
                log.info("a controller is watched again")
            told = is_watching
        await asyncio.sleep(interval_s)
