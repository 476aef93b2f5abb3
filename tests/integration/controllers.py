"""A controller in this process, for tests: real gRPC on a free port, metrics of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from services.controller.metrics import ControllerMetrics
from services.controller.server import running
from services.controller.settings import ControllerSettings
from services.mesh.channels import open_channel
from tests.fakes.controller_peers import LIMIT_S, AttachPeer, WatchPeer
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc, endpoint_pb2


@dataclass(frozen=True)
class Mesh:
    """A controller, a channel to it, and its metrics."""

    address: str
    channel: grpc.aio.Channel
    metrics: CollectorRegistry

    @property
    def admin(self) -> admin_pb2_grpc.AdminServiceAsyncStub:
        """What an operator calls."""
        return admin_pb2_grpc.AdminServiceStub(self.channel)

    def attach(self) -> AttachPeer:
        """A new Attach stream."""
        return AttachPeer(self.channel)

    async def watch(self) -> WatchPeer:
        """A new Watch stream that has its snapshot."""
        peer = WatchPeer(self.channel)
        await peer.subscribe()
        return peer

    async def workers(self, model: str = "") -> dict[str, endpoint_pb2.Worker]:
        """The workers that hold a lease, by worker id."""
        listed = await self.admin.ListWorkers(admin_pb2.ListWorkersRequest(model=model))
        return {worker.worker_id: worker for worker in listed.workers}

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 where it is not there."""
        return self.metrics.get_sample_value(f"tokenmesh_controller_{name}", labels) or 0.0


@asynccontextmanager
async def controller(settings: ControllerSettings) -> AsyncIterator[Mesh]:
    """A controller that serves for as long as the context is open."""
    metrics = CollectorRegistry()
    async with (
        running(settings, ControllerMetrics(metrics)) as served,
        open_channel(served.address) as channel,
    ):
        yield Mesh(served.address, channel, metrics)


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)
