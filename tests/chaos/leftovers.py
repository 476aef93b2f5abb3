"""What must be zero again once every client has gone: places in gateways and workers."""

from __future__ import annotations

import asyncio
import time

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.faults import Service
from tests.chaos.mesh import Mesh

RUNNING = {
    Service.GATEWAY: "tokenmesh_gateway_requests_running",
    Service.WORKER: "tokenmesh_worker_requests_running",
}
SETTLE_LIMIT_S = 15.0


async def leftovers(mesh: Mesh) -> list[str]:
    """The processes that still carry something when everything should have ended."""
    deadline_s = time.monotonic() + SETTLE_LIMIT_S
    while (found := await asyncio.to_thread(_carried, mesh)) and time.monotonic() < deadline_s:
        await asyncio.sleep(0.2)
    return found


def _carried(mesh: Mesh) -> list[str]:
    found: list[str] = []
    for service, metric in RUNNING.items():
        for name, text in mesh.metrics(service).items():
            running = sum(
                sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
                if sample.name == metric
            )
            if running:
                found.append(f"{name} still carries {running:g} requests")
    return found
