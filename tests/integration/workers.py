"""A worker in this process, for tests: real gRPC on a free port, metrics of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from services.mesh.channels import open_channel
from services.worker import engines
from services.worker.engines.base import Engine
from services.worker.engines.scripted import Pace, ScriptedSettings
from services.worker.server import RunningWorker, running
from services.worker.settings import WorkerSettings
from tests.fakes.generate_client import LIMIT_S, GenerateClient
from tokenmesh.worker.v1 import worker_pb2_grpc

# Slow enough that a request is still running when a test acts on it.
SLOW = Pace(token_interval_s=0.01, answer_tokens=0)


@dataclass(frozen=True)
class Worker:
    """A worker, a channel to it, and its metrics."""

    served: RunningWorker
    channel: grpc.aio.Channel
    metrics: CollectorRegistry

    @property
    def stub(self) -> Any:
        """Its RPCs."""
        return worker_pb2_grpc.WorkerServiceStub(self.channel)

    @property
    def engine(self) -> Engine:
        """Its engine."""
        return self.served.engine

    def generate(self) -> GenerateClient:
        """A new Generate stream."""
        return GenerateClient(self.channel)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric; 0 where it is not there."""
        return self.metrics.get_sample_value(f"tokenmesh_worker_{name}", labels) or 0.0


@asynccontextmanager
async def worker(
    *,
    pace: Pace | None = None,
    engine: Engine | None = None,
    max_running: int = 8,
    max_waiting: int = 8,
    context_length_tokens: int = 4096,
    **settings: Any,
) -> AsyncIterator[Worker]:
    """A worker that serves for as long as the context is open; attached to nobody by default."""
    scripted = ScriptedSettings(
        model_names=("scripted", "alias"),
        pace=pace or Pace(),
        max_running=max_running,
        max_waiting=max_waiting,
        context_length_tokens=context_length_tokens,
    )
    given: dict[str, Any] = {"port": 0, "controllers": (), "grace_period_s": 0.0} | settings
    metrics = CollectorRegistry()
    chosen = engine or engines.create("scripted", scripted)
    await chosen.start()
    async with (
        running(WorkerSettings(engine=scripted, **given), chosen, metrics) as served,
        open_channel(served.address) as channel,
    ):
        yield Worker(served, channel, metrics)


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits until the condition holds."""
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)
