"""The controller as a process sees it: startup, serve, shutdown."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import structlog

from services.controller.admin import AdminServicer
from services.controller.attach import RegistryServicer
from services.controller.clock import LeaseClock
from services.controller.keeper import LeaseKeeper
from services.controller.membership import Membership
from services.controller.metrics import ControllerMetrics
from services.controller.probing import Prober
from services.controller.settings import ControllerSettings
from services.controller.watch import EndpointServicer
from services.mesh.metrics import MetricsServer
from services.mesh.process import announce_ready
from services.mesh.server import MeshServer
from tokenmesh.controller.v1 import admin_pb2_grpc, endpoint_pb2_grpc, registry_pb2_grpc

log = structlog.get_logger()

SERVICE = "controller"
SERVICE_NAMES = (
    "tokenmesh.controller.v1.RegistryService",
    "tokenmesh.controller.v1.EndpointService",
    "tokenmesh.controller.v1.AdminService",
)
# Streams are told that the controller stops and end at once; this is for calls in between.
STOP_GRACE_S = 1.0


@dataclass(frozen=True)
class RunningController:
    """A controller that serves."""

    address: str
    background: asyncio.Task[None]
    """Ends only by a bug, which it raises."""


@asynccontextmanager
async def running(
    settings: ControllerSettings, metrics: ControllerMetrics
) -> AsyncIterator[RunningController]:
    """A controller that serves for as long as the context is open.

    Raises:
        StartError: the port is taken.
    """
    clock = LeaseClock()
    membership = Membership(
        settings.lease_terms(), started_at_s=clock.now_s(), max_workers=settings.max_workers
    )
    keeper = LeaseKeeper(membership, clock, metrics)
    prober = Prober(settings, keeper, clock)
    incarnation = uuid.uuid4().hex
    workers = RegistryServicer(settings, keeper, prober, metrics)
    gateways = EndpointServicer(settings, keeper.registry, prober, metrics, incarnation)
    operators = AdminServicer(settings, keeper)
    server = MeshServer(settings.host, settings.port)
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(workers, server.grpc)
    endpoint_pb2_grpc.add_EndpointServiceServicer_to_server(gateways, server.grpc)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(operators, server.grpc)
    await server.start(SERVICE_NAMES)
    background = asyncio.create_task(_run_together(keeper.run(), prober.run()))
    try:
        yield RunningController(server.address, background)
    finally:
        await server.drain()
        workers.stop()
        gateways.stop()
        await server.stop(STOP_GRACE_S)
        background.cancel()
        with suppress(asyncio.CancelledError):
            await background


async def serve(settings: ControllerSettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set.

    Raises:
        StartError: a port is taken.
    """
    metrics_server = MetricsServer(SERVICE, settings.host, settings.metrics_port)
    try:
        async with running(settings, ControllerMetrics()) as controller:
            announce_ready(settings.ready_file, SERVICE, controller.address, metrics_server.address)
            await _either(stop, controller.background)
    finally:
        metrics_server.stop()


async def _either(stop: asyncio.Event, background: asyncio.Task[None]) -> None:
    """Returns when `stop` is set; raises when the background fails."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([stopped, background], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()
    if background.done():
        await background


async def _run_together(*parts: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for part in parts:
            tasks.create_task(part)
