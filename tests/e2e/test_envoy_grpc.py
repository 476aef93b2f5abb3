"""gRPC passes through the port that serves REST; what services say to each other does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.up.notice import MeshNotice
from services.mesh import status
from services.mesh.errors import InvalidRequestError, ModelNotFoundError
from tests.e2e.conftest import SCRIPTED_MODEL
from tests.e2e.processes import running_envoy, running_service
from tokenmesh.controller.v1 import admin_pb2, admin_pb2_grpc
from tokenmesh.gateway.v1 import chat_pb2, chat_pb2_grpc, model_pb2, model_pb2_grpc
from tokenmesh.mesh.v1 import chat_pb2 as mesh_chat_pb2
from tokenmesh.mesh.v1 import generation_pb2
from tokenmesh.openai.v1 import model_pb2 as openai_model_pb2
from tokenmesh.openai.v1 import model_pb2_grpc as openai_model_pb2_grpc
from tokenmesh.worker.v1 import worker_pb2, worker_pb2_grpc

if TYPE_CHECKING:
    from tokenmesh.gateway.v1.chat_pb2_grpc import ChatServiceAsyncStub
    from tokenmesh.gateway.v1.model_pb2_grpc import ModelServiceAsyncStub

LIMIT_S = 30.0


@pytest.fixture
async def channel(mesh: MeshNotice) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(mesh.grpc_address) as opened:
        yield opened


def user_message(text: str) -> mesh_chat_pb2.Message:
    return mesh_chat_pb2.Message(
        role=mesh_chat_pb2.ROLE_USER, content=[mesh_chat_pb2.ContentPart(text=text)]
    )


def chat_request(model: str = SCRIPTED_MODEL, **sampling: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(
        model=model,
        prompt=mesh_chat_pb2.ChatPrompt(messages=[user_message("Hello")]),
        sampling=generation_pb2.SamplingParameters(**sampling),
    )


async def test_a_chat_streams(channel: grpc.aio.Channel) -> None:
    stub: ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(channel)
    call = stub.Chat(chat_request(max_tokens=5), timeout=LIMIT_S)
    events = [response.WhichOneof("event") async for response in call]
    assert events[0] == "started"
    assert set(events[1:-2]) == {"chunk"}
    assert events[-2:] == ["finished", "completed"]
    assert dict(await call.trailing_metadata() or ())["x-request-id"]


async def test_a_held_conversation_goes_both_ways(channel: grpc.aio.Channel) -> None:
    stub: ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(channel)
    call = stub.Converse(timeout=LIMIT_S)
    opening = chat_pb2.ConverseRequest.Open(
        model=SCRIPTED_MODEL, sampling=generation_pb2.SamplingParameters(max_tokens=3)
    )
    await call.write(chat_pb2.ConverseRequest(open=opening))
    for number in (1, 2):
        turn = chat_pb2.ConverseRequest.Turn(number=number, messages=[user_message("Go on.")])
        await call.write(chat_pb2.ConverseRequest(turn=turn))
        while True:
            event = await call.read()
            assert isinstance(event, chat_pb2.ConverseResponse)
            assert event.turn_number == number
            if event.WhichOneof("event") == "completed":
                break
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF


async def test_errors_keep_their_details(channel: grpc.aio.Channel) -> None:
    stub: ChatServiceAsyncStub = chat_pb2_grpc.ChatServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Chat(chat_request(temperature=9.0), timeout=LIMIT_S):
            pass
    error = status.from_rpc_error(caught.value)
    assert isinstance(error, InvalidRequestError)
    assert error.field == "sampling.temperature"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Chat(chat_request("nobody"), timeout=LIMIT_S):
            pass
    assert isinstance(status.from_rpc_error(caught.value), ModelNotFoundError)


async def test_health(channel: grpc.aio.Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=LIMIT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_what_services_say_to_each_other_is_closed(channel: grpc.aio.Channel) -> None:
    worker: Any = worker_pb2_grpc.WorkerServiceStub(channel)
    admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
    rest: Any = openai_model_pb2_grpc.ModelServiceStub(channel)
    for call in (
        worker.DescribeModels(worker_pb2.DescribeModelsRequest(), timeout=LIMIT_S),
        admin.ListWorkers(admin_pb2.ListWorkersRequest(), timeout=LIMIT_S),
        rest.ListModels(openai_model_pb2.ListModelsRequest(), timeout=LIMIT_S),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_gateway_that_is_gone_is_unavailable(mesh: MeshNotice, folder: Path) -> None:
    (controller,) = mesh.addresses("controller")
    with running_service(folder, "gateway", "--controller", controller) as (process, gateway):
        process.stop()
    with running_envoy(folder, gateway.address) as edge:
        address = f"{edge.listen_host}:{edge.listen_port}"
        async with grpc.aio.insecure_channel(address) as channel:
            stub: ModelServiceAsyncStub = model_pb2_grpc.ModelServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListModels(model_pb2.ListModelsRequest(), timeout=LIMIT_S)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "{" not in str(caught.value.details())
