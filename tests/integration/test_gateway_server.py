"""The gateway as a server: what it offers beside its own RPCs, and how it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from services.gateway.server import SERVICE_NAMES, running, serve
from services.gateway.settings import GatewaySettings
from services.mesh.channels import open_channel
from services.mesh.errors import StartError
from services.mesh.process import ReadyNotice, read_ready
from services.mesh.server import is_serving
from tests.fakes.fake_worker import FakeRequest, FakeWorker
from tests.fakes.gateway_mesh import Client, chat_request, controller, eventually, gateway

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def reflected(channel: Any) -> set[str]:
    """The services that reflection lists."""

    async def ask() -> AsyncIterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    async for answer in stub.ServerReflectionInfo(ask()):
        return {service.name for service in answer.list_services_response.service}
    return set()


async def test_health_names_every_service_and_reflection_those_for_clients() -> None:
    async with gateway("127.0.0.1:1") as client:
        names = await reflected(client.channel)
        assert names == {
            *SERVICE_NAMES,
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        for name in ("", *SERVICE_NAMES, "tokenmesh.openai.v1.ChatCompletionService"):
            assert await health(client.channel, name) == SERVING


async def read_notice(path: Path) -> ReadyNotice:
    await eventually(lambda: read_ready(path) is not None)
    notice = read_ready(path)
    assert notice is not None
    return notice


async def test_a_stop_lets_running_requests_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.gateway.server.REGISTRY", CollectorRegistry())
    go_on = asyncio.Event()

    async def slow(request: FakeRequest) -> None:
        await request.started()
        await go_on.wait()
        await request.chunk("done")
        await request.finish()

    stop, ready_file = asyncio.Event(), tmp_path / "ready.json"
    async with controller() as address, FakeWorker([address], slow) as worker:
        settings = GatewaySettings(
            port=0, controllers=(address,), ready_file=ready_file, grace_period_s=60.0
        )
        serving = asyncio.create_task(serve(settings, stop))
        notice = await read_notice(ready_file)
        client = Client(notice.address, CollectorRegistry())
        async with client.channel, open_channel(notice.address) as probe:
            stub: Any = health_pb2_grpc.HealthStub(probe)
            watching = stub.Watch(health_pb2.HealthCheckRequest())
            states = [(await watching.read()).status]
            await client.wait_served(1)
            call = client.chat.Chat(chat_request())
            await eventually(lambda: bool(worker.running))
            stop.set()
            states.append((await watching.read()).status)
            assert states == [SERVING, NOT_SERVING]
            assert not serving.done()
            go_on.set()
            assert "".join([response.chunk.text async for response in call]) == "done"
            watching.cancel()
        await serving
        async with open_channel(notice.address) as channel:
            assert not await is_serving(channel, 1.0)


async def test_a_taken_port_is_one_clear_line() -> None:
    async with gateway("127.0.0.1:1") as client:
        address = client.address
        settings = GatewaySettings(port=int(address.rpartition(":")[2]), controllers=("a:1",))
        with pytest.raises(StartError, match="--port"):
            async with running(settings, CollectorRegistry()):
                pass


async def test_several_gateways_may_share_a_port() -> None:
    async with gateway("127.0.0.1:1", reuse_port=True) as client:
        port = int(client.address.rpartition(":")[2])
        settings = GatewaySettings(port=port, controllers=("127.0.0.1:1",), reuse_port=True)
        async with running(settings, CollectorRegistry()) as second:
            assert second.address == client.address


async def test_metrics_are_served() -> None:
    registry = CollectorRegistry()
    settings = GatewaySettings(port=0, controllers=("127.0.0.1:1",), grace_period_s=0.0)
    async with running(settings, registry) as gateway_, httpx.AsyncClient() as http:
        page = (await http.get(f"http://{gateway_.metrics_address}/metrics")).text
    assert 'tokenmesh_gateway_controller_connected{controller="127.0.0.1:1"} 0.0' in page
    assert 'tokenmesh_gateway_workers{state="serving"} 0.0' in page
    assert "tokenmesh_build_info" in page
