"""/v1/responses at real gateways over real gRPC, with workers that run the tests' scripts."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.gateway.keys.hashing import digest_of
from services.gateway.keys.key import Key
from services.gateway.openai.responses import archive, background
from services.gateway.openai.responses.settings import ResponseSettings
from services.mesh.errors import ContextLengthError, WorkerLostError
from tests.fakes.fake_worker import (
    FakeRequest,
    FakeWorker,
    failing,
    fake_model,
    say_hello,
    start_and_hang,
)
from tests.fakes.gateway_mesh import Client, controller, eventually, gateway
from tests.fakes.responses_client import ResponseError, ResponsesClient
from tokenmesh.mesh.v1 import chat_pb2, generation_pb2, model_pb2

CAPABILITIES = [
    model_pb2.CAPABILITY_CHAT,
    model_pb2.CAPABILITY_TOOLS,
    model_pb2.CAPABILITY_CONSTRAINED_DECODING,
]
ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
ENDED = ("completed", "failed", "incomplete", "cancelled")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    async with controller() as address:
        yield address


@pytest.fixture
async def worker(address: str) -> AsyncIterator[FakeWorker]:
    async with FakeWorker([address], models=[fake_model(capabilities=CAPABILITIES)]) as worker:
        yield worker


class Gateways:
    """Opens gateways, and clients for them, until the test ends."""

    def __init__(self, controller_address: str, stack: AsyncExitStack) -> None:
        self._controller_address = controller_address
        self._stack = stack

    async def open(
        self, *, key: str | None = None, **settings: Any
    ) -> tuple[Client, ResponsesClient]:
        client = await self._stack.enter_async_context(
            gateway(self._controller_address, **settings)
        )
        if "api_keys" not in settings:
            await client.wait_served(1)
        return client, await self.client(client, key)

    async def client(self, client: Client, key: str | None = None) -> ResponsesClient:
        return await self._stack.enter_async_context(ResponsesClient(client.address, key))


@pytest.fixture
async def gateways(address: str, worker: FakeWorker) -> AsyncIterator[Gateways]:
    async with AsyncExitStack() as stack:
        yield Gateways(address, stack)


@pytest.fixture
async def client(gateways: Gateways) -> ResponsesClient:
    _, client = await gateways.open()
    return client


@pytest.fixture
def file(tmp_path: Path) -> ResponseSettings:
    return ResponseSettings(db=str(tmp_path / "responses.sqlite"))


async def ended(client: ResponsesClient, response_id: str) -> dict[str, Any]:
    """A background response, once it has ended."""
    async with asyncio.timeout(20):
        while (found := await client.retrieve(response_id))["status"] not in ENDED:
            await asyncio.sleep(0.01)
    return found


async def error_of(call: Any) -> ResponseError:
    with pytest.raises(ResponseError) as raised:
        await call
    return raised.value


async def add_with_a_tool(request: FakeRequest) -> None:
    """Thinks and calls a tool; says what came of it once that is in the conversation."""
    await request.started()
    if request.start.chat.messages[-1].role == chat_pb2.ROLE_TOOL:
        await request.chunk("It is 3.", [4])
        await request.finish()
        return
    await request.output(reasoning="Hm.", token_ids=[1], reasoning_tokens=1)
    call = chat_pb2.ToolCallDelta(index=0, id="call_1", name="add", arguments='{"a":')
    await request.output(tool_calls=[call], token_ids=[2])
    more = chat_pb2.ToolCallDelta(index=0, arguments="1}")
    await request.output(tool_calls=[more], token_ids=[3])
    await request.finish(reason=generation_pb2.FINISH_REASON_TOOL_CALLS)


async def test_tools_over_two_turns(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = add_with_a_tool
    events = [event async for event in client.stream(input="1 + 2?", tools=[ADD])]
    response = events[-1]["response"]
    assert events[-1]["type"] == "response.completed"
    reasoning, call = response["output"]
    assert (call["call_id"], call["arguments"]) == ("call_1", '{"a":1}')
    second = await client.create(
        previous_response_id=response["id"],
        input=[{"type": "function_call_output", "call_id": call["call_id"], "output": "3"}],
        tools=[ADD],
    )
    assert second["output"][0]["content"][0]["text"] == "It is 3."
    user, assistant, tool = worker.starts[-1].chat.messages
    assert user.content[0].text == "1 + 2?"
    assert assistant.reasoning == reasoning["content"][0]["text"] == "Hm."
    assert assistant.tool_calls[0].arguments == '{"a":1}'
    assert tool.tool_call_id == "call_1"

    items = await client.input_items(second["id"], order="asc")
    kinds = [item["type"] for item in items["data"]]
    assert kinds == ["message", "reasoning", "function_call", "function_call_output"]
    assert items["first_id"] == items["data"][0]["id"]
    assert items["last_id"] == items["data"][-1]["id"]
    assert not items["has_more"]


async def test_the_same_turns_by_reference(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = add_with_a_tool
    first = await client.create(input="1 + 2?", tools=[ADD])
    await client.create(
        input=[
            {"role": "user", "content": "1 + 2?"},
            *({"type": "item_reference", "id": item["id"]} for item in first["output"]),
            {"type": "function_call_output", "call_id": "call_1", "output": "3"},
        ]
    )
    _, assistant, _ = worker.starts[-1].chat.messages
    assert (assistant.reasoning, assistant.tool_calls[0].name) == ("Hm.", "add")
    missing = await error_of(client.create(input=[{"type": "item_reference", "id": "msg_nowhere"}]))
    assert (missing.code, missing.param) == (grpc.StatusCode.NOT_FOUND, "input[0].id")
    doubled = await error_of(
        client.create(
            previous_response_id=first["id"],
            input=[{"type": "item_reference", "id": first["output"][0]["id"]}],
        )
    )
    assert (doubled.code, doubled.param) == (grpc.StatusCode.INVALID_ARGUMENT, "input[0].id")


async def test_instructions_are_those_of_one_response(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    first = await client.create(instructions="Be brief.")
    await client.create(previous_response_id=first["id"], input="And?")
    texts = [message.content[0].text for message in worker.starts[-1].chat.messages]
    assert texts == ["Hi", "Hello", "And?"]


async def test_the_oldest_turns_are_left_out_where_they_do_not_fit(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    previous = None
    for number in range(6):
        response = await client.create(
            instructions="Be brief.",
            input=f"Question {number}.",
            previous_response_id=previous,
            truncation="auto",
        )
        previous = response["id"]
    # A worker that counts characters has room for the instructions, three questions and two
    # answers; a token is left for the next one.
    texts = [message.content[0].text for message in worker.starts[-1].chat.messages]
    assert texts == ["Be brief.", "Question 3.", "Hello", "Question 4.", "Hello", "Question 5."]
    assert len((await client.input_items(response["id"]))["data"]) == 11


async def test_a_schema_reaches_the_worker(worker: FakeWorker, client: ResponsesClient) -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    response = await client.create(text={"format": form})
    assert worker.starts[-1].sampling.constraint.json_schema.strict
    assert response["text"]["format"] == {**form, "description": None}


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


async def test_an_error_before_the_first_token_has_its_status(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    worker.script = failing(ContextLengthError("prompt.messages[0] is too long"))
    for stream in (False, True):
        error = await error_of(client.create(stream=stream))
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT
        assert error.message == "input is too long"


async def test_an_error_later_is_the_last_event(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    async def break_off(request: FakeRequest) -> None:
        await request.started()
        await request.chunk("Hel", [1])
        await request.fail(ContextLengthError("too long after all"))

    worker.script = break_off
    events = [event async for event in client.stream()]
    assert events[-1]["type"] == "response.failed"
    failed = events[-1]["response"]
    assert failed["error"] == {"code": "invalid_prompt", "message": "too long after all"}
    assert failed["output"][0]["content"][0]["text"] == "Hel"
    assert await client.retrieve(failed["id"]) == failed


async def test_background(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = start_and_hang
    response = await client.create(background=True)
    assert (response["status"], response["background"]) == ("queued", True)
    await eventually(lambda: bool(worker.running))
    early = await error_of(client.create(previous_response_id=response["id"]))
    assert "in_progress" in early.message or "queued" in early.message
    unstreamed = await error_of(_all(client.events(response["id"])))
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
    following = asyncio.create_task(_all(client.events(response_id, first[-1]["sequence_number"])))
    await asyncio.sleep(0)
    go_on.set()
    rest = await following
    numbers = [event["sequence_number"] for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
    # Once it has ended, its events come from the store.
    assert await _all(client.events(response_id)) == [*first, *rest]
    assert await _all(client.events(response_id, len(numbers) - 2)) == rest[-1:]


async def _all(events: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event async for event in events]


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


async def test_responses_outlive_their_gateway(
    gateways: Gateways, file: ResponseSettings, address: str
) -> None:
    async with gateway(address, responses=file) as first:
        await first.wait_served(1)
        async with ResponsesClient(first.address) as client:
            response = await client.create()
    _, client = await gateways.open(responses=file)
    assert await client.retrieve(response["id"]) == response
    assert (await client.create(previous_response_id=response["id"]))["status"] == "completed"


async def test_a_gateway_that_stops_says_so_of_what_it_leaves(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings, address: str
) -> None:
    worker.script = start_and_hang
    async with gateway(address, responses=file) as first:
        await first.wait_served(1)
        async with ResponsesClient(first.address) as client:
            response = await client.create(background=True)
            await eventually(lambda: bool(worker.running))
    _, client = await gateways.open(responses=file)
    failed = await client.retrieve(response["id"])
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": background.STOPPED}
    await eventually(lambda: not worker.running)


async def test_a_gateway_that_stops_waits_for_what_ends_in_time(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings, address: str
) -> None:
    go_on = asyncio.Event()

    async def wait(request: FakeRequest) -> None:
        await go_on.wait()
        await say_hello(request)

    worker.script = wait
    async with gateway(address, responses=file, grace_period_s=30.0) as first:
        await first.wait_served(1)
        async with ResponsesClient(first.address) as client:
            response = await client.create(background=True)
            await eventually(lambda: bool(worker.running))
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    _, client = await gateways.open(responses=file)
    assert (await client.retrieve(response["id"]))["status"] == "completed"


async def test_what_ends_while_a_gateway_stops_is_stored(
    worker: FakeWorker, gateways: Gateways, file: ResponseSettings, address: str
) -> None:
    go_on = asyncio.Event()

    async def wait(request: FakeRequest) -> None:
        await go_on.wait()
        await say_hello(request)

    worker.script = wait
    async with AsyncExitStack() as stack:
        async with gateway(address, responses=file, grace_period_s=30.0) as first:
            await first.wait_served(1)
            client = await stack.enter_async_context(ResponsesClient(first.address))
            asked = asyncio.create_task(client.create())
            await eventually(lambda: bool(worker.running))
            asyncio.get_running_loop().call_later(0.05, go_on.set)
        response = await asked
    assert response["store"]
    _, client = await gateways.open(responses=file)
    assert await client.retrieve(response["id"]) == response


async def test_two_cancels_at_once(worker: FakeWorker, client: ResponsesClient) -> None:
    worker.script = start_and_hang
    response = await client.create(background=True)
    await eventually(lambda: bool(worker.running))
    first, second = await asyncio.gather(
        client.cancel(response["id"]), client.cancel(response["id"])
    )
    assert first == second
    assert first["status"] == "cancelled"


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
    following = asyncio.create_task(_all(other.events(response_id)))
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


async def test_a_client_that_leaves_ends_its_response(
    worker: FakeWorker, client: ResponsesClient
) -> None:
    worker.script = start_and_hang
    stream = client.stream()
    async for event in stream:
        if event["type"] == "response.output_text.delta":
            break
    await stream.aclose()
    await eventually(lambda: not worker.running)


async def test_a_stream_outlives_its_worker(worker: FakeWorker, client: ResponsesClient) -> None:
    deaths = [WorkerLostError("gone")]

    async def die_once(request: FakeRequest) -> None:
        if not deaths:
            await say_hello(request)
            return
        await request.started()
        await request.chunk("Hel", [1])
        await request.fail(deaths.pop())

    worker.script = die_once
    events = [event async for event in client.stream()]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"
