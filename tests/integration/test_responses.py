"""/v1/responses at a real gateway over real gRPC, with a worker that runs the tests' scripts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest

from services.mesh.errors import ContextLengthError, WorkerLostError
from tests.fakes.fake_worker import (
    FakeRequest,
    FakeWorker,
    failing,
    say_hello,
    start_and_hang,
)
from tests.fakes.gateway_mesh import eventually
from tests.fakes.response_gateways import Gateways, error_of, response_gateways
from tests.fakes.responses_client import ResponsesClient
from tokenmesh.mesh.v1 import chat_pb2, generation_pb2

ADD = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}


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
