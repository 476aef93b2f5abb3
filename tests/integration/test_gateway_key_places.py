"""How many calls of a key may be open: requests, those that go on in the background, and looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any

import grpc
import pytest

from services.gateway.keys.hashing import digest_of
from services.gateway.keys.key import Key, KeyLimits
from services.gateway.openai.responses.settings import ResponseSettings
from tests.fakes.fake_worker import FakeWorker, start_and_hang
from tests.fakes.gateway_mesh import Client, chat_request, controller, error_of, eventually, gateway
from tests.fakes.responses_client import ResponseError, ResponsesClient
from tokenmesh.gateway.v1 import model_pb2

ALICE = "alice's key, long enough to be none that is guessed"
BOB = "bob's key, long enough to be none that is guessed"


def key(name: str, text: str, **limits: int) -> Key:
    return Key(name, digest_of(text), limits=KeyLimits(**limits))


class Scene:
    """A gateway whose worker begins each request, and ends none."""

    def __init__(self, worker: FakeWorker, stack: AsyncExitStack, address: str) -> None:
        self.worker = worker
        self._stack = stack
        self._address = address
        self.client: Client

    async def open(self, *keys: Key, **settings: Any) -> None:
        self.client = await self._stack.enter_async_context(
            gateway(self._address, api_keys=keys, **settings)
        )

    async def responses(self, text: str) -> ResponsesClient:
        """A client with a key; the gateway is ready for it."""
        made = ResponsesClient(self.client.address, text)
        client = await self._stack.enter_async_context(made)
        request = model_pb2.ListModelsRequest()
        metadata = (("authorization", f"Bearer {text}"),)
        async with asyncio.timeout(20):
            while not (await self.client.models.ListModels(request, metadata=metadata)).models:
                await asyncio.sleep(0.01)
        return client

    def refused(self, name: str) -> float:
        refusals = "tokenmesh_gateway_key_refusals_total"
        return self.client.metric(refusals, key=name, reason="concurrent")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with (
        controller() as address,
        FakeWorker([address], start_and_hang) as worker,
        AsyncExitStack() as stack,
    ):
        yield Scene(worker, stack, address)


async def _reason(call: Any) -> grpc.StatusCode | None:
    try:
        await call
    except ResponseError as error:
        return error.code
    return None


async def test_a_response_in_the_background_keeps_its_call_s_place(scene: Scene) -> None:
    await scene.open(key("alice", ALICE, max_concurrent=1))
    client = await scene.responses(ALICE)
    made = await client.create(background=True)
    await eventually(lambda: bool(scene.worker.running))
    assert await _reason(client.create(background=True)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await _reason(client.create()) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert scene.refused("alice") == 2
    # Whoever waits for it can look at it, and end it.
    assert (await client.retrieve(made["id"]))["status"] in {"queued", "in_progress"}
    assert (await client.cancel(made["id"]))["status"] == "cancelled"
    again = await client.create(background=True)
    assert again["status"] == "queued"


async def test_one_that_is_streamed_has_one_place_until_both_are_over(scene: Scene) -> None:
    await scene.open(key("alice", ALICE, max_concurrent=1))
    client = await scene.responses(ALICE)
    async with aclosing(client.stream(background=True)) as events:
        first = await anext(events)
    await eventually(lambda: bool(scene.worker.running))
    # The call has been left; what it began goes on.
    assert await _reason(client.create(background=True)) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await client.delete(first["response"]["id"])
    assert (await client.create(background=True))["status"] == "queued"


async def test_one_that_cannot_be_begun_keeps_no_place(scene: Scene) -> None:
    limits = ResponseSettings(max_background=0)
    await scene.open(key("alice", ALICE, max_concurrent=1), responses=limits)
    client = await scene.responses(ALICE)
    for _ in range(2):
        with pytest.raises(ResponseError, match="background responses"):
            await client.create(background=True)


async def test_looks_are_bounded_beside_requests(scene: Scene) -> None:
    await scene.open(key("alice", ALICE, max_concurrent=1))
    client = await scene.responses(ALICE)
    async with aclosing(client.stream(background=True)) as events:
        made = (await anext(events))["response"]["id"]
    async with aclosing(client.events(made)) as following:
        await anext(following)
        for look in (client.retrieve(made), client.input_items(made), client.cancel(made)):
            assert await _reason(look) is grpc.StatusCode.RESOURCE_EXHAUSTED
    await eventually(lambda: scene.refused("alice") == 3)
    async with asyncio.timeout(20):
        while await _reason(client.cancel(made)) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            await asyncio.sleep(0.01)
    metadata = (("authorization", f"Bearer {ALICE}"),)
    running = scene.client.chat.Chat(chat_request(), metadata=metadata)
    await running.read()
    assert (await error_of(scene.client.chat.Chat(chat_request(), metadata=metadata))).reason == (
        "RATE_LIMITED"
    )
    assert await client.retrieve(made)
    running.cancel()


async def test_one_caller_leaves_half_of_the_background_to_others(scene: Scene) -> None:
    limits = ResponseSettings(max_background=3)
    await scene.open(key("alice", ALICE), key("bob", BOB), responses=limits)
    alice, bob = await scene.responses(ALICE), await scene.responses(BOB)
    first = await alice.create(background=True)
    await alice.create(background=True)
    with pytest.raises(ResponseError, match="2 background responses of yours"):
        await alice.create(background=True)
    await bob.create(background=True)
    with pytest.raises(ResponseError, match="3 background responses, as many as it may"):
        await bob.create(background=True)
    await alice.cancel(first["id"])
    await bob.create(background=True)
