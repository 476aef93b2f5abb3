"""Workers and real controllers: leases, heartbeats, commands, reconnects, leaving."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from services.controller.settings import ControllerSettings
from services.mesh.channels import open_channel
from services.worker.engines.scripted import Pace
from tests.fakes.generate_client import LIMIT_S, GenerateClient
from tests.integration.controllers import Mesh, controller
from tests.integration.workers import SLOW, Worker, worker
from tokenmesh.controller.v1 import admin_pb2, endpoint_pb2, registry_pb2

INTERVAL_S = 0.1


def settings(port: int = 0) -> ControllerSettings:
    return ControllerSettings(
        port=port, controller_id="c-1", lease_ttl_s=2.0, heartbeat_interval_s=INTERVAL_S
    )


@asynccontextmanager
async def attached(mesh: Mesh, **options: Any) -> AsyncIterator[Worker]:
    given = {"controllers": (mesh.address,), "worker_id": "w-1"} | options
    async with worker(**given) as served:
        assert await served.served.wait_until_attached(LIMIT_S)
        yield served


async def until(mesh: Mesh, holds: Any) -> endpoint_pb2.Worker:
    """The worker as the controller lists it, once the condition holds for it."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            listed = (await mesh.workers()).get("w-1")
            if listed is not None and holds(listed):
                return listed
            await asyncio.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_hello_tells_who_it_is_and_what_it_serves() -> None:
    async with (
        controller(settings()) as mesh,
        attached(mesh, labels={"zone": "a"}, speed=2.5, max_running=3) as served,
    ):
        listed = (await mesh.workers())["w-1"]
        assert listed.address == served.served.address
        assert listed.incarnation == served.served.identity.incarnation
        assert listed.state == registry_pb2.WORKER_STATE_SERVING
        assert dict(listed.labels) == {"zone": "a"}
        assert (listed.capacity.max_running, listed.capacity.speed) == (3, 2.5)
        (model,) = listed.models
        assert (model.name, list(model.aliases), model.engine) == (
            "scripted",
            ["alias"],
            "scripted",
        )
        assert served.metric("attached", controller=mesh.address) == 1


async def test_heartbeats_carry_real_load() -> None:
    async with (
        controller(settings()) as mesh,
        attached(mesh, pace=SLOW, max_running=2) as served,
        served.generate() as stream,
    ):
        for key in range(3):
            await stream.start(key, sampling={"max_tokens": 3000})
        listed = await until(
            mesh, lambda each: each.load.running == 2 and each.load.tokens_per_second > 0
        )
        assert listed.load.waiting == 1
        assert listed.load.kv_used_tokens > 6000
        assert listed.load.kv_total_tokens == served.engine.capacity.kv_total_tokens
        for key in range(3):
            await stream.abort(key)
        await until(mesh, lambda each: each.load.running == each.load.kv_used_tokens == 0)


async def test_drain_and_resume_reach_the_worker() -> None:
    async with controller(settings()) as mesh, attached(mesh) as served:
        await mesh.admin.DrainWorker(admin_pb2.DrainWorkerRequest(worker_id="w-1"))
        assert served.served.state.is_draining
        await until(mesh, lambda each: each.state == registry_pb2.WORKER_STATE_DRAINING)
        await mesh.admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="w-1"))
        assert not served.served.state.is_draining
        await until(mesh, lambda each: each.state == registry_pb2.WORKER_STATE_SERVING)


async def test_a_drain_may_bring_its_own_grace_period() -> None:
    async with (
        controller(settings()) as mesh,
        attached(mesh, pace=SLOW) as served,
        served.generate() as stream,
    ):
        await stream.start(1, sampling={"max_tokens": 3000})
        await stream.read_tokens(1, 1)
        request = admin_pb2.DrainWorkerRequest(worker_id="w-1")
        request.grace_period.FromMilliseconds(10)
        await mesh.admin.DrainWorker(request)
        await stream.read_until_ended(1)
        assert stream.error(1).code == "UNAVAILABLE"


async def test_a_worker_that_stops_cannot_be_resumed() -> None:
    async with controller(settings()) as mesh, AsyncExitStack() as stopping:
        served = await stopping.enter_async_context(
            attached(mesh, pace=SLOW, grace_period_s=LIMIT_S)
        )
        async with open_channel(served.served.address) as channel:
            stream = GenerateClient(channel)
            await stream.start(1, sampling={"max_tokens": 4000})
            await stream.read_tokens(1, 1)
            stopped = asyncio.create_task(stopping.aclose())
            await until(mesh, lambda each: each.state == registry_pb2.WORKER_STATE_DRAINING)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await mesh.admin.ResumeWorker(admin_pb2.ResumeWorkerRequest(worker_id="w-1"))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            await stream.abort(1)
            await stopped


async def test_a_restarted_controller_learns_of_worker_and_drain_again() -> None:
    port = free_port()
    async with AsyncExitStack() as worker_left, AsyncExitStack() as first:
        mesh = await first.enter_async_context(controller(settings(port)))
        served = await worker_left.enter_async_context(attached(mesh, pace=Pace()))
        served.served.drain.begin(60.0)
        await until(mesh, lambda each: each.state == registry_pb2.WORKER_STATE_DRAINING)
        await first.aclose()
        async with controller(settings(port)) as anew:
            listed = await until(anew, lambda _: True)
            assert listed.state == registry_pb2.WORKER_STATE_DRAINING
            assert listed.incarnation == served.served.identity.incarnation


async def test_a_worker_attaches_to_all_controllers_and_serves_without_any() -> None:
    async with controller(settings()) as one, controller(settings()) as two:
        gone = f"127.0.0.1:{free_port()}"
        async with worker(controllers=(one.address, gone, two.address), worker_id="w-1") as served:
            await until(one, lambda _: True)
            await until(two, lambda _: True)
            async with served.generate() as stream:
                await stream.start(1, sampling={"max_tokens": 2})
                await stream.read_until_ended(1)
                assert stream.ends(1)[0].HasField("finished")
            assert served.metric("attached", controller=gone) == 0


async def test_a_worker_that_stops_leaves_at_once() -> None:
    async with controller(settings()) as mesh:
        async with attached(mesh):
            assert "w-1" in await mesh.workers()
        assert "w-1" not in await mesh.workers()
        assert mesh.metric("lease_events_total", event="left") == 1
        assert mesh.metric("lease_events_total", event="expired") == 0


@pytest.mark.parametrize("tries", [3])
async def test_a_refusal_is_logged_once_not_for_each_try(tries: int) -> None:
    async with controller(settings()) as mesh:
        with capture_logs() as logs:
            nowhere = f"127.0.0.1:{free_port()}"
            async with worker(
                controllers=(mesh.address,), worker_id="w-1", advertise_address=nowhere
            ):
                async with asyncio.timeout(LIMIT_S):
                    while mesh.metric("lease_events_total", event="refused") < tries:
                        await asyncio.sleep(0.02)
        complaints = [each for each in logs if each["event"] == "not attached"]
        assert len(complaints) == 1
        assert complaints[0]["reason"] == "ADDRESS_UNREACHABLE"
        assert nowhere in complaints[0]["error"]
