"""Tool calls and reasoning over the typed API: an engine that writes what it is asked to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.worker.engines import create
from services.worker.engines.scripted.pace import Pace
from services.worker.engines.scripted.settings import ScriptedSettings
from services.worker.server import running as running_worker
from services.worker.settings import WorkerSettings
from tests.fakes.gateway_mesh import Client, chat_request, controller, error_of, gateway
from tests.fakes.tiny_format import TinyFormat
from tests.integration.test_gateway_converse import Request, Talk
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2

MODEL = "writing"
CALL = '<tool_call>f {"a": 1}</tool_call>'
THOUGHT = "<think>hm, hm</think>"
WITH_TOOL = mesh_chat_pb2.ChatPrompt(tools=[mesh_chat_pb2.Tool(name="f")])


@asynccontextmanager
async def writing(pace: Pace | None = None, *, is_parsed: bool = True) -> AsyncIterator[Client]:
    scripted = ScriptedSettings(
        model_names=(MODEL,),
        pace=pace or Pace(),
        repeats=True,
        chat_format=TinyFormat() if is_parsed else None,
    )
    engine = create("scripted", scripted)
    await engine.start()
    async with controller() as address:
        worker_settings = WorkerSettings(
            engine=scripted, port=0, controllers=(address,), grace_period_s=0.0
        )
        async with (
            running_worker(worker_settings, engine, CollectorRegistry()),
            gateway(address) as client,
        ):
            await client.wait_served(1, MODEL)
            yield client


def asked(text: str, **sampling: Any) -> chat_pb2.ChatRequest:
    request = chat_request(text, model=MODEL, **sampling)
    request.prompt.tools.add(name="f")
    return request


def deltas_of(responses: Iterable[Any]) -> list[mesh_chat_pb2.ToolCallDelta]:
    return [
        delta
        for response in responses
        if response.WhichOneof("event") == "chunk"
        for delta in response.chunk.tool_calls
    ]


async def test_a_call_streams_its_id_and_name_first_then_its_arguments() -> None:
    async with writing(Pace(token_interval_s=0.002)) as client:
        call = client.chat.Chat(asked(f"{THOUGHT}Ah{CALL}"))
        responses = [response async for response in call]
    first, *further = deltas_of(responses)
    assert first.id.startswith("call_")
    assert first.name == "f"
    assert further
    assert not any(each.HasField("id") or each.HasField("name") for each in further)
    assert first.arguments + "".join(each.arguments for each in further) == '{"a": 1}'
    chunks = [each.chunk for each in responses if each.WhichOneof("event") == "chunk"]
    assert "".join(each.text for each in chunks) == "Ah"
    assert "".join(each.reasoning for each in chunks) == "hm, hm"
    # What is between gateways and workers does not show.
    for each in chunks:
        told = each.SerializeToString()
        each.DiscardUnknownFields()
        assert each.SerializeToString() == told
    *_, finished, completed = responses
    assert finished.finished.reason == generation_pb2.FINISH_REASON_TOOL_CALLS
    assert completed.completed.usage.reasoning_tokens > 0


async def test_calls_and_reasoning_are_counted() -> None:
    async with writing() as client:
        for text in (f"{THOUGHT}{CALL}{CALL}", CALL, "plain"):
            answer = [response async for response in client.chat.Chat(asked(text))]
            assert answer[-1].WhichOneof("event") == "completed"
        assert client.metric("tokenmesh_gateway_tool_calls_total", model=MODEL) == 3
        reasoning = {"model": MODEL, "kind": "reasoning"}
        assert client.metric("tokenmesh_gateway_tokens_total", **reasoning) == len("hm, hm") + 1


async def test_a_held_conversation_keeps_calls_for_the_results_to_come() -> None:
    opening = Request(open=Request.Open(model=MODEL, prompt=WITH_TOOL))
    async with writing() as client:
        talk = Talk(client)
        message = asked(f"{THOUGHT}Ah {CALL}").prompt.messages[0]
        await talk.send(opening, Request(turn=Request.Turn(number=1, messages=[message])))
        first = deltas_of(await talk.until("completed"))[0]
        result = mesh_chat_pb2.Message(
            role=mesh_chat_pb2.ROLE_TOOL,
            tool_call_id=first.id,
            content=[mesh_chat_pb2.ContentPart(text="42")],
        )
        await talk.send(Request(turn=Request.Turn(number=2, messages=[result])))
        answer = await talk.until("completed", "failed")
        assert "".join(each.chunk.text for each in answer) == "42"
        assert answer[-1].WhichOneof("event") == "completed"
        await talk.call.done_writing()


async def test_a_call_that_is_interrupted_was_not_made() -> None:
    opening = Request(open=Request.Open(model=MODEL, prompt=WITH_TOOL))
    long_call = "Ah" + CALL.replace("1", "1" * 2000)
    async with writing(Pace(token_interval_s=0.002)) as client:
        talk = Talk(client)
        messages = list(asked(long_call).prompt.messages)
        await talk.send(opening, Request(turn=Request.Turn(number=1, messages=messages)))
        seen: list[Any] = []
        while not any(each.arguments for each in deltas_of(seen)):
            seen += await talk.until("chunk")
        await talk.send(Request(interrupt=Request.Interrupt()))
        await talk.until("interrupted")
        # A prompt with half a call in it could not be rendered by many templates.
        again = Request.Turn(number=2, messages=asked("And now?").prompt.messages)
        await talk.send(Request(turn=again))
        answer = await talk.until("completed", "failed")
        assert "".join(each.chunk.text for each in answer) == "And now?"
        await talk.call.done_writing()


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        ({"mode": mesh_chat_pb2.TOOL_CHOICE_MODE_REQUIRED}, "prompt.tool_choice"),
        ({"name": "f"}, "prompt.tool_choice"),
    ],
    ids=["required", "named"],
)
async def test_who_cannot_be_made_to_call_is_not_asked_to(
    choice: dict[str, Any], field: str
) -> None:
    async with writing() as client:
        request = asked("a")
        request.prompt.tool_choice.CopyFrom(mesh_chat_pb2.ToolChoice(**choice))
        error = await error_of(client.chat.Chat(request))
        assert (error.reason, error.field) == ("CAPABILITY_MISSING", field)


async def test_a_model_without_a_format_is_given_no_tools() -> None:
    async with writing(is_parsed=False) as client:
        error = await error_of(client.chat.Chat(asked("a")))
        assert (error.reason, error.field) == ("CAPABILITY_MISSING", "prompt.tools")
