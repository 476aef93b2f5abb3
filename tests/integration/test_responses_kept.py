"""Responses that are kept: where, for whom, and what happens where they cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.gateway.keys.hashing import digest_of
from services.gateway.keys.key import Key
from services.gateway.openai.responses.settings import ResponseSettings
from tests.fakes.fake_worker import FakeRequest, FakeWorker, say_hello
from tests.fakes.gateway_mesh import eventually, gateway
from tests.fakes.response_gateways import Gateways, error_of, response_gateways
from tests.fakes.responses_client import ResponseError, ResponsesClient


@pytest.fixture
async def gateways() -> AsyncIterator[Gateways]:
    async with response_gateways() as gateways:
        yield gateways


@pytest.fixture
def worker(gateways: Gateways) -> FakeWorker:
    return gateways.worker


@pytest.fixture
async def client(gateways: Gateways) -> ResponsesClient:
    _, client = await gateways.open()
    return client


@pytest.fixture
def file(tmp_path: Path) -> ResponseSettings:
    return ResponseSettings(db=str(tmp_path / "responses.sqlite"))


async def test_what_is_not_stored_is_not_found(client: ResponsesClient) -> None:
    response = await client.create(store=False)
    assert response["store"] is False
    for call in (
        client.retrieve(response["id"]),
        client.delete(response["id"]),
        client.cancel(response["id"]),
        client.input_items(response["id"]),
    ):
        missing = await error_of(call)
        assert missing.code is grpc.StatusCode.NOT_FOUND
        assert missing.message == f"Response with id '{response['id']}' not found."
    missing = await error_of(client.create(previous_response_id=response["id"]))
    assert missing.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (missing.param, missing.reason) == (
        "previous_response_id",
        "previous_response_not_found",
    )


async def test_a_stored_response_is_given_back_and_forgotten(client: ResponsesClient) -> None:
    response = await client.create()
    assert await client.retrieve(response["id"]) == response
    told = {"id": response["id"], "object": "response", "deleted": True}
    assert await client.delete(response["id"]) == told
    assert (await error_of(client.retrieve(response["id"]))).code is grpc.StatusCode.NOT_FOUND


async def test_a_conversation_with_a_gap_says_so(client: ResponsesClient) -> None:
    first = await client.create()
    second = await client.create(previous_response_id=first["id"])
    await client.delete(first["id"])
    broken = await error_of(client.create(previous_response_id=second["id"]))
    assert first["id"] in broken.message
    assert broken.reason == "previous_response_not_found"


async def test_responses_outlive_their_gateway(gateways: Gateways, file: ResponseSettings) -> None:
    async with gateways.brief(responses=file) as client:
        response = await client.create()
    _, client = await gateways.open(responses=file)
    assert await client.retrieve(response["id"]) == response
    assert (await client.create(previous_response_id=response["id"]))["status"] == "completed"


async def test_what_ends_while_a_gateway_stops_is_stored(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings
) -> None:
    go_on = asyncio.Event()

    async def wait(request: FakeRequest) -> None:
        await go_on.wait()
        await say_hello(request)

    worker.script = wait
    async with AsyncExitStack() as stack:
        async with gateway(
            gateways.controller_address, responses=file, grace_period_s=30.0
        ) as first:
            await first.wait_served(1)
            client = await stack.enter_async_context(ResponsesClient(first.address))
            asked = asyncio.create_task(client.create())
            await eventually(lambda: bool(worker.running))
            asyncio.get_running_loop().call_later(0.05, go_on.set)
        response = await asked
    assert response["store"]
    _, client = await gateways.open(responses=file)
    assert await client.retrieve(response["id"]) == response


async def test_a_store_that_fails_takes_no_answer_with_it(
    gateways: Gateways, file: ResponseSettings
) -> None:
    Path(file.db).write_bytes(b"no database" * 1_000)
    gateway_client, client = await gateways.open(responses=file)
    response = await client.create()
    assert (response["status"], response["store"]) == ("completed", False)
    assert gateway_client.metric("tokenmesh_gateway_responses_unstored_total") == 1
    assert (await client.create(store=False))["status"] == "completed"
    for call in (
        client.create(store=True),
        client.create(background=True),
        client.create(previous_response_id="resp_1"),
        client.retrieve("resp_1"),
        client.delete("resp_1"),
    ):
        error = await error_of(call)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert error.reason == "response_store_unavailable"
        assert "not a database" in error.message


async def test_responses_belong_to_the_key_that_made_them(gateways: Gateways) -> None:
    keys = {name: f"the key of {name}, which nobody guesses" for name in ("alice", "bob")}
    gateway_client, alice = await gateways.open(
        key=keys["alice"],
        api_keys=tuple(Key(name, digest_of(text)) for name, text in keys.items()),
    )
    bob = await gateways.client(gateway_client, keys["bob"])
    response = await _when_served(alice)
    for call in (
        bob.retrieve(response["id"]),
        bob.delete(response["id"]),
        bob.cancel(response["id"]),
        bob.input_items(response["id"]),
        bob.create(input=[{"type": "item_reference", "id": response["output"][0]["id"]}]),
    ):
        assert (await error_of(call)).code is grpc.StatusCode.NOT_FOUND
    stolen = await error_of(bob.create(previous_response_id=response["id"]))
    assert stolen.reason == "previous_response_not_found"
    assert await alice.retrieve(response["id"]) == response


async def _when_served(client: ResponsesClient) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.create()
            except ResponseError as error:
                if error.code is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.01)
