"""ChatService.Converse: turns, interrupts and failures of a conversation that the server keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.mesh.errors import InternalError
from tests.fakes.fake_worker import MODEL, FakeWorker, failing, say_hello, start_and_hang
from tests.fakes.gateway_mesh import Client, controller, error_of, eventually, gateway
from tokenmesh.gateway.v1 import chat_pb2
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2

Request = chat_pb2.ConverseRequest
INVALID_ARGUMENT = 3
INTERNAL = 13


def user(text: str) -> mesh_chat_pb2.Message:
    return mesh_chat_pb2.Message(
        role=mesh_chat_pb2.ROLE_USER, content=[mesh_chat_pb2.ContentPart(text=text)]
    )


def opening(model: str = MODEL, *messages: mesh_chat_pb2.Message) -> Request:
    prompt = mesh_chat_pb2.ChatPrompt(messages=messages)
    return Request(open=Request.Open(model=model, prompt=prompt))


def turn(number: int, *texts: str, **fields: Any) -> Request:
    messages = [user(text) for text in texts]
    return Request(turn=Request.Turn(number=number, messages=messages, **fields))


INTERRUPT = Request(interrupt=Request.Interrupt())


class Talk:
    """A Converse call, frame by frame."""

    def __init__(self, client: Client) -> None:
        self.call = client.chat.Converse()

    async def send(self, *frames: Request) -> None:
        for frame in frames:
            await self.call.write(frame)

    async def until(self, *events: str) -> list[chat_pb2.ConverseResponse]:
        """The events up to the first of one of these kinds."""
        seen: list[chat_pb2.ConverseResponse] = []
        async with asyncio.timeout(20):
            while not seen or seen[-1].WhichOneof("event") not in events:
                seen.append(await self.call.read())
        return seen


@asynccontextmanager
async def talking(script: Any = say_hello) -> AsyncIterator[tuple[FakeWorker, Talk]]:
    async with (
        controller() as address,
        FakeWorker([address], script) as worker,
        gateway(address) as client,
    ):
        await client.wait_served(1)
        yield worker, Talk(client)


def said(worker: FakeWorker, index: int) -> list[tuple[str, str]]:
    """The conversation that a request of the worker was given."""
    return [
        (mesh_chat_pb2.Role.Name(message.role).removeprefix("ROLE_"), message.content[0].text)
        for message in worker.starts[index].chat.messages
    ]


async def test_the_server_keeps_what_was_said() -> None:
    async with talking() as (worker, talk):
        await talk.send(opening(MODEL, user("Before.")), turn(1, "Hi"))
        first = await talk.until("completed")
        await talk.send(turn(2, "And?"))
        second = await talk.until("completed")
        await talk.call.done_writing()
        async with asyncio.timeout(20):
            assert (await talk.call.code()).name == "OK"
    assert first[0].WhichOneof("event") == "started"
    assert "".join(event.chunk.text for event in first) == "Hello"
    assert {event.turn_number for event in first} == {1}
    assert {event.turn_number for event in second} == {2}
    assert second[-1].completed.usage.completion_tokens == 2
    assert said(worker, 1) == [
        ("USER", "Before."),
        ("USER", "Hi"),
        ("ASSISTANT", "Hello"),
        ("USER", "And?"),
    ]


async def test_an_interrupt_stops_the_work_and_keeps_what_was_said() -> None:
    async with talking(start_and_hang) as (worker, talk):
        await talk.send(opening(), turn(1, "Hi"))
        await talk.until("chunk")
        await talk.send(INTERRUPT)
        events = await talk.until("interrupted")
        assert events[-1].interrupted.usage.completion_tokens == 1
        assert events[-1].interrupted.usage.prompt_tokens == 3
        await eventually(lambda: not worker.running)
        assert worker.aborted
        worker.script = say_hello
        await talk.send(INTERRUPT, turn(2, "Go on"))
        await talk.until("completed")
    assert said(worker, 1) == [("USER", "Hi"), ("ASSISTANT", "Hel"), ("USER", "Go on")]


async def test_a_turn_that_fails_leaves_the_conversation_as_it_was() -> None:
    async with talking(failing(InternalError("a bug"))) as (worker, talk):
        await talk.send(opening(), turn(1, "Hi"))
        failed = (await talk.until("failed"))[-1]
        assert failed.turn_number == 1
        assert (failed.failed.code, failed.failed.reason) == (INTERNAL, "INTERNAL")
        hot = generation_pb2.SamplingParameters(temperature=9)
        several = generation_pb2.SamplingParameters(choices=2)
        for number, sampling, field in (
            (2, hot, "sampling.temperature"),
            (3, several, "sampling.choices"),
        ):
            await talk.send(turn(number, "Hi", sampling=sampling))
            failed = (await talk.until("failed"))[-1]
            assert failed.failed.field == field
            assert failed.failed.code == INVALID_ARGUMENT
        worker.script = say_hello
        await talk.send(turn(4, "Again"))
        await talk.until("completed")
    assert said(worker, -1) == [("USER", "Again")]


async def test_a_turn_during_an_answer_has_to_wait() -> None:
    async with talking(start_and_hang) as (_, talk):
        await talk.send(opening(), turn(1, "Hi"))
        await talk.until("chunk")
        await talk.send(turn(2, "Hurry"))
        refused = (await talk.until("failed"))[-1]
        assert refused.turn_number == 2
        assert refused.failed.reason == "TURN_IN_PROGRESS"
        await talk.send(INTERRUPT)
        assert (await talk.until("interrupted"))[-1].turn_number == 1


async def test_an_answer_ends_though_the_client_sends_no_more() -> None:
    async with talking() as (_, talk):
        await talk.send(opening(), turn(1, "Hi"))
        await talk.call.done_writing()
        events = await talk.until("completed")
        assert "".join(event.chunk.text for event in events) == "Hello"


async def test_a_client_that_leaves_aborts_the_answer() -> None:
    async with talking(start_and_hang) as (worker, talk):
        await talk.send(opening(), turn(1, "Hi"))
        await talk.until("chunk")
        talk.call.cancel()
        await eventually(lambda: not worker.running)


async def test_conversations_are_bounded() -> None:
    async with controller() as address, gateway(address, max_conversations=1) as client:
        held = client.chat.Converse()
        await held.write(opening())
        await held.write(turn(1, "Hi"))
        assert (await held.read()).failed.reason == "NO_WORKER"
        error = await error_of(client.chat.Converse(aiter_of([opening()])))
        assert error.reason == "QUEUE_FULL"
        held.cancel()


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        ([turn(1, "Hi")], "FAILED_PRECONDITION", "OPEN_EXPECTED"),
        ([opening(), opening()], "FAILED_PRECONDITION", "OPEN_REPEATED"),
        ([opening(), Request()], "INVALID_ARGUMENT", "FRAME_EMPTY"),
        ([opening(MODEL, mesh_chat_pb2.Message())], "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ],
    ids=["turn first", "opened twice", "empty frame", "malformed history"],
)
async def test_frames_out_of_order(frames: list[Request], code: str, reason: str) -> None:
    async with controller() as address, gateway(address) as client:
        error = await error_of(client.chat.Converse(aiter_of(frames)))
    assert (error.code, error.reason) == (code, reason)


async def aiter_of(frames: list[Request]) -> AsyncIterator[Request]:
    for frame in frames:
        yield frame
