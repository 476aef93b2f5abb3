"""A controller starts, stops and starts again; and what it offers like every service."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.controller.server import SERVICE_NAMES
from services.controller.settings import ControllerSettings
from services.mesh.channels import open_channel
from services.mesh.errors import StartError
from services.mesh.server import is_serving
from tests.fakes.controller_peers import AttachPeer, WatchPeer, hello, reachable_address
from tests.integration.controllers import controller
from tokenmesh.controller.v1 import endpoint_pb2, registry_pb2

SETTINGS = ControllerSettings(port=0)


async def test_health_and_reflection() -> None:
    async with controller(SETTINGS) as mesh:
        assert await is_serving(mesh.channel, timeout_s=30)
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(mesh.channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await call.read()
        names = {service.name for service in answer.list_services_response.service}
        assert {*SERVICE_NAMES, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= names


async def test_a_stopping_controller_says_so_on_every_stream() -> None:
    async with reachable_address() as address:
        served = controller(SETTINGS)
        mesh = await served.__aenter__()
        async with open_channel(mesh.address) as channel:
            nameless, unsubscribed = AttachPeer(channel), WatchPeer(channel)
            attached, watching = AttachPeer(channel), WatchPeer(channel)
            await attached.attach(hello(address))
            await watching.subscribe()
            await served.__aexit__(None, None, None)
            for peer in (attached, nameless, watching, unsubscribed):
                error = await peer.failure()
                assert (error.code, error.reason) == ("UNAVAILABLE", "CONTROLLER_STOPPING")


async def test_a_restarted_controller_learns_every_worker_anew() -> None:
    async with reachable_address() as address:
        async with controller(SETTINGS) as mesh:
            port = int(mesh.address.rpartition(":")[2])
            channel = open_channel(mesh.address)
            gateway = WatchPeer(channel)
            await gateway.subscribe()
            for number in range(3):
                await AttachPeer(channel).attach(hello(address, f"w{number}"))
            again = AttachPeer(channel)
            granted = await again.attach(hello(address, "w0"))
            assert granted.attachment == registry_pb2.ATTACHMENT_RECONNECT
            before = gateway.snapshot.controller_incarnation
        async with controller(ControllerSettings(port=port)) as mesh:
            gateway = await mesh.watch()
            assert gateway.snapshot.controller_incarnation != before
            assert gateway.completeness == endpoint_pb2.COMPLETENESS_LEARNING
            assert gateway.workers == {}
            for number in range(3):
                peer = AttachPeer(channel)
                granted = await peer.attach(hello(address, f"w{number}"))
                assert granted.attachment == registry_pb2.ATTACHMENT_NEW
            await gateway.until(lambda: set(gateway.workers) == {"w0", "w1", "w2"})
        await channel.close()


async def test_a_taken_port_stops_the_start() -> None:
    async with controller(SETTINGS) as mesh:
        port = int(mesh.address.rpartition(":")[2])
        with pytest.raises(StartError, match="--port"):
            async with controller(ControllerSettings(port=port)):
                pass


async def test_a_stopped_controller_is_gone() -> None:
    async with controller(SETTINGS) as mesh:
        address = mesh.address
    async with open_channel(address) as channel:
        assert not await is_serving(channel, timeout_s=1)
        error = await WatchPeer(channel).failure()
        assert error.code == grpc.StatusCode.UNAVAILABLE.name
