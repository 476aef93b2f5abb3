"""Responses that nobody waits for, and the gateways that make them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.gateway.openai.responses import archive, background
from services.gateway.openai.responses.settings import ResponseSettings
from services.mesh.errors import ContextLengthError
from tests.fakes.fake_worker import (
    FakeRequest,
    FakeWorker,
    failing,
    say_hello,
    start_and_hang,
)
from tests.fakes.gateway_mesh import eventually
from tests.fakes.response_gateways import Gateways, all_of, ended, error_of, response_gateways
from tests.fakes.responses_client import ResponsesClient


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


async def test_background(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = start_and_hang
    response = await client.create(background=True)
    assert (response["status"], response["background"]) == ("queued", True)
    await eventually(lambda: bool(worker.running))
    early = await error_of(client.create(previous_response_id=response["id"]))
    assert "in_progress" in early.message or "queued" in early.message
    unstreamed = await error_of(all_of(client.events(response["id"])))
    assert unstreamed.param == "stream"
    cancelled = await client.cancel(response["id"])
    assert cancelled["status"] == "cancelled"
    assert cancelled["output"][0]["content"][0]["text"] == "Hel"
    await eventually(lambda: not worker.running)
    assert await client.cancel(response["id"]) == cancelled


async def test_a_background_response_ends_by_itself(client: ResponsesClient) -> None:
    response = await ended(client, (await client.create(background=True))["id"])
    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "Hello"
    late = await error_of(client.cancel(response["id"]))
    assert late.message == "Cannot cancel a completed response."
    second = await client.create(previous_response_id=response["id"])
    assert second["status"] == "completed"
    sync = await error_of(client.cancel(second["id"]))
    assert sync.message == "Cannot cancel a synchronous response."


async def test_a_background_response_that_fails(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    worker.script = failing(ContextLengthError("prompt.messages[0] is too long"))
    response = await ended(client, (await client.create(background=True))["id"])
    assert response["status"] == "failed"
    assert response["error"] == {"code": "invalid_prompt", "message": "input is too long"}


async def test_what_cannot_run_in_the_background_is_told_at_once(gateways: Gateways) -> None:
    gateway_client, client = await gateways.open()
    await gateway_client.wait_complete()
    unknown = await error_of(client.create(background=True, model="nobody"))
    assert unknown.reason == "model_not_found"
    image = [{"type": "input_image", "image_url": "https://example.org/a.png"}]
    refused = await error_of(
        client.create(background=True, input=[{"role": "user", "content": image}])
    )
    assert refused.param == "input[0].content[0]"


async def test_events_can_be_followed_again(worker: FakeWorker, client: ResponsesClient) -> None:
    go_on = asyncio.Event()

    async def wait_between(request: FakeRequest) -> None:
        await request.started()
        await request.chunk("Hel", [1])
        await go_on.wait()
        await request.chunk("lo", [2])
        await request.finish(completion_tokens=2)

    worker.script = wait_between
    first: list[dict[str, Any]] = []
    async for event in client.stream(background=True):
        first.append(event)
        if event["type"] == "response.output_text.delta":
            break
    assert [event["type"] for event in first[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    response_id = first[0]["response"]["id"]
    following = asyncio.create_task(
        all_of(client.events(response_id, first[-1]["sequence_number"]))
    )
    await asyncio.sleep(0)
    go_on.set()
    rest = await following
    numbers = [event["sequence_number"] for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
    # Once it has ended, its events come from the store.
    assert await all_of(client.events(response_id)) == [*first, *rest]
    assert await all_of(client.events(response_id, len(numbers) - 2)) == rest[-1:]


async def test_background_responses_are_bounded(worker: FakeWorker, gateways: Gateways) -> None:
    worker.script = start_and_hang
    gateway_client, client = await gateways.open(responses=ResponseSettings(max_background=1))
    first = await client.create(background=True)
    full = await error_of(client.create(background=True))
    assert full.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    running = "tokenmesh_gateway_background_responses_running"
    assert gateway_client.metric(running) == 1
    await client.delete(first["id"])
    await eventually(lambda: gateway_client.metric(running) == 0)
    assert (await client.create(background=True))["status"] == "queued"


async def test_two_cancels_at_once(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = start_and_hang
    response = await client.create(background=True)
    await eventually(lambda: bool(worker.running))
    first, second = await asyncio.gather(
        client.cancel(response["id"]), client.cancel(response["id"])
    )
    assert first == second
    assert first["status"] == "cancelled"


async def test_a_gateway_that_stops_says_so_of_what_it_leaves(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings
) -> None:
    worker.script = start_and_hang
    async with gateways.brief(responses=file) as client:
        response = await client.create(background=True)
        await eventually(lambda: bool(worker.running))
    _, client = await gateways.open(responses=file)
    failed = await client.retrieve(response["id"])
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": background.STOPPED}
    await eventually(lambda: not worker.running)


async def test_a_gateway_that_stops_waits_for_what_ends_in_time(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings
) -> None:
    go_on = asyncio.Event()

    async def wait(request: FakeRequest) -> None:
        await go_on.wait()
        await say_hello(request)

    worker.script = wait
    async with gateways.brief(responses=file, grace_period_s=30.0) as client:
        response = await client.create(background=True)
        await eventually(lambda: bool(worker.running))
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    _, client = await gateways.open(responses=file)
    assert (await client.retrieve(response["id"]))["status"] == "completed"


async def test_a_gateway_that_died_is_told_of(
    worker: FakeWorker,
    gateways: Gateways,
    file: ResponseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "KEEP_ALIVE_INTERVAL_S", 3600.0)
    worker.script = start_and_hang
    _, client = await gateways.open(responses=file)
    response = await client.create(background=True)
    with sqlite3.connect(file.db) as other:
        other.execute("UPDATE responses SET alive_at_s = alive_at_s - ?", (archive.DEAD_AFTER_S,))
    found = await client.retrieve(response["id"])
    assert found["status"] == "failed"
    assert found["error"]["message"] == archive.DIED


async def test_gateways_of_one_machine_share_what_they_keep(
    worker: FakeWorker,
    gateways: Gateways,
    file: ResponseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "KEEP_ALIVE_INTERVAL_S", 0.05)
    _, one = await gateways.open(responses=file)
    _, other = await gateways.open(responses=file)
    first = await one.create()
    second = await other.create(previous_response_id=first["id"])
    assert await one.retrieve(second["id"]) == second

    worker.script = start_and_hang
    streamed: list[dict[str, Any]] = []
    running = asyncio.create_task(_collect(one.stream(background=True), streamed))
    await eventually(lambda: any(event["type"].endswith("text.delta") for event in streamed))
    response_id = streamed[0]["response"]["id"]
    assert (await other.retrieve(response_id))["status"] == "in_progress"
    following = asyncio.create_task(all_of(other.events(response_id)))
    assert (await other.cancel(response_id))["status"] == "cancelled"
    await running
    assert streamed[-1]["type"] == "error"
    assert streamed[-1]["code"] == "response_cancelled"
    assert await following == streamed
    await eventually(lambda: not worker.running)
    assert (await one.retrieve(response_id))["status"] == "cancelled"


async def _collect(events: AsyncIterator[dict[str, Any]], into: list[dict[str, Any]]) -> None:
    async for event in events:
        into += [event]
