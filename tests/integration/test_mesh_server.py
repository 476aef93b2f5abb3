"""What every service offers: health, reflection, channelz, typed errors, request ids."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.mesh import errors, interceptors, status
from services.mesh.channels import open_channel
from services.mesh.server import MeshServer, is_serving
from tokenmesh.gateway.v1 import model_pb2, model_pb2_grpc

SERVICE = "tokenmesh.gateway.v1.ModelService"


class FailingModelService(model_pb2_grpc.ModelServiceServicer):
    """Fails in the ways in which a servicer can."""

    def __init__(self) -> None:
        self.seen_request_id = ""

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Any
    ) -> model_pb2.ListModelsResponse:
        self.seen_request_id = interceptors.current_request_id()
        return model_pb2.ListModelsResponse()

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Any
    ) -> model_pb2.GetModelResponse:
        if request.model == "bug":
            raise ZeroDivisionError("secret internals")
        raise errors.ModelNotFoundError(f"no model {request.model!r}", field="model")


@pytest.fixture
async def server() -> AsyncIterator[tuple[MeshServer, FailingModelService]]:
    servicer = FailingModelService()  # type: ignore[abstract]
    mesh_server = MeshServer("127.0.0.1", 0)
    model_pb2_grpc.add_ModelServiceServicer_to_server(servicer, mesh_server.grpc)
    await mesh_server.start([SERVICE])
    yield mesh_server, servicer
    await mesh_server.stop(0)


@pytest.fixture
async def channel(server: tuple[MeshServer, Any]) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(server[0].address) as opened:
        yield opened


async def failure(channel: grpc.aio.Channel, model: str) -> grpc.aio.AioRpcError:
    stub: Any = model_pb2_grpc.ModelServiceStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetModel(
            model_pb2.GetModelRequest(model=model), metadata=[("x-request-id", "req-7")]
        )
    return raised.value


async def test_a_mesh_error_arrives_typed(channel: grpc.aio.Channel) -> None:
    error = await failure(channel, "gpt-9")
    received = status.from_rpc_error(error)
    assert isinstance(received, errors.ModelNotFoundError)
    assert received.field == "model"
    assert dict(error.trailing_metadata() or ())["x-request-id"] == "req-7"


async def test_a_bug_shows_the_request_id_and_no_internals(channel: grpc.aio.Channel) -> None:
    error = await failure(channel, "bug")
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "req-7" in str(error.details())
    assert "secret" not in str(error.details())


async def test_the_request_id_is_the_clients(
    server: tuple[MeshServer, FailingModelService], channel: grpc.aio.Channel
) -> None:
    stub: Any = model_pb2_grpc.ModelServiceStub(channel)
    await stub.ListModels(model_pb2.ListModelsRequest(), metadata=[("x-request-id", "mine")])
    assert server[1].seen_request_id == "mine"
    await stub.ListModels(model_pb2.ListModelsRequest())
    assert server[1].seen_request_id.startswith("req-")


async def test_health_follows_the_life_of_the_server(
    server: tuple[MeshServer, Any], channel: grpc.aio.Channel
) -> None:
    assert await is_serving(channel, timeout_s=5)
    stub: Any = health_pb2_grpc.HealthStub(channel)
    one = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE))
    assert one.status == health_pb2.HealthCheckResponse.SERVING
    await server[0].drain()
    assert not await is_serving(channel, timeout_s=5)


async def test_health_can_be_watched(
    server: tuple[MeshServer, Any], channel: grpc.aio.Channel
) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    await server[0].drain()
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


async def test_reflection_lists_the_services(channel: grpc.aio.Channel) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    answer = await call.read()
    names = {each.name for each in answer.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= names


async def test_a_busy_port_says_what_to_do(server: tuple[MeshServer, Any]) -> None:
    second = MeshServer("127.0.0.1", server[0].port)
    with pytest.raises(errors.StartError, match="--port"):
        await second.start([])


async def test_nobody_serving_is_told_within_the_limit() -> None:
    async with open_channel("127.0.0.1:1") as closed:
        async with asyncio.timeout(60):
            assert not await is_serving(closed, timeout_s=1)


def test_a_status_in_the_details_is_what_the_trailer_holds() -> None:
    error = errors.NoWorkerError("all draining", retry_after_s=2)
    packed = dict(status.trailing_metadata(error, status.to_status(error), ""))
    parsed = status_pb2.Status.FromString(bytes(packed["grpc-status-details-bin"]))  # type: ignore[arg-type]
    assert isinstance(status.from_status(parsed), errors.NoWorkerError)


async def test_a_call_that_comes_as_the_server_stops_may_be_made_again(
    server: tuple[MeshServer, Any], channel: grpc.aio.Channel
) -> None:
    stub: Any = model_pb2_grpc.ModelServiceStub(channel)
    await stub.ListModels(model_pb2.ListModelsRequest())
    calls = [stub.ListModels(model_pb2.ListModelsRequest()) for _ in range(5)]
    await asyncio.sleep(0)
    # The calls reach the server, whose event loop is this one, and begins none of them.
    time.sleep(0.2)
    await server[0].stop(0)
    failed = await asyncio.gather(*calls, return_exceptions=True)
    errors_by_code = {each.code(): status.from_rpc_error(each) for each in failed}  # type: ignore[union-attr, arg-type]
    stopped = errors_by_code[grpc.StatusCode.CANCELLED]
    assert (stopped.code, stopped.reason) == ("UNAVAILABLE", "UNAVAILABLE")
    assert "stop" in stopped.message


async def test_a_call_that_we_cancel_ends_as_cancelled(
    server: tuple[MeshServer, Any], channel: grpc.aio.Channel
) -> None:
    stub: Any = model_pb2_grpc.ModelServiceStub(channel)
    call = stub.ListModels(model_pb2.ListModelsRequest())
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
