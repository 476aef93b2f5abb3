"""A bug in the gateway shows itself to clients as an error without internals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
import pytest
from google.rpc import status_pb2

from services.gateway.discovery.directory import Directory
from services.gateway.discovery.fleet import Model, Worker
from services.gateway.openai.responses.service import Responses
from services.gateway.openai.services import add_openai_services
from services.gateway.relay.caller import Caller
from services.mesh import errors
from services.mesh.server import MeshServer
from services.mesh.status import REQUEST_ID_KEY, STATUS_DETAILS_KEY
from tokenmesh.openai.v1 import chat_pb2, chat_pb2_grpc, completion_pb2, completion_pb2_grpc
from tokenmesh.openai.v1.error_pb2 import Error
from tokenmesh.worker.v1 import worker_pb2

if TYPE_CHECKING:
    from tokenmesh.openai.v1.chat_pb2_grpc import ChatCompletionServiceAsyncStub
    from tokenmesh.openai.v1.completion_pb2_grpc import CompletionServiceAsyncStub

LIMIT_S = 30.0
SECRET = "a secret of the inside"


class ScriptedGeneration:
    """Gives some events, then fails."""

    model = "m"
    created_at_s = 1.0
    seed = 1

    def __init__(self, events: Sequence[worker_pb2.SequenceEvent], error: Exception | None) -> None:
        self._events = list(events)
        self._error = error
        self.was_left = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.was_left = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Sequence[worker_pb2.SequenceEvent]:
        if self._events:
            return [self._events.pop(0)]
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def abandon(self) -> None:
        self.was_left = True


class ScriptedRelay:
    """Hands out prepared generations."""

    def __init__(self) -> None:
        self.generations: list[ScriptedGeneration] = []
        self._next = 0

    def generate(
        self, start: worker_pb2.Start, *, caller: Caller, time_left_s: float | None, whole: bool
    ) -> Any:
        self._next += 1
        return self.generations[self._next - 1]


@pytest.fixture
def relay() -> ScriptedRelay:
    return ScriptedRelay()


@pytest.fixture
async def channel(relay: ScriptedRelay) -> AsyncIterator[grpc.aio.Channel]:
    server = MeshServer("127.0.0.1", 0)
    stand_in: Any = relay
    directory = Directory(clock_s=lambda: 0.0)
    worker = Worker("w", "i", "127.0.0.1:1", (Model("m"),))
    directory.apply_snapshot("controller", [worker], is_complete=True)
    responses = Responses(stand_in, stand_in, stand_in)
    names = add_openai_services(
        server.grpc, stand_in, directory, stand_in, responses, encode_relay=stand_in
    )
    await server.start(names)
    async with grpc.aio.insecure_channel(server.address) as opened:
        yield opened
    await server.stop(0)


def chat_request(**fields: Any) -> chat_pb2.CreateChatCompletionRequest:
    request = chat_pb2.CreateChatCompletionRequest(model="m", **fields)
    message = request.messages.add().struct_value.fields
    message["role"].string_value = "user"
    message["content"].string_value = "Hello"
    return request


def text_event(text: str) -> worker_pb2.SequenceEvent:
    return worker_pb2.SequenceEvent(chunk=worker_pb2.Chunk(text=text, token_ids=[1]))


def detail_of(error: grpc.aio.AioRpcError) -> Error:
    """The one detail of a failed call."""
    packed = dict(error.trailing_metadata() or ())[STATUS_DETAILS_KEY]
    assert isinstance(packed, bytes)
    (any_detail,) = status_pb2.Status.FromString(packed).details
    detail = Error()
    assert any_detail.Unpack(detail)
    return detail


async def test_a_bug_before_the_first_token(
    relay: ScriptedRelay, channel: grpc.aio.Channel
) -> None:
    relay.generations = [ScriptedGeneration([], ValueError(SECRET))]
    stub: ChatCompletionServiceAsyncStub = chat_pb2_grpc.ChatCompletionServiceStub(channel)
    call = stub.CreateChatCompletion(
        chat_request(stream=True), timeout=LIMIT_S, metadata=((REQUEST_ID_KEY, "r-1"),)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    detail = detail_of(caught.value)
    assert detail.type == "server_error"
    assert "r-1" in detail.message
    assert SECRET not in str(caught.value)
    assert relay.generations[0].was_left


async def test_a_bug_within_a_stream_is_its_last_event(
    relay: ScriptedRelay, channel: grpc.aio.Channel
) -> None:
    relay.generations = [ScriptedGeneration([text_event("a")], ValueError(SECRET))]
    stub: ChatCompletionServiceAsyncStub = chat_pb2_grpc.ChatCompletionServiceStub(channel)
    call = stub.CreateChatCompletion(chat_request(stream=True), timeout=LIMIT_S)
    bodies = [body.data async for body in call]
    assert await call.code() is grpc.StatusCode.OK
    assert bodies[-1].startswith(b'data: {"error":{"message":"internal error')
    assert b"[DONE]" not in b"".join(bodies)
    assert SECRET.encode() not in b"".join(bodies)


async def test_one_failing_prompt_fails_the_call_and_leaves_all_others(
    relay: ScriptedRelay, channel: grpc.aio.Channel
) -> None:
    relay.generations = [
        ScriptedGeneration([text_event("a")] * 3, None),
        ScriptedGeneration([], errors.QueueFullError("full", retry_after_s=2)),
    ]
    request = completion_pb2.CreateCompletionRequest(model="m")
    for prompt in ("one", "two"):
        request.prompt.list_value.values.add().string_value = prompt
    stub: CompletionServiceAsyncStub = completion_pb2_grpc.CompletionServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.CreateCompletion(request, timeout=LIMIT_S):
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail_of(caught.value).type == "rate_limit_error"
    assert dict(caught.value.trailing_metadata() or ())["retry-after"] == "2"
    assert all(generation.was_left for generation in relay.generations)
