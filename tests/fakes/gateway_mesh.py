"""A real controller and a real gateway in the test's process, and a client for the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from services.controller.metrics import ControllerMetrics
from services.controller.server import running as running_controller
from services.controller.settings import ControllerSettings
from services.gateway.server import running as running_gateway
from services.gateway.settings import GatewaySettings
from services.mesh import status
from services.mesh.channels import open_channel
from services.mesh.errors import MeshError
from tests.fakes.fake_worker import MODEL
from tokenmesh.gateway.v1 import (
    chat_pb2,
    chat_pb2_grpc,
    completion_pb2_grpc,
    embedding_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2

WAIT_S = 20.0


class Client:
    """Stubs of a gateway's services."""

    def __init__(self, address: str, metrics: CollectorRegistry) -> None:
        self.address = address
        self.channel = open_channel(address)
        self.metrics = metrics
        self.chat: Any = chat_pb2_grpc.ChatServiceStub(self.channel)
        self.completion: Any = completion_pb2_grpc.CompletionServiceStub(self.channel)
        self.models: Any = model_pb2_grpc.ModelServiceStub(self.channel)
        self.embedding: Any = embedding_pb2_grpc.EmbeddingServiceStub(self.channel)

    async def answer(self, request: chat_pb2.ChatRequest | None = None, **options: Any) -> str:
        """The whole text of the first choice."""
        responses = self.chat.Chat(request or chat_request(), **options)
        return "".join([response.chunk.text async for response in responses])

    async def served(self) -> dict[str, int]:
        """How many workers serve each model."""
        answer = await self.models.ListModels(model_pb2.ListModelsRequest())
        return {served.model.name: served.serving_workers for served in answer.models}

    async def wait_served(self, workers: int, model: str = MODEL) -> None:
        """Waits until the gateway knows of so many workers that serve a model."""
        async with asyncio.timeout(WAIT_S):
            while (await self.served()).get(model, 0) != workers:
                await asyncio.sleep(0.01)

    async def wait_complete(self) -> None:
        """Waits until the controllers have heard from every worker there may be."""
        request = chat_request(model="none")
        async with asyncio.timeout(WAIT_S):
            while (await error_of(self.chat.Chat(request))).code != "NOT_FOUND":
                await asyncio.sleep(0.02)

    def metric(self, name: str, **labels: str) -> float:
        """A sample of the gateway's metrics; 0 where there is none."""
        return self.metrics.get_sample_value(name, labels) or 0.0


async def error_of(call: Any) -> MeshError:
    """The error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await _end(call)
    return status.from_rpc_error(raised.value)


async def _end(call: Any) -> None:
    if isinstance(call, grpc.aio.UnaryUnaryCall):
        await call
        return
    async for _ in call:
        pass


async def eventually(holds: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


def chat_request(text: str = "Hi", *, model: str = MODEL, **sampling: Any) -> chat_pb2.ChatRequest:
    """One user message."""
    request = chat_pb2.ChatRequest(model=model)
    request.prompt.messages.add(
        role=mesh_chat_pb2.ROLE_USER, content=[mesh_chat_pb2.ContentPart(text=text)]
    )
    for name, value in sampling.items():
        setattr(request.sampling, name, value)
    return request


@asynccontextmanager
async def controller(port: int = 0, **settings: Any) -> AsyncIterator[str]:
    """A controller with short leases. Gives its address."""
    settings = {"lease_ttl_s": 1.0, "heartbeat_interval_s": 0.25, **settings}
    async with running_controller(
        ControllerSettings(port=port, **settings), ControllerMetrics(CollectorRegistry())
    ) as running:
        yield running.address


@asynccontextmanager
async def gateway(*controllers: str, **settings: Any) -> AsyncIterator[Client]:
    """A gateway that watches the controllers. Gives a client for it."""
    metrics = CollectorRegistry()
    settings = {"grace_period_s": 0.0, "forget_after_s": 5.0, **settings}
    async with running_gateway(
        GatewaySettings(port=0, controllers=controllers, **settings), metrics
    ) as running:
        client = Client(running.address, metrics)
        try:
            yield client
        finally:
            await client.channel.close()
