"""Real gateways that answer /v1/responses, with one worker that runs the tests' scripts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from tests.fakes.fake_worker import FakeWorker, fake_model
from tests.fakes.gateway_mesh import Client, controller, gateway
from tests.fakes.responses_client import ResponseError, ResponsesClient
from tokenmesh.mesh.v1 import model_pb2

CAPABILITIES = [
    model_pb2.CAPABILITY_CHAT,
    model_pb2.CAPABILITY_TOOLS,
    model_pb2.CAPABILITY_CONSTRAINED_DECODING,
]
ENDED = ("completed", "failed", "incomplete", "cancelled")


class Gateways:
    """Opens gateways, and clients for them, until the test ends."""

    def __init__(self, controller_address: str, worker: FakeWorker, stack: AsyncExitStack) -> None:
        self.controller_address = controller_address
        self.worker = worker
        self._stack = stack

    async def open(
        self, *, key: str | None = None, **settings: Any
    ) -> tuple[Client, ResponsesClient]:
        """A gateway that runs until the test ends, and a client of it."""
        client = await self._stack.enter_async_context(gateway(self.controller_address, **settings))
        if "api_keys" not in settings:
            await client.wait_served(1)
        return client, await self.client(client, key)

    async def client(self, client: Client, key: str | None = None) -> ResponsesClient:
        """A further client of a gateway."""
        return await self._stack.enter_async_context(ResponsesClient(client.address, key))

    @asynccontextmanager
    async def brief(self, **settings: Any) -> AsyncIterator[ResponsesClient]:
        """A client of a gateway that is stopped when the context ends."""
        async with gateway(self.controller_address, **settings) as client:
            await client.wait_served(1)
            async with ResponsesClient(client.address) as responses:
                yield responses


@asynccontextmanager
async def response_gateways() -> AsyncIterator[Gateways]:
    """A controller and a worker, and the gateways that a test opens."""
    async with (
        controller() as address,
        FakeWorker([address], models=[fake_model(capabilities=CAPABILITIES)]) as worker,
        AsyncExitStack() as stack,
    ):
        yield Gateways(address, worker, stack)


async def ended(client: ResponsesClient, response_id: str) -> dict[str, Any]:
    """A background response, once it has ended."""
    async with asyncio.timeout(20):
        while (found := await client.retrieve(response_id))["status"] not in ENDED:
            await asyncio.sleep(0.01)
    return found


async def error_of(call: Any) -> ResponseError:
    """The error that a call ends with."""
    with pytest.raises(ResponseError) as raised:
        await call
    return raised.value


async def all_of(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """All events of a stream."""
    return [event async for event in events]
