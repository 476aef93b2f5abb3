"""Attach, Watch and Admin as nobody means them: workers and gateways that behave notice nothing."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import grpc
import pytest

from services.controller.settings import ControllerSettings
from services.mesh.server import is_serving
from tests.fakes.controller_peers import hello, reachable_address
from tests.fuzz.amount import seeds
from tests.fuzz.bugs import BUGS, end_of
from tests.fuzz.odd_messages import odd, odd_frame
from tests.integration.controllers import Mesh, controller
from tokenmesh.controller.v1 import (
    admin_pb2,
    endpoint_pb2,
    endpoint_pb2_grpc,
    registry_pb2,
    registry_pb2_grpc,
)

SETTINGS = ControllerSettings(
    port=0, lease_ttl_s=60.0, dial_limit_s=0.3, command_limit_s=0.1, adapter_limit_s=0.1
)
# What waits for more is left.
READ_LIMIT_S = 0.1
ATTACH_FRAMES = ("hello", "heartbeat", "models_changed", "command_outcome", "leaving")
WATCH_FRAMES = ("subscribe", "failure_report", "failure_report")


async def spoil(call: Any, frames: list[Any], draw: random.Random) -> str:
    """Writes the frames, reads a little and goes. How the stream ended."""
    try:
        for each in frames:
            await call.write(each)
        if draw.random() < 0.3:
            await call.done_writing()
        async with asyncio.timeout(READ_LIMIT_S):
            while await call.read() is not grpc.aio.EOF:
                pass
    except (TimeoutError, grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
        pass
    call.cancel()
    return await end_of(call)


def attach_frames(draw: random.Random, address: str, lease_id: str) -> list[Any]:
    """Mostly a proper Hello first, then anything."""
    frames = []
    if draw.random() < 0.6:
        proper = hello(address, worker_id=f"odd-{draw.randrange(3)}", incarnation=draw.choice("ab"))
        frames.append(registry_pb2.AttachRequest(hello=proper))
    for _ in range(draw.randrange(6)):
        each = odd_frame(registry_pb2.AttachRequest, ATTACH_FRAMES, draw)
        each.lease_id = draw.choice(("", lease_id, "no such lease"))
        if each.HasField("hello") and draw.random() < 0.5:
            each.hello.address = address
        frames.append(each)
    return frames


@pytest.mark.parametrize("seed", seeds(3))
async def test_odd_streams_end_alone(seed: int) -> None:
    draw = random.Random(seed)
    async with reachable_address() as address, controller(SETTINGS) as mesh:
        sane = mesh.attach()
        await sane.attach(hello(address, worker_id="sane", incarnation="s"))
        watching = await mesh.watch()
        ends = []
        for _ in range(30):
            attach: Any = registry_pb2_grpc.RegistryServiceStub(mesh.channel).Attach()
            ends.append(await spoil(attach, attach_frames(draw, address, sane.lease_id), draw))
            watch: Any = endpoint_pb2_grpc.EndpointServiceStub(mesh.channel).Watch()
            odd_watch = [
                odd_frame(endpoint_pb2.WatchRequest, WATCH_FRAMES, draw)
                for _ in range(draw.randrange(1, 5))
            ]
            ends.append(await spoil(watch, odd_watch, draw))
            await sane.beat()
        assert not BUGS & set(ends), ends
        await check_well(mesh, watching)
        sane.cancel()


@pytest.mark.parametrize("seed", seeds(3))
async def test_odd_calls_of_operators_are_refused(seed: int) -> None:
    draw = random.Random(seed)
    async with reachable_address() as address, controller(SETTINGS) as mesh:
        sane = mesh.attach()
        await sane.attach(hello(address, worker_id="sane", incarnation="s"))
        watching = await mesh.watch()
        codes = set()
        for _ in range(60):
            chosen: tuple[Any, Any] = draw.choice(
                (
                    (mesh.admin.ListWorkers, admin_pb2.ListWorkersRequest()),
                    (mesh.admin.ListModels, admin_pb2.ListModelsRequest()),
                    (mesh.admin.DrainWorker, admin_pb2.DrainWorkerRequest()),
                    (mesh.admin.ResumeWorker, admin_pb2.ResumeWorkerRequest()),
                    (mesh.admin.LoadAdapter, admin_pb2.LoadAdapterRequest()),
                    (mesh.admin.UnloadAdapter, admin_pb2.UnloadAdapterRequest()),
                )
            )
            call, request = chosen
            odd(request, draw, share=0.6)
            try:
                await call(request)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code().name)
        assert codes
        assert not BUGS & codes, codes
        await check_well(mesh, watching)
        sane.cancel()


async def check_well(mesh: Mesh, watching: Any) -> None:
    """The controller is well: who watched from the beginning sees the worker that behaves."""
    assert await is_serving(mesh.channel, 5.0)
    assert "sane" in await mesh.workers()
    await watching.until(lambda: "sane" in watching.workers)
    later = await mesh.watch()
    assert "sane" in later.workers
    watching.cancel()
    later.cancel()
